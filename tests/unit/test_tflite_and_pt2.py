"""TensorFlow Lite files and archives of torch.export count as the same network does elsewhere."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from nas.errors import GraphError, UsageError
from nas.graphs.frontends.pt2_file import read_pt2
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.passes import normalise
from nas.spaces.network import load_network

KINDS = Path(__file__).parents[1] / "fuzz" / "kinds"


@pytest.fixture(scope="module")
def written() -> ModuleType:
    """The writer of small TensorFlow Lite files."""
    pytest.importorskip("tflite")
    spec = importlib.util.spec_from_file_location("tflite_kind", KINDS / "tflite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Net(nn.Module):
    """What the writer writes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.first(nn.functional.pad(x, (0, 1, 0, 1))))
        return self.head(nn.functional.relu(x + self.second(x)).mean((2, 3))).softmax(-1)


def test_tensorflow_lite_counts_as_the_module(written: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f.tflite").write_bytes(written.network())
    graph, module = load_network(str(tmp_path / "f.tflite")).graph, trace_module(Net(), (1, 3, 8, 8))
    assert (graph.cost.macs, graph.cost.params) == (module.cost.macs, module.cost.params - 8)  # one bias stands for both there
    ours, theirs = ([op.op for op in normalise(g).operators] for g in (graph, module))
    assert [op for op in ours if op != "Reshape"] == [op for op in theirs if op != "Reshape"]


def test_eight_bits_are_read_from_the_file(written: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "q.tflite").write_bytes(written.network(written.tflite.TensorType.INT8, True))
    graph = load_network(str(tmp_path / "q.tflite")).graph
    assert graph.precisions == {"w8a8"}
    assert graph.operators[0].weights[0].dtype == "int8"


def test_bad_files_get_one_line(written: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    for data, message in ((b"", "not a TensorFlow Lite"), (written.network()[:200], "damaged"), (b"0000TFL3", "damaged")):
        path.write_bytes(data)
        with pytest.raises(GraphError, match=message):
            load_network(str(path))
    path.write_bytes(written.network())
    with pytest.raises(UsageError, match="fixes its sizes, got another of x"):
        load_network(str(path), input_shapes={"x": (1, 16, 16, 3)})


def test_exported_program_counts_as_the_module(tmp_path: Path) -> None:
    module, path = Net().eval(), tmp_path / "net.pt2"
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
    with pytest.raises(GraphError, match=r"Do this: add --dim s\d+=1"):
        read_pt2(path)
    graph, traced = read_pt2(path, Sizes({"x": (1, 3, 8, 8)})), trace_module(module, (1, 3, 8, 8))
    assert (graph.cost, graph.key) == (traced.cost, traced.key)
    assert graph.operators[1].name.startswith("first")


def test_nothing_but_the_program_is_opened(tmp_path: Path) -> None:
    held = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(4, 4), (torch.zeros(1, 4),)), held)
    stripped = tmp_path / "stripped.pt2"
    with zipfile.ZipFile(held) as whole, zipfile.ZipFile(stripped, "w") as part:
        for name in whole.namelist():
            if name.endswith("models/model.json"):
                part.writestr(name, whole.read(name))
    assert read_pt2(stripped).cost.macs == 16


def test_a_program_ends_where_sizes_are_computed(tmp_path: Path) -> None:
    class Found(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nonzero(nn.functional.relu(x) * 2).float()

    torch.export.save(torch.export.export(Found(), (torch.zeros(1, 4),)), tmp_path / "n.pt2")
    graph = read_pt2(tmp_path / "n.pt2")
    assert [op.op for op in graph.operators] == ["Relu", "Mul"]
    assert "counted up to torch.ops.aten.nonzero.default" in graph.notices[0]
