"""RAM and flash are planned as ST's tools report them, bound a search, and a network that leaves the RAM is slower."""

from __future__ import annotations

import pytest

from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.graphs import arena, workloads
from nas.graphs.graph import GraphBuilder
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.naming import get_space
from nas.units import parse_limit


@pytest.mark.parametrize(
    ("network", "ram_kib", "flash_kib"),
    [
        ("mobilenetv4_conv_small", 539, 3760.53),
        ("shufflenet_v2_x0_5", 441, 1369.07),
        ("mobilenetv2_100", 2058, 3813.97),
        ("proxylessnas_mobile", 1372, 4233.2),
        ("fdmobilenet_wd2", 343, 973.39),
    ],
)
def test_ram_and_flash_of_networks_that_st_states(network: str, ram_kib: float, flash_kib: float) -> None:
    memory = load_profile("stm32n6").memory
    assert memory is not None
    graph = workloads.load(network)
    assert memory.ram_bytes(graph, "w8a8") / 1024 == pytest.approx(ram_kib, rel=0.15)
    assert memory.flash_bytes(graph, "w8a8") / 1024 == pytest.approx(flash_kib, rel=0.08)


def test_lifetimes_are_a_lower_bound_and_precision_counts() -> None:
    b = GraphBuilder("two")
    x = b.input((1, 3, 32, 32))
    graph = b.build(b.conv(b.conv(x, 16, 3, name="a"), 16, 3, name="b"))
    assert arena.lifetimes(graph, "w8a8") == 2 * 16 * 32 * 32
    assert arena.stedgeai(graph, "w8a8") >= arena.lifetimes(graph, "w8a8")
    assert arena.stedgeai(graph, "w8a16") == pytest.approx(2 * arena.stedgeai(graph, "w8a8"))
    assert arena.flash_bytes(graph, "w8a8") == graph.size_bytes("w8a8")


def test_a_network_that_leaves_the_ram_is_slower_and_says_so() -> None:
    profile = load_profile("n6")
    predictor, free = load_predictor(profile), profile.model_copy(update={"memory": None})
    graph = workloads.load("squeezenet1_0")
    inside, outside = (predictor.estimate(graph, p, "w8a8") for p in (free, profile))
    assert profile.memory is not None
    assert profile.memory.spill_factor is not None
    assert outside.latency_ms == pytest.approx(profile.memory.spill_factor * inside.latency_ms)
    assert any("leave the" in reason for reason in outside.extrapolated)
    batch = predictor.estimate_batch([[("x", graph)]], profile, "w8a8")
    assert batch.latency_ms[0] == pytest.approx(outside.latency_ms)
    assert batch.upper_ms[0] == pytest.approx(outside.upper_ms)


def test_a_budget_of_ram_bounds_the_search_by_the_whole_network() -> None:
    assert parse_limit("2.5MB-ram").value == 2.5e6
    targets = load_targets(["n6"])
    goal = make_goal(targets, ["10ms", "n6:0.3MB-ram", "1MB-flash"])
    assert [budget.name for budget in goal.budgets] == ["flash/stm32n6", "latency/stm32n6", "ram/stm32n6"]
    space = get_space("hybrid-xs")
    members = [space.extreme(large) for large in (False, True)]  # type: ignore[attr-defined]
    memory = load_profile("n6").memory
    assert memory is not None
    for architecture, verdict in zip(members, Judge(space, goal, targets).verdicts(members), strict=True):
        taken = memory.ram_bytes(space.lower(architecture), "w8a8")
        assert verdict.values["ram_bytes"] == pytest.approx(taken)
        assert verdict.violations["ram/stm32n6"] == pytest.approx(taken / 0.3e6 - 1)
        assert verdict.violations["flash/stm32n6"] == pytest.approx(verdict.values["flash_bytes"] / 1e6 - 1)
