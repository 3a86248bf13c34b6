"""ST Edge AI on a board at a serial port: the duration of a sample as ``stedgeai validate`` reports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, only, runners


@runners.register("stedgeai")
class StEdgeAi(Runner):
    """``stedgeai validate --mode target``."""

    options: ClassVar[Mapping[str, str]] = {"target": "stm32n6", "port": "serial:921600", "batches": "10"}
    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".tflite")

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        words = [
            "stedgeai",
            "validate",
            "--model",
            str(model),
            "--target",
            options["target"],
            "--mode",
            "target",
            "--desc",
            options["port"],
        ]
        return [[*words, "--batches", options["batches"]]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r"^\s*duration\s*:\s*([0-9.]+)\s*ms by sample", text, "stedgeai")
