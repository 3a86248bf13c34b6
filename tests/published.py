"""A folder or a wheel as `qai-hub-models` publishes timings, of whatever figures a test gives."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

LATENCIES = {"resnet18": 2.0, "resnet50": 3.4, "mobilenet_v2": 1.25, "convnext_tiny": 8.2, "googlenet": 1.55}
"""Of SA8295P at fp16, each about .12 ms below what its profile has."""

DEVICES = ("SA8295P ADP", "SA8775P ADP")


def perf_yaml(
    network: str, latency_ms: float, sdk: str = "2.60.0.270115000000", layers: int = 50, devices: tuple[str, ...] = DEVICES
) -> str:
    """Return the table of a network."""
    blocks = "".join(
        f"""
          {device}:
            qnn_dlc:
              estimated_peak_memory_range_mb: {{max: 4, min: 1}}
              inference_time_milliseconds: {latency_ms}
              job_id: j{network}{device.split()[0]}
              job_status: Passed
              layer_counts: {{npu: {layers}, total: 50}}
              primary_compute_unit: NPU
              tool_versions: {{qairt: {sdk}}}"""
        for device in devices
    )
    return f"precisions:\n  float:\n    components:\n      {network}:\n        performance_metrics:{blocks}\n"


def perf_folder(folder: Path, latencies: Mapping[str, float] = LATENCIES, **kwargs: str) -> Path:
    """Write a folder as an unpacked wheel has it; return it."""
    for network, latency_ms in latencies.items():
        room = folder / "qai_hub_models" / "models" / network
        room.mkdir(parents=True)
        (room / "perf.yaml").write_text(perf_yaml(network, latency_ms, **kwargs))
    return folder


def perf_wheel(file: Path, latencies: Mapping[str, float] = LATENCIES) -> Path:
    """Write a wheel; return it."""
    with zipfile.ZipFile(file, "w") as archive:
        for network, latency_ms in latencies.items():
            archive.writestr(f"qai_hub_models/models/{network}/perf.yaml", perf_yaml(network, latency_ms))
    return file
