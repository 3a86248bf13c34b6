"""Qualcomm AI Hub: compiles and profiles on a device of the farm; the estimated inference time of the profile."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from nas.devices.runner import Runner, needed, only, runners

_CODE = (
    "import json, sys; import qai_hub as hub; path, name, runtime = sys.argv[1:]; device = hub.Device(name); "
    "target = hub.submit_compile_job(model=path, device=device, options=f'--target_runtime {runtime}').get_target_model(); "
    "job = hub.submit_profile_job(model=target, device=device); print(json.dumps(job.download_profile()['execution_summary']))"
)


@runners.register("qai-hub")
class QaiHub(Runner):
    """A Python process that submits a compile job and a profile job, and waits."""

    options: ClassVar[Mapping[str, str]] = {"device": "", "runtime": "qnn_context_binary"}

    def commands(self, model: Path, options: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """See `Runner.commands`."""
        return [[sys.executable, "-c", _CODE, str(model), needed("qai-hub", options, "device", "'SA8295P ADP'"), options["runtime"]]]

    def parse(self, text: str) -> list[float]:
        """See `Runner.parse`."""
        return only(r'"estimated_inference_time": ([0-9.eE+]+)', text, "qai-hub", 1e-3)
