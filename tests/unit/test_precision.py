"""Precision as genes: spellings, prices with borders, and scores that are those of the quantised network."""

from contextlib import nullcontext

import numpy as np
import pytest

from nas.errors import UsageError
from nas.graphs.graph import Graph
from nas.runs.options import check_for_devices
from nas.runs.request import Request
from nas.runs.targets import choose_by_part, load_targets, make_goal
from nas.searching.judge import Judge, precision_of
from nas.searching.searcher import searchers
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.precision import INHERIT, PrecisionSpace
from nas.testing import spaces as checks

NAME = "hybrid-s@fp16+w8a16+w8a8"


@pytest.mark.parametrize(("runner", "refused"), [("time-it {onnx}", False), ("ssh:host=a", True)])
def test_what_quantises_may_time_a_device_of_integers(runner: str, refused: bool) -> None:
    request = Request(devices=("hailo-8",), budgets=("100fps",), space="zoo", verify=3, runner=runner)
    with pytest.raises(UsageError, match="nothing of w8a8 on hailo-8") if refused else nullcontext():
        check_for_devices(request, load_targets(["hailo-8"]))


@pytest.fixture(scope="module")
def space() -> PrecisionSpace:
    found = get_space(NAME, resolution=(64, 64), num_classes=10)
    assert isinstance(found, PrecisionSpace)
    return found


@pytest.mark.parametrize("check", [c for c in checks.CHECKS if c is not checks.check_building], ids=lambda check: check.__name__)
def test_contract(space: PrecisionSpace, check) -> None:
    check(space)


def test_one_spelling_a_network(space: PrecisionSpace) -> None:
    rng = np.random.default_rng(0)
    seen: dict[tuple[object, ...], Architecture] = {}
    for member in [space.sample(rng) for _ in range(200)]:
        resolved = (space.without_precisions(member).genes, tuple(space.part_precisions(member).items()))
        assert seen.setdefault(resolved, member) == member
        scrambled = list(member.genes)
        for i, choice in enumerate(space.choices):  # say at every stage and block what it inherits
            stage = choice.name.removesuffix(".precision")
            inside = [p for label, p in space.part_precisions(member).items() if label.startswith(f"{stage}.")]
            if choice.name.endswith(".precision") and inside and scrambled[i] == INHERIT:
                scrambled[i] = inside[0]
        assert space.architecture(scrambled) == member


def test_whole_stage_and_block(space: PrecisionSpace) -> None:
    member = space.with_precision(space.plain.extreme(True), "fp16")
    genes = dict(space.describe(member)) | {"stage1.precision": "w8a8", "stage1.block1.precision": "w8a16"}
    found = space.part_precisions(space.architecture(list(genes.values())))
    assert {p for label, p in found.items() if not label.startswith("stage1")} == {"fp16"}
    assert found["stage1.downsample"] == found["stage1.block0.mixer"] == "w8a8"
    assert found["stage1.block1.mixer"] == found["stage1.block1.channel_mixer"] == "w8a16"


def test_a_mutation_changes_the_network_or_its_precisions(space: PrecisionSpace) -> None:
    rng, count = np.random.default_rng(2), len(space.plain.choices)
    member = space.with_precision(space.plain.sample(rng), "w8a8")
    children = [space.mutate(member, rng) for _ in range(60)]
    assert member not in children
    changed = [(child.genes[:count] != member.genes[:count], space.part_precisions(child)) for child in children]
    networks = [precisions for network, precisions in changed if network]
    assert 35 < len(networks) < 58
    assert all(set(precisions.values()) == {"w8a8"} for precisions in networks)
    assert all(set(precisions.values()) != {"w8a8"} for network, precisions in changed if not network)


def test_guided_search_tries_a_network_in_its_cheapest_precision_first(space: PrecisionSpace) -> None:
    targets = load_targets(["sa8295p"], "any")
    mixed, targets = choose_by_part(space.plain, targets)
    goal = make_goal(targets, ["5ms"])
    judge = Judge(mixed, goal, targets)
    searcher = searchers.get("guided")(mixed, goal, 0, judge)
    for number in range(5):
        member = searcher.ask(number)
        assert member is not None
        variants = mixed.variants(member)
        assert member in variants
        prices = [cheap["latency_ms/sa8295p"] for cheap, _ in judge.judge(list(variants))]
        assert prices[variants.index(member)] == min(prices)
        searcher.pend(member)


def test_names_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="unknown precision, got 'w4a4'"):
        get_space("hybrid-s@fp16+w4a4")
    with pytest.raises(UsageError, match="needs two"):
        get_space("hybrid-s@fp16")
    with pytest.raises(UsageError, match="no parts"):
        get_space("zoo@fp16+w8a8")


def test_prices_by_part(space: PrecisionSpace) -> None:
    """Uniform members cost what the plain space's do at that precision; a border costs; whole and segments agree."""
    targets = load_targets(["sa8295p"], "any")
    mixed, (target,) = choose_by_part(space.plain, targets)
    assert isinstance(mixed, PrecisionSpace)
    rng = np.random.default_rng(1)
    members = [space.plain.sample(rng) for _ in range(5)]
    for at in targets:
        plain = at.predictor.estimate_batch([space.plain.segments(a) for a in members], at.profile, at.precision)
        fixed = target.predictor.estimate_batch(
            [mixed.segments(mixed.with_precision(a, at.precision)) for a in members], target.profile, target.precision
        )
        for name in ("latency_ms", "lower_ms", "upper_ms", "usable", "extrapolated"):
            np.testing.assert_allclose(getattr(plain, name), getattr(fixed, name), rtol=1e-9)
    samples = [a for a in (mixed.sample(rng) for _ in range(90)) if precision_of(mixed.segments(a), "fp16") == "mixed"][:6]
    found = target.predictor.estimate_batch([mixed.segments(a) for a in samples], target.profile, target.precision)
    for i, member in enumerate(samples):
        whole = target.predictor.estimate(mixed.lower(member), target.profile, target.precision)
        np.testing.assert_allclose(
            [whole.latency_ms, whole.lower_ms, whole.upper_ms], [found.latency_ms[i], found.lower_ms[i], found.upper_ms[i]], rtol=1e-6
        )
        assert sum(op.latency_ms for op in whole.operators) == pytest.approx(whole.latency_ms)
        borders = sum(a != b for a, b in zip(*[list(mixed.part_precisions(member).values())[k:] for k in (0, 1)], strict=False))
        requantised = [op for op in whole.operators if op.op == "QuantizeLinear"]
        assert len(requantised) == borders > 0
        assert all(op.latency_ms > 0 for op in requantised)


def test_bytes_follow_the_parts(space: PrecisionSpace) -> None:
    member = space.plain.extreme(True)
    half, byte = (space.lower(space.with_precision(member, p)) for p in ("fp16", "w8a8"))
    assert half.size_bytes("fp32") == 2 * byte.size_bytes("fp32")
    assert half.peak_memory_bytes("fp16") > byte.peak_memory_bytes("fp16")
    assert Graph.from_json(byte.to_json()).precisions == {"w8a8"}


def test_devices_that_cannot_choose() -> None:
    targets = load_targets(["rb3-gen-2", "i9-10940x"], "any")
    with pytest.raises(UsageError, match="no precision in common"):
        choose_by_part(get_space("hybrid-s"), targets)  # type: ignore[arg-type]
