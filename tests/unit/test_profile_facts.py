"""What a profile states of its device bounds what an estimate may say."""

from pathlib import Path

import pytest

import nas
from nas.devices.profile import Profile, load_profile, read_profile
from nas.graphs import workloads
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]


def stating(on_chip_memory_mb: float | None = None, **facts: float) -> Profile:
    """Return sa8295p with further facts, as its file would state them."""
    data = load_profile("sa8295p").model_dump()
    data["precisions"]["fp16"] |= facts
    return Profile.model_validate(data | {"on_chip_memory_mb": on_chip_memory_mb})


def test_no_run_is_faster_than_peak_bandwidth_and_launch() -> None:
    graph = workloads.load("resnet50")
    compute_ms, traffic_ms = graph.cost.macs / 1e9, graph.size_bytes("fp16") / 1e6
    assert stating().least_ms(graph, "fp16") == 0.0
    assert stating(peak_gmacs=1000.0, launch_us=100.0).least_ms(graph, "fp16") == pytest.approx(compute_ms + 0.1)
    assert stating(peak_gmacs=1000.0, bandwidth_gb_s=1.0).least_ms(graph, "fp16") == pytest.approx(traffic_ms)
    assert stating(1000.0, peak_gmacs=1000.0, bandwidth_gb_s=1.0).least_ms(graph, "fp16") == pytest.approx(compute_ms)


@pytest.mark.usefixtures("tiny_plugins")
def test_an_estimate_below_the_bound_is_doubted(tmp_path: Path) -> None:
    path = write_device(tmp_path)
    assert read_profile(path).least_ms(workloads.load("resnet18"), "fp16") == 0.0
    text = path.read_text()
    path.write_text(text.replace("[precisions.fp16]\n", "[precisions.fp16]\nlaunch_us = 1e9\n"))
    graph = workloads.load("resnet18")
    doubted = nas.predict(graph, str(path))
    assert doubted.extrapolated
    assert "faster than the peak" in doubted.extrapolated_why[-1]
