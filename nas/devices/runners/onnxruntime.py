"""ONNX Runtime in a process of its own on this machine, one thread a run by default."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, runners
from nas.errors import MeasurementError

_CODE = (
    "import sys; from pathlib import Path; from nas.devices.measure import measure_onnx; "
    "[print(ms) for ms in measure_onnx(Path(sys.argv[1]), 'local-cpu', threads=int(sys.argv[2])).samples_ms]"
)


@runners.register("onnxruntime")
class OnnxRuntime(Runner):
    """A Python process that prints a time a line."""

    options: ClassVar[Mapping[str, str]] = {"threads": "1"}

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        return [[sys.executable, "-c", _CODE, str(model), options["threads"]]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        try:
            times_ms = [float(line) for line in text.splitlines()]
        except ValueError as error:
            raise MeasurementError(f"onnxruntime: its process printed something else than times ({error}).") from None
        if not times_ms or min(times_ms) <= 0:
            raise MeasurementError("onnxruntime: its process printed no times.")
        return times_ms
