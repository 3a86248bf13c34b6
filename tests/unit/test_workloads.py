"""Reference networks load fast, are what the index says, and need neither timm nor torchvision."""

import subprocess
import sys

import pytest

from nas.errors import ArtifactError, UnknownNameError
from nas.graphs import workloads


@pytest.mark.slow
def test_graphs_are_what_the_index_says() -> None:
    for name in workloads.names():
        graph, facts = workloads.load(name), workloads.describe(name)
        folded = sum(op.outputs[0].shape[1] for op in graph.operators if op.op.startswith("Conv"))
        assert (graph.name, tuple(graph.inputs[0].shape), graph.cost.macs) == (name, facts.input, facts.macs)
        assert graph.cost.params <= facts.params + folded, name


@pytest.mark.slow
def test_the_same_networks_are_there_as_their_libraries_build_them() -> None:
    for name in workloads.names():
        written, deployed = workloads.load_as_written(name), workloads.load(name)
        assert (written.name, written.inputs[0].shape) == (name, deployed.inputs[0].shape)
        assert written.cost.macs >= 0.99 * deployed.cost.macs, name
        assert len(written.operators) >= len(deployed.operators), name
    assert workloads.load_as_written("resnet50").cost.params == workloads.describe("resnet50").params
    assert sum(op.op == "BatchNormalization" for op in workloads.load_as_written("resnet50").operators) == 53
    assert any(op.attribute("weight_elements") for op in workloads.load_as_written("nf_regnet_b1").operators)


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
