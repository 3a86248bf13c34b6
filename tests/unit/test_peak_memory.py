"""Memory at the peak of a process: monotone in work, an interval, a budget; and quantised networks that are slower than in float."""

import pytest

from nas import api
from nas.devices.peak_memory import COLUMNS, columns_of, peak_bytes, peak_memory
from nas.devices.profile import load_profile
from nas.devices.slower import slower_than_float
from nas.graphs import workloads


def test_more_work_never_takes_less_memory() -> None:
    small, large = (columns_of(workloads.load(name), "fp16") for name in ("resnet18", "resnet101"))
    assert len(small) == len(COLUMNS)
    assert all(a <= b for a, b in zip(small, large, strict=True))
    assert all(a <= b for a, b in zip(columns_of(workloads.load("resnet18"), "w8a8"), small, strict=True))


def test_a_prediction_has_an_interval_and_a_device_without_one_counts_activations() -> None:
    graph = workloads.load("resnet50")
    found = peak_memory("sa8295p", graph, "fp16")
    assert found is not None
    assert 0 < found.lower_mb < found.mb < found.upper_mb
    assert peak_bytes("sa8295p", graph, "fp16") == 1e6 * found.upper_mb
    assert peak_bytes("sa8295p", graph, "fp16", upper=False) == 1e6 * found.mb
    assert peak_memory("rtx-4090", graph, "fp16") is None
    assert peak_bytes("rtx-4090", graph, "fp16") == graph.peak_memory_bytes("fp16")


@pytest.mark.parametrize(("end", "on"), [("peak_memory_upper_mb", "upper"), ("peak_memory_mb", "point")])
def test_a_budget_is_judged_by_the_upper_end(end: str, on: str) -> None:
    plain = api.predict("vit_base_patch16_224", "sa8295p")
    mb = getattr(plain, end)
    for limit, holds in ((1.01 * mb, True), (0.99 * mb, False)):
        (check,) = api.predict("vit_base_patch16_224", "sa8295p", budget=[f"{limit}MB-peak"], on=on).budgets
        assert (check.holds, check.judged, check.unit) == (holds, on, "MB-peak")
        assert check.value == pytest.approx(mb)


def test_a_search_holds_it_on_the_device_that_is_named() -> None:
    from nas.runs.targets import load_targets, make_goal
    from nas.searching.judge import Judge
    from nas.spaces.naming import get_space

    targets = load_targets(["sa8295p", "samsung-galaxy-s24"])
    goal = make_goal(targets, ["sa8295p:150MB-peak"])
    space = get_space("nasbench201")
    architecture = next(iter(space.enumerate()))
    verdict = Judge(space, goal, targets).verdicts([architecture])[0]
    found = peak_memory("sa8295p", space.lower(architecture), "fp16")
    assert found is not None
    assert verdict.values["peak_memory_bytes"] == pytest.approx(1e6 * found.upper_mb)
    assert verdict.violations == {"memory/sa8295p": pytest.approx(found.upper_mb / 150 - 1)}


def test_a_quantised_network_that_is_slower_is_named_before_anyone_exports_it() -> None:
    profile = load_profile("sa8295p")
    slow, fast = profile.at("w8a8").timings_ms["vit_base_patch16_224"], profile.at("fp16").timings_ms["vit_base_patch16_224"]
    assert slow > fast
    line = slower_than_float(workloads.load("vit_base_patch16_224"), profile, "w8a8", "vit_base_patch16_224")
    assert f"{slow:.3g} for {fast:.3g} ms, both timed" in line
    assert line in api.predict("vit_base_patch16_224", "sa8295p", precision="w8a8").notices
    assert slower_than_float(workloads.load("resnet50"), profile, "w8a8", "resnet50") == ""
    assert slower_than_float(workloads.load("vit_base_patch16_224"), profile, "fp16", "vit_base_patch16_224") == ""
