"""OpenVINO's ``benchmark_app``: the median latency of one stream, synchronous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, only, runners


@runners.register("openvino")
class OpenVino(Runner):
    """``benchmark_app -m MODEL -d CPU -api sync``."""

    options: ClassVar[Mapping[str, str]] = {"device": "CPU", "threads": "1", "seconds": "5"}
    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".tflite", ".xml")

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        threads = ["-nthreads", options["threads"]] if options["device"] == "CPU" else []
        words = ["benchmark_app", "-m", str(model), "-d", options["device"], "-api", "sync", "-hint", "none", "-nstreams", "1"]
        return [[*words, "-t", options["seconds"], *threads]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r"^\[ INFO \]\s+Median:\s+([0-9.]+) ms$", text, "benchmark_app")
