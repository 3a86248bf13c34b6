"""Reference networks load fast, are what the index says, and need neither timm nor torchvision."""

import pickle
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from latency_predictors._quantities import QUANTITIES, quantities_of
from nas.errors import ArtifactError, UnknownNameError
from nas.graphs import known, workloads
from nas.graphs.deferred import DeferredGraph
from nas.graphs.graph import Graph
from nas.graphs.images import with_normalisation
from nas.graphs.passes import normalise
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge, Verdict
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space


@pytest.mark.slow
def test_graphs_are_what_the_index_says() -> None:
    for name in workloads.names():
        graph, facts = workloads.load(name), workloads.describe(name)
        folded = sum(op.outputs[0].shape[1] for op in graph.operators if op.op.startswith("Conv"))
        assert (graph.name, tuple(graph.inputs[0].shape), graph.cost.macs) == (name, facts.input, facts.macs)
        assert graph.cost.params <= facts.params + folded, name
        unread = known.deferred(name)
        assert (unread.inputs, unread.precisions, unread.cost) == (graph.inputs, graph.precisions, graph.cost), name


@pytest.mark.slow
def test_the_same_networks_are_there_as_their_libraries_build_them() -> None:
    for name in workloads.names():
        written, deployed = workloads.load_as_written(name), known.deferred(name)
        assert (written.name, written.inputs[0].shape) == (name, deployed.inputs[0].shape)
        assert written.cost.macs >= 0.99 * deployed.cost.macs, name
        assert len(written.operators) >= deployed.cost.operators, name
    assert workloads.load_as_written("resnet50").cost.params == workloads.describe("resnet50").params
    assert sum(op.op == "BatchNormalization" for op in workloads.load_as_written("resnet50").operators) == 53
    assert any(op.attribute("weight_elements") for op in workloads.load_as_written("nf_regnet_b1").operators)


def test_counts_are_those_of_the_graphs() -> None:
    """Of networks that together run every kind of operator, and do every kind of work, that any of them does."""
    counts = known.counts()
    assert counts.quantities == QUANTITIES, _RECOUNT
    traits = np.concatenate([counts.runs, counts.totals > 0], axis=1)
    names, operators, seen = list(counts.rows), counts.costs[:, -1], np.zeros(traits.shape[1], dtype=bool)
    while (new := (traits & ~seen).sum(axis=1)).any():
        row = int((new / (operators + 50)).argmax())
        seen |= traits[row]
        counted = quantities_of(with_normalisation(workloads.load(names[row])), normalise)
        assert np.array_equal(counted.total, counts.totals[row]), f"{names[row]}. {_RECOUNT}"
        assert {kind for kind, runs in zip(counts.kinds, counts.runs[row], strict=True) if runs} == set(counted.ops), _RECOUNT


def test_a_published_network_is_judged_without_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def verdicts(architectures: list[Architecture]) -> list[Verdict]:
        return Judge(zoo, make_goal(targets, ["5ms"]), load_targets(["sa8295p"])).verdicts(architectures)

    zoo, targets = get_space("zoo"), load_targets(["sa8295p"])
    some = [architecture for architecture in zoo.enumerate() if zoo.timed_as(architecture) in ("affnet", "lcnet_050", "swin_s3_tiny_224")]
    workloads.load("affnet")  # its DFT does not run on sa8295p: what is left of it is counted from its graph
    with monkeypatch.context() as patch:
        patch.setattr(workloads, "unpack", lambda name, _: pytest.fail(f"{name} was read"))
        counted = verdicts(some)
    monkeypatch.setattr(known, "deferred", workloads.load)
    monkeypatch.setattr(
        known, "deferred_with_normalisation", cache(lambda name: replace(with_normalisation(workloads.load(name)), name="read"))
    )
    assert verdicts(some) == counted
    assert len({verdict.values["macs"] for verdict in counted}) == 3


_RECOUNT = "Do this: python experiments/001_workloads/counts.py"


def test_a_deferred_graph_becomes_a_plain_one() -> None:
    plain = workloads.load("resnet18")
    for use in (lambda g: replace(g, name="other"), pickle.dumps, lambda g: g.operators, hash):
        graph = known.deferred.__wrapped__("resnet18")
        assert type(graph) is DeferredGraph
        use(graph)
        assert type(graph) is (DeferredGraph if use is pickle.dumps else Graph)
        assert pickle.loads(pickle.dumps(graph)) == graph == plain  # noqa: S301 - what was written here
        assert (graph.cost, graph.key) == (plain.cost, plain.key)
    with pytest.raises(AttributeError, match="'colour'"):
        _ = known.deferred.__wrapped__("resnet18").colour


def test_packing_round_trips() -> None:
    graph = workloads.load("resnet18")
    assert workloads.unpack("resnet18", workloads.pack(graph)) == graph


def test_published_numbers() -> None:
    assert workloads.describe("resnet50").params == 25_557_032
    assert workloads.describe("resnet50").macs == 4_089_184_256


def test_unknown_name_says_did_you_mean() -> None:
    with pytest.raises(UnknownNameError, match="'resnet18'"):
        workloads.load("resnet1")


def test_damaged_line_is_refused() -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        workloads.unpack("x", "[[],[[1]],[]]")


def test_loading_needs_no_torch() -> None:
    code = "import sys; from nas.graphs import workloads; workloads.load('resnet18'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
