"""NVIDIA TensorRT's ``trtexec``: the median of the time on the GPU, copies left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, only, runners


@runners.register("trtexec")
class Trtexec(Runner):
    """``trtexec --onnx=MODEL``."""

    options: ClassVar[Mapping[str, str]] = {"fp16": "0", "int8": "0", "device": "0", "iterations": "100"}

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        words = ["trtexec", f"--onnx={model}", f"--device={options['device']}", f"--iterations={options['iterations']}", "--useSpinWait"]
        return [words + [f"--{flag}" for flag in ("fp16", "int8") if options[flag] == "1"]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r"GPU Compute Time: min = .*?median = ([0-9.eE+-]+) ms", text, "trtexec")
