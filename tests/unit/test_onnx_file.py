"""Files read back as what was traced; bad files get one clear line."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas.errors import GraphError, UsageError
from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.passes import normalise


class Mixed(nn.Module):
    """A bit of everything: convolution, squeeze-and-excitation, attention from one projection, a roll."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Sigmoid())
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.roll(x * self.squeeze(x), (2, 2), (2, 3))
        x = x.flatten(2).transpose(1, 2)  # (n, 64, 16)
        n, length, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, c))
        return self.head(x.mean(1))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    module = Mixed().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():  # equal biases would be stored once, and count once
            parameter.uniform_(-0.5, 0.5, generator=generator)
    return module


@pytest.fixture(scope="module")
def files(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("onnx")
    x = torch.zeros(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), room / "legacy.onnx", dynamo=False, opset_version=17)
        torch.onnx.export(module, (x,), room / "dynamo.onnx", dynamo=True, external_data=False, verbose=False)
        torch.onnx.export(module, (x,), room / "any.onnx", dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return {path.stem: path for path in room.iterdir()}


@pytest.mark.parametrize("form", ["legacy", "dynamo"])
def test_file_equals_module(module: nn.Module, files: dict[str, Path], form: str) -> None:
    traced, read = trace_module(module, (1, 3, 16, 16)), read_onnx(files[form])
    assert read.cost.macs == traced.cost.macs
    assert read.unknown == ()
    a, b = normalise(traced), normalise(read)
    assert (a.cost.macs, a.cost.params) == (b.cost.macs, b.cost.params)
    assert [op.op for op in a.operators] == [op.op for op in b.operators]


def quantised(path: Path, wide: bool) -> Path:
    """A convolution, its activation and a residual sum, all between pairs, then a softmax in float."""
    kind = np.uint16 if wide else np.uint8
    constants = {
        "scale": np.float32(0.1),
        "zero": np.array(0, dtype=kind),
        "w": np.ones((4, 4, 1, 1), np.int8),
        "wzero": np.array(0, np.int8),
        "b": np.zeros(4, np.int32),
        "bzero": np.array(0, np.int32),
    }
    nodes = []

    def pair(x: str, out: str) -> None:
        nodes.append(helper.make_node("QuantizeLinear", [x, "scale", "zero"], [f"{out}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{out}_q", "scale", "zero"], [out]))

    pair("x", "xd")
    nodes.append(helper.make_node("DequantizeLinear", ["w", "scale", "wzero"], ["wd"]))
    nodes.append(helper.make_node("DequantizeLinear", ["b", "scale", "bzero"], ["bd"]))
    nodes.append(helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], name="conv"))
    nodes.append(helper.make_node("Relu", ["y"], ["r"], name="relu"))
    pair("r", "rd")
    nodes.append(helper.make_node("Add", ["rd", "xd"], ["s"], name="add"))
    pair("s", "sd")
    nodes.append(helper.make_node("Sigmoid", ["x"], ["f"], name="float"))
    nodes.append(helper.make_node("Mul", ["sd", "f"], ["out"], name="border"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4, 8, 8)) for name in ("x", "out")]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], weights), opset_imports=[helper.make_opsetid("", 21)]), path
    )
    return path


@pytest.mark.parametrize(("wide", "precision"), [(False, "w8a8"), (True, "w8a16")])
def test_quantised_file_has_its_precisions(tmp_path: Path, wide: bool, precision: str) -> None:
    graph = read_onnx(quantised(tmp_path / "q.onnx", wide))
    found = {op.name: op.precision for op in graph.operators}
    assert found == {"conv": precision, "relu": precision, "add": precision, "float": None, "border": None}
    assert graph.cost.params == 16 + 4
    assert graph.cost.macs == 64 * 16
    assert graph.operators[0].weights[0].dtype == "int8"


def test_half_precision(tmp_path: Path) -> None:
    module = nn.Conv2d(3, 4, 3).half()
    torch.onnx.export(module, (torch.zeros(1, 3, 8, 8).half(),), tmp_path / "h.onnx", dynamo=False, opset_version=17)
    graph = read_onnx(tmp_path / "h.onnx")
    assert {value.dtype for value in graph.values.values()} == {"fp16"}
    assert graph.cost.params == 4 * 27 + 4


def test_bad_files_get_one_clear_line(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["legacy"].read_bytes()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    shapeless = onnx.load(files["legacy"])
    shapeless.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(shapeless, tmp_path / "shapeless.onnx")
    cases = {
        tmp_path / "missing.onnx": "no such file",
        tmp_path / "empty.onnx": "empty",
        tmp_path / "half.onnx": "truncated",
        tmp_path / "text.onnx": "truncated",
        files["any"]: r"got x \(n, 3, 16, 16\)\. Do this: add --dim n=1",
        tmp_path / "shapeless.onnx": "without a shape.*--input-shape",
    }
    for path, message in cases.items():
        with pytest.raises(GraphError, match=message) as caught:
            read_onnx(path)
        assert "\n" not in str(caught.value)


def test_open_sizes_are_settled_by_the_user(files: dict[str, Path]) -> None:
    for sizes in (Sizes(dims={"n": 2}), Sizes({"x": (2, 3, 16, 16)}), Sizes({"": (2, 3, 16, 16)})):
        graph = read_onnx(files["any"], sizes)
        assert graph.inputs[0].shape == (2, 3, 16, 16)
        assert graph.cost.macs == 2 * read_onnx(files["legacy"]).cost.macs
    for sizes, message in (
        (Sizes(dims={"m": 1}), "no input of .* has such a size, got 'm'. Did you mean|Expected one of: n"),
        (Sizes({"y": (1, 3, 16, 16)}), "has no such input, got 'y'"),
        (Sizes({"x": (3, 16, 16)}), "Expected as many sizes"),
        (Sizes({"x": (1, 3, 16, 16)}, {"n": 2}), "has two sizes, got 2 and 1"),
    ):
        with pytest.raises(UsageError, match=message):
            read_onnx(files["any"], sizes)


def test_unknown_operator_is_named_with_its_domain(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Warp", ["x"], ["y"], domain="acme")], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]), tmp_path / "u.onnx")
    assert read_onnx(tmp_path / "u.onnx").unknown == ("acme.Warp",)


def test_large_constant_without_a_shape_is_worked_out(tmp_path: Path) -> None:
    """A table beyond what is kept in numbers, reshaped by constants: its shape alone goes on."""
    table = numpy_helper.from_array(np.ones((64, 128), np.float32), "table")
    axes = numpy_helper.from_array(np.array([0]), "axes")
    nodes = [helper.make_node("Unsqueeze", ["table", "axes"], ["t"]), helper.make_node("Add", ["x", "t"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 64, 128)) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [table, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "t.onnx")
    (op,) = read_onnx(tmp_path / "t.onnx").operators
    assert (op.op, op.weights[0].shape, op.weights[0].params) == ("Add", (1, 64, 128), 64 * 128)
