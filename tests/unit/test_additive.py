"""Non-negative additive prices: exact where the device is additive, shrunk to alike devices, honest about what they have not seen."""

import numpy as np
import pytest

from latency_predictors.additive import COARSE, Additive, folds_of, quantities
from nas.devices.predictor import Sample
from nas.devices.profile import Profile
from nas.errors import UsageError
from nas.graphs import workloads
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.spaces.naming import get_space

RNG = np.random.default_rng(0)
GRAPHS = [space.lower(space.sample(RNG)) for space in (get_space("fbnet"), get_space("ofa")) for _ in range(40)]


def profile(name: str) -> Profile:
    return Profile.model_validate(
        {
            "name": name,
            "title": name,
            "kind": "cpu",
            "runtime": "none",
            "default_precision": "fp32",
            "precisions": {"fp32": {}},
            "origin": {"title": "made in this test"},
        }
    )


def synthetic_ms(graph: Graph, slower: float = 1.0) -> float:
    dense = sum(graph.macs_of(op) for op in graph.operators if op.attribute("groups", 1) < 3)
    return slower * (0.01 * len(graph.operators) + dense / 3e6 + (graph.cost.macs - dense) / 0.5e6)


def samples(graphs: list[Graph], device: str = "a", slower: float = 1.0) -> list[Sample]:
    return [Sample(g, "fp32", synthetic_ms(g, slower), g.key, device, "fbnet") for g in graphs]


def test_additive_device_is_found() -> None:
    model = Additive().fit(samples(GRAPHS[:30] + GRAPHS[40:70]))
    for graph in GRAPHS[30:40] + GRAPHS[70:]:
        estimate = model.estimate(graph, profile("a"), "fp32")
        assert estimate.latency_ms == pytest.approx(synthetic_ms(graph), rel=0.12)
        assert sum(op.latency_ms for op in estimate.operators) == pytest.approx(estimate.latency_ms)
        assert not estimate.extrapolated


def test_another_view_of_a_tensor_is_no_work() -> None:
    compiled = normalise(workloads.load("shufflenet_v2_x1_0"))
    views = sum(op.op == "Reshape" for op in compiled.operators)
    assert views > 20
    assert quantities(compiled)[COARSE.index("operators")] == len(compiled.operators) - views


def test_few_networks_lean_on_alike_devices() -> None:
    """A device with 10 networks of one space is asked about another space that its five neighbours know."""
    neighbours = [s for i in range(5) for s in samples(GRAPHS[:8] + GRAPHS[40:60], f"n{i}", 1 + 0.2 * i)]
    model = Additive().fit([*neighbours, *samples(GRAPHS[:10], "few", 2.0)])
    error = [abs(model.estimate(g, profile("few"), "fp32").latency_ms / synthetic_ms(g, 2.0) - 1) for g in GRAPHS[60:]]
    assert np.mean(error) < 0.25


def test_unseen_work_is_priced_and_named() -> None:
    model = Additive().fit(samples(GRAPHS[:20]))
    space = get_space("nasbench201")
    estimate = model.estimate(space.lower(space.architecture(["avg_pool_3x3"] * 6)), profile("a"), "fp32")
    assert estimate.latency_ms > 0
    assert any("pool/bytes" in reason for reason in estimate.extrapolated)


def test_quantities_add_up_over_segments() -> None:
    space = get_space("ofa")
    architecture = space.sample(RNG)
    parts = np.sum([quantities(graph) for _, graph in space.segments(architecture)], axis=0)
    assert parts == pytest.approx(np.array(quantities(space.lower(architecture))))


def test_families_stay_in_one_fold_and_refusals() -> None:
    folds = folds_of(["a", "b", "a", "c", "d", "e", "b"])
    assert folds[0] == folds[2]
    assert folds[1] == folds[6]
    with pytest.raises(UsageError, match="too few networks"):
        Additive().fit(samples(GRAPHS[:4]))
    with pytest.raises(UsageError, match="Did you mean 'a'"):
        Additive().fit(samples(GRAPHS[:12])).estimate(GRAPHS[0], profile("aa"), "fp32")


def test_held_out_names_every_network_and_plenty_are_priced_finely() -> None:
    model = Additive().fit(samples(GRAPHS[:30] + GRAPHS[40:70]))
    rows = model.held_out("a", "fp32")
    assert [row[0] for row in rows] == [g.key for g in GRAPHS[:30] + GRAPHS[40:70]]
    assert all(low < guess < high for _, _, guess, low, high in rows)
    fine = slice(len(COARSE), None)
    few = Additive().fit(samples(GRAPHS[:20]))
    assert model.devices["a", "fp32"].prices_ms[fine].any()
    assert not few.devices["a", "fp32"].prices_ms[fine].any()
