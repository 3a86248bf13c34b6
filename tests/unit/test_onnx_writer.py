"""Graphs written with random weights run, and read back with the same operators and costs."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nas.errors import ArtifactError, GraphError
from nas.graphs import workloads
from nas.graphs.graph import Graph, GraphBuilder, Weight
from nas.graphs.onnx_writer import write_onnx
from nas.spaces.naming import get_space


def run(graph: Graph, path: Path) -> list[np.ndarray]:
    write_onnx(graph, path, np.random.default_rng(0))
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {v.name: np.random.default_rng(1).standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    return session.run(None, feed)


def everything() -> Graph:
    b = GraphBuilder("everything")
    x = b.conv(b.input((1, 3, 16, 16)), 8, 3, stride=2, activation="Swish")
    x = b.binary("Mul", x, b.unary("HardSigmoid", b.conv(b.global_pool(x), 8)))
    x = b.scale(b.unary("Gelu", b.depthwise(x, 5, activation="HardSwish")), (1, 8, 1, 1))
    x = b.norm("GroupNormalization", x, 8, groups=2)
    x = b.pool("AveragePool", b.pool("MaxPool", x, 3, stride=1, pads=(1, 1, 1, 1)), 2)
    first, second = b.split(x, (3, 5))
    x = b.concat([second, first])
    x = b.add_operator("Roll", [x], {"axes": (2, 3), "shifts": (1, -1)}, shape=b.shape(x))
    x = b.add_operator("Pad", [x], {"pads": (0, 0, 0, 0, 0, 0, 1, 1)}, shape=(1, 8, 5, 5))
    x = b.add_operator("Slice", [x], {"axis": 2, "start": 0, "size": 4, "step": 1}, shape=(1, 8, 4, 5))
    x = b.add_operator("Resize", [x], {"mode": "bilinear"}, shape=(1, 8, 4, 4))
    x = b.transpose(b.reshape(x, (1, 8, 16)), (0, 2, 1))
    q, k, v = (b.gemm(b.norm("LayerNormalization", x, 8, axis=-1), 8) for _ in range(3))
    x = b.add_operator("Attention", [q, k, v], {"heads": 2}, weights=[Weight((1, 2, 16, 16))])
    x = b.add_operator("Attention", [x, b.transpose(k, (0, 2, 1)), v], {"key_transposed": 1})
    x = b.binary("Add", x, b.gemm(x, 8, activation="Gelu"))
    x = b.unary("Clip", b.matmul(x, b.transpose(x, (0, 2, 1))), min=0.0, max=6.0)
    x = b.reduce("ReduceL2", b.unary("Softmax", x, axis=-1), (1,), keepdims=False)
    return b.build(b.gemm(x, 10))


def test_every_kind_of_operator_runs(tmp_path: Path) -> None:
    graph = everything()
    (output,) = run(graph, tmp_path / "m.onnx")
    assert output.shape == (1, 10)
    assert np.all(np.isfinite(output))


@pytest.mark.parametrize("space", ["nasbench201", "fbnet", "ofa"])
def test_spaces_run_and_keep_their_weights(space: str, tmp_path: Path) -> None:
    found = get_space(space)
    graph = found.lower(found.sample(np.random.default_rng(2)))
    (output,) = run(graph, tmp_path / "m.onnx")
    assert output.shape == graph.values[graph.outputs[0]].shape
    model = onnx.load(tmp_path / "m.onnx")
    sizes = Counter(tuple(w.dims) for w in model.graph.initializer if len(w.dims) > 1)
    assert sizes == Counter(w.shape for op in graph.operators for w in op.weights if len(w.shape) > 1)


@pytest.mark.skipif(find_spec("nas.graphs.frontends.onnx_file") is None, reason="the reader of .onnx files has not landed")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "levit_128s", "swin_tiny_patch4_window7_224"])
def test_read_back_has_the_same_costs(name: str, tmp_path: Path) -> None:
    from nas.graphs.frontends.onnx_file import read_onnx
    from nas.graphs.passes import normalise

    graph = workloads.load(name)
    write_onnx(graph, tmp_path / "m.onnx", np.random.default_rng(0))
    again = normalise(read_onnx(tmp_path / "m.onnx"))
    assert again.cost.macs == graph.cost.macs
    assert again.inputs[0].shape == graph.inputs[0].shape
    kinds = [Counter(op.op for op in g.operators if op.category in ("conv", "matmul", "attention", "pool")) for g in (graph, again)]
    assert kinds[0] == kinds[1]


def test_refusals(tmp_path: Path) -> None:
    b = GraphBuilder("strange")
    x = b.add_operator("Strange", [b.input((1, 3))], shape=(1, 3))
    with pytest.raises(GraphError, match="cannot be written, got Strange in strange"):
        write_onnx(b.build(x), tmp_path / "m.onnx", np.random.default_rng(0))
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="exists"):
        write_onnx(everything(), tmp_path / "m.onnx", np.random.default_rng(0))
