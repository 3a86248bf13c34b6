"""Rockchip's NPU behind ``rknn-toolkit2``: a frame's time as ``eval_perf`` reports it from the connected board."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, needed, only, runners

_CODE = (
    "import sys; from rknn.api import RKNN; r = RKNN(); path, target, device = sys.argv[1:]; r.config(target_platform=target); "
    "assert r.load_onnx(model=path) == 0; assert r.build(do_quantization=False) == 0; "
    "assert r.init_runtime(target=target, device_id=device or None, perf_debug=True) == 0; print(r.eval_perf()); r.release()"
)


@runners.register("rknn")
class Rknn(Runner):
    """A Python process that converts, connects and times."""

    options: ClassVar[Mapping[str, str]] = {"target": "", "device": ""}

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        return [[sys.executable, "-c", _CODE, str(model), needed("rknn", options, "target", "rk3588"), options["device"]]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r"^Total Operator Elapsed Per Frame Time\(us\):\s*([0-9.]+)", text, "rknn", 1e-3)
