"""An Android phone behind ``adb``: LiteRT's ``benchmark_model``, which lies in ``/data/local/tmp`` there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, only, runners
from nas.devices.runners.litert import LINE

_FOLDER = "/data/local/tmp"


@runners.register("adb")
class Adb(Runner):
    """``adb push MODEL``, then ``adb shell benchmark_model``."""

    options: ClassVar[Mapping[str, str]] = {"serial": "", "threads": "4", "runs": "50", "gpu": "0", "program": f"{_FOLDER}/benchmark_model"}
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        adb = ["adb", *(["-s", options["serial"]] if options["serial"] else [])]
        there = f"{_FOLDER}/nas-model.tflite"
        words = [options["program"], f"--graph={there}", f"--num_threads={options['threads']}", f"--num_runs={options['runs']}"]
        return [[*adb, "push", str(model), there], [*adb, "shell", *words, *(["--use_gpu=true"] if options["gpu"] == "1" else [])]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(LINE, text, "benchmark_model", 1e-3)
