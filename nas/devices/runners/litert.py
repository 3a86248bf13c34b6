"""LiteRT's (TensorFlow Lite's) ``benchmark_model``: the mean of its runs after warming up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, only, runners

LINE = r"Inference timings in us: .*?Inference \(avg\): ([0-9.eE+]+)"


@runners.register("litert")
class LiteRt(Runner):
    """``benchmark_model --graph=MODEL``."""

    options: ClassVar[Mapping[str, str]] = {"threads": "1", "runs": "50", "program": "benchmark_model"}
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        return [[options["program"], f"--graph={model}", f"--num_threads={options['threads']}", f"--num_runs={options['runs']}"]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(LINE, text, "benchmark_model", 1e-3)
