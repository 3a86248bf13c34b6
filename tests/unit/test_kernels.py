"""What PyTorch launches: sizes of numbers under autocast, copies, and prices that rare work does not bend."""

import numpy as np
import pytest

from latency_predictors._kernels import COLUMNS, kernels_of
from latency_predictors.kernels import KernelPrices
from nas.bench.latency_models import stub_profile
from nas.devices.predictor import Sample
from nas.graphs.graph import Graph, GraphBuilder, join
from nas.spaces.naming import get_space

AT = {name: i for i, name in enumerate(COLUMNS)}
RNG = np.random.default_rng(0)


def scaled(channels: int = 16, size: int = 8) -> Graph:
    """Return x + conv(x) · scale: its sum is a float under autocast."""
    b = GraphBuilder("scaled")
    x = b.input((1, channels, size, size))
    y = b.scale(b.conv(x, channels, 1, bias=False, name="conv"), (channels, 1, 1), name="scale")
    return b.build(b.binary("Add", y, x, name="add"))


def counted(graph: Graph, column: str, autocast: bool = True) -> float:
    return float(kernels_of(graph, autocast).total[AT[column]])


def test_a_float_vector_makes_floats_that_the_next_product_casts_back() -> None:
    number = 16 * 8 * 8 / 1e6
    alone, both = scaled(), join([("a", scaled()), ("b", scaled())])
    scaling = (2 + 4) * number + 4 * 16 / 1e6  # half in, float out: it moves what a cast does
    assert counted(alone, "cast") == pytest.approx(6 * number + scaling)  # the image is a float
    assert counted(both, "cast") == pytest.approx(2 * (6 * number + scaling))  # and so is what the first block leaves
    assert counted(both, "cast", autocast=False) == 0
    assert counted(alone, "affine") == 0
    assert counted(alone, "affine", autocast=False) == pytest.approx((4 + 4) * number + 4 * 16 / 1e6)
    assert kernels_of(alone, True).leaving.number_bytes == 4


def test_segments_are_counted_from_the_state_that_they_are_entered_in() -> None:
    graph = scaled()
    first = kernels_of(graph, True)
    second = kernels_of(graph, True, first.leaving)
    assert first.total + second.total == pytest.approx(kernels_of(join([("a", graph), ("b", graph)]), True).total)


def test_only_a_reshape_that_memory_order_forbids_is_a_copy() -> None:
    b = GraphBuilder("tokens")
    x = b.conv(b.input((1, 3, 8, 8)), 16, 1)
    last = b.transpose(x, (0, 2, 3, 1))
    view = b.build(b.reshape(last, (1, 1024)))
    assert counted(view, "copy") == 0  # images are channels-last already
    assert counted(view, "copy", autocast=False) == pytest.approx(8 * 16 * 64 / 1e6)


def test_what_is_not_folded_is_paid_for() -> None:
    def network(fold: bool) -> Graph:
        b = GraphBuilder("net")
        x = b.conv(b.input((1, 3, 32, 32)), 16, 3, bias=False)
        x = x if fold else b.norm("BatchNormalization", x, 16)
        return b.build(b.unary("Relu", x))

    folded, written = (kernels_of(network(fold), True).total for fold in (True, False))
    assert written[AT["bn"]] == pytest.approx(4 * 16 * 32 * 32 / 1e6)
    assert written[AT["start"]] == folded[AT["start"]] + 1


def test_a_variance_is_one_kernel_unless_its_steps_are_read_elsewhere() -> None:
    def network(again: bool) -> Graph:
        b = GraphBuilder("variance")
        x = b.conv(b.input((1, 3, 8, 8)), 16, 1)
        centred = b.binary("Sub", x, b.reduce("ReduceMean", x, (1,)))
        spread = b.reduce("ReduceMean", b.add_operator("Pow", [centred], {"scalar": 2.0}), (1,))
        return b.build(b.binary("Mul", centred if again else x, spread))

    once, apart = network(False), network(True)
    assert counted(once, "slow") == 0
    assert counted(once, "start") == counted(apart, "start") - 4  # mean, difference, a cast to float, power
    assert counted(apart, "slow") == pytest.approx(8 * 16 * 64 / 1e6)


def synthetic_ms(graph: Graph) -> float:
    row = kernels_of(graph, True).total
    moved = sum(
        row[AT[name]] for name, unit in COLUMNS.items() if unit.of == "MB" and name not in ("weights", "mixed order", "weight work")
    )
    return float(1e-3 * moved + 2e-5 * graph.cost.macs / 1e6)


def test_a_roofline_machine_is_found_and_rare_work_costs_its_bytes() -> None:
    spaces = [get_space("fbnet"), get_space("ofa")]
    graphs = [space.lower(space.sample(RNG)) for space in spaces for _ in range(35)]
    samples = [Sample(g, "fp16", synthetic_ms(g), g.key, "made-here", f"family{i % 7}") for i, g in enumerate(graphs)]
    model = KernelPrices().fit(samples)
    profile = stub_profile("made-here", "fp16")
    for space in spaces:
        graph = space.lower(space.sample(RNG))
        assert model.estimate(graph, profile, "fp16").latency_ms == pytest.approx(synthetic_ms(graph), rel=0.1)
    b = GraphBuilder("rare")
    x = b.conv(b.input((1, 3, 224, 224)), 32, 3, stride=2)
    rare = b.build(b.norm("BatchNormalization", b.add_operator("Resize", [x], shape=(1, 32, 224, 224)), 32))
    estimate = model.estimate(rare, profile, "fp16")
    assert estimate.latency_ms == pytest.approx(synthetic_ms(rare), rel=0.5)
    assert any("resize" in reason or "bn" in reason for reason in estimate.extrapolated)
    held = model.held_out("made-here", "fp16")
    assert np.mean([abs(guess / ms - 1) for _, ms, guess, *_ in held]) < 0.1
