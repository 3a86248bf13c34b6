"""A board behind ``ssh``: ONNX Runtime's ``onnxruntime_perf_test`` there, one inference after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, needed, only, runners


@runners.register("ssh")
class Ssh(Runner):
    """``scp MODEL host:``, then ``ssh host onnxruntime_perf_test``."""

    options: ClassVar[Mapping[str, str]] = {"host": "", "threads": "4", "runs": "50", "provider": "cpu", "program": "onnxruntime_perf_test"}

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        host, there = needed("ssh", options, "host", "pi@board"), "/tmp/nas-model.onnx"
        words = [options["program"], "-e", options["provider"], "-I", "-m", "times", "-r", options["runs"], "-x", options["threads"], there]
        return [["scp", "-q", str(model), f"{host}:{there}"], ["ssh", host, *words]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r"^Average inference time cost(?: total)?: ([0-9.]+) ms$", text, "onnxruntime_perf_test")
