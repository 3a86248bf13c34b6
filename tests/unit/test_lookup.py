"""A table of operators holds a fixed space exactly, says what it lacks, and finds which graph a device executes."""

import json
from pathlib import Path

import numpy as np
import pytest

from latency_predictors._operator_counts import RUNTIMES, catalogue
from latency_predictors.lookup import Lookup
from nas.bench.latency_models import stub_profile
from nas.devices.artifact import read_artifact
from nas.devices.predictor import Sample
from nas.errors import ArtifactError, UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.naming import get_space
from nas.testing.predictors import block

DEVICE = stub_profile("a", "fp32")


def samples(space_name: str, count: int, runtime: int = 0) -> list[Sample]:
    """Return timings of a device whose every kind of operator has a price of its own, whatever its size."""
    space = get_space(space_name)
    graphs = [space.lower(space.sample(np.random.default_rng(i))) for i in range(count)]
    found = catalogue([[("g", graph)] for graph in graphs])
    prices = np.random.default_rng(1).uniform(0.5, 2.0, len(found.kinds))
    ms = 3.0 + found.counts[runtime] @ prices
    return [Sample(graph, "fp32", float(y), f"n{i}", "a") for i, (graph, y) in enumerate(zip(graphs, ms, strict=True))]


@pytest.mark.slow
def test_fixed_space_is_held_exactly() -> None:
    rows = samples("fbnet", 300)
    model = Lookup().fit(rows[:280])
    for row in rows[280:]:
        estimate = model.estimate(row.graph, DEVICE, "fp32")
        assert estimate.latency_ms == pytest.approx(row.latency_ms, rel=0.02)
        assert sum(op.latency_ms for op in estimate.operators) == pytest.approx(estimate.latency_ms)
        assert not estimate.extrapolated
        assert not estimate.unsupported


@pytest.mark.parametrize("runtime", [0, 2])
def test_executed_graph_is_found(runtime: int) -> None:
    """Sizes are no guide to these prices, but which ``none`` edges are executed is plain in 150 timings."""
    model = Lookup().fit(samples("nasbench201", 150, runtime))
    assert RUNTIMES[model.tables["a", "fp32"].runtime][0] == RUNTIMES[runtime][0]


def test_unknown_shapes_are_extrapolated_and_unknown_families_unsupported() -> None:
    model = Lookup().fit(samples("fbnet", 60))
    b = GraphBuilder("wide")
    known = b.build(b.conv(b.input((1, 48, 8, 8)), 1000, 1))
    told = model.estimate(known, DEVICE, "fp32")
    assert "pointwise: at shapes that the table lacks" in told.extrapolated[0]
    assert told.latency_ms > 0
    b = GraphBuilder("foreign")
    foreign = b.build(b.unary("Softmax", b.input((1, 48, 8, 8)), axis=1))
    assert model.estimate(foreign, DEVICE, "fp32").unsupported == ("Softmax",)
    assert not model.estimate_batch([[("g", foreign)]], DEVICE, "fp32").usable[0]


def test_refusals(tmp_path: Path) -> None:
    rows = samples("fbnet", 6)
    with pytest.raises(UsageError, match="too few timings of a, got 4"):
        Lookup().fit(rows[:4])
    with pytest.raises(UsageError, match="must be positive"):
        Lookup().fit([Sample(rows[0].graph, "fp32", 0.0, "n", "a")])
    with pytest.raises(UsageError, match="nothing is fitted for 'a' at 'fp32'"):
        Lookup().estimate(rows[0].graph, DEVICE, "fp32")
    fitted = Lookup().fit(rows)
    fitted.save(tmp_path / "t.npz")
    with read_artifact(tmp_path / "t.npz", "lookup", 1) as found:
        tables = found.header["tables"]
    former = tmp_path / "t.json"
    former.write_text(json.dumps({"version": 1, "tables": tables}))  # as 0.1.0 wrote it
    assert Lookup.load(former).estimate(rows[0].graph, DEVICE, "fp32") == fitted.estimate(rows[0].graph, DEVICE, "fp32")
    former.write_text(json.dumps({"version": 9, "tables": tables}))
    with pytest.raises(ArtifactError, match=r"of another version, got .lookup 9.\. Expected 1"):
        Lookup.load(former)


def test_a_quantity_that_no_timed_network_has_costs_nothing_by_guess() -> None:
    """An Add of two maps says nothing of weights; one with a constant must not take years for them."""
    graphs = [block(c, s, kernel=k) for c in (32, 64, 128) for s in (14, 28) for k in (3, 5)]
    profile = stub_profile("made-here", "fp32")
    samples = [Sample(g, "fp32", 0.05 + g.cost.macs / 1e8, f"{g.name}{i}", profile.name) for i, g in enumerate(graphs)]
    table = Lookup().fit(samples, [profile])
    builder = GraphBuilder()
    x = builder.scale(builder.input((1, 64, 28, 28)), (64, 28, 28), op="Add")
    found = table.estimate(builder.build(builder.conv(x, 64)), profile, "fp32")
    assert found.latency_ms < 10 * max(s.latency_ms for s in samples)
