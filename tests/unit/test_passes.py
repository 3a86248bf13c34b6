"""Passes keep MACs and outputs, and do what they say."""

from collections import Counter
from collections.abc import Callable

import pytest

from nas.graphs.graph import GraphBuilder
from nas.graphs.passes import normalise
from nas.graphs.passes.zeros import cut_zeros, fold_zeros
from nas.spaces.naming import get_space


def test_batch_norm_and_activation_fold_into_the_convolution() -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 8, 8))
    x = b.unary("Relu", b.norm("BatchNormalization", b.conv(x, 4, 3, bias=False), 4))
    graph = normalise(b.build(x))
    (op,) = graph.operators
    assert (op.op, op.attribute("activation")) == ("Conv", "Relu")
    assert [w.shape for w in op.weights] == [(4, 3, 3, 3), (4,)]
    assert graph.values[graph.outputs[0]].shape == (1, 4, 8, 8)


def test_batch_norm_stays_where_the_convolution_is_read_twice() -> None:
    b = GraphBuilder()
    y = b.conv(b.input((1, 3, 8, 8)), 4, 3)
    graph = normalise(b.build(b.binary("Add", y, b.norm("BatchNormalization", y, 4))))
    assert [op.op for op in graph.operators] == ["Conv", "BatchNormalization", "Add"]


def test_layout_round_trip_goes() -> None:
    b = GraphBuilder()
    x = b.input((1, 4, 6, 6))
    y = b.transpose(b.transpose(x, (0, 2, 3, 1)), (0, 3, 1, 2))
    graph = normalise(b.build(b.binary("Add", x, b.reshape(b.reshape(y, (1, 4, 36)), (1, 4, 6, 6)))))
    assert [op.op for op in graph.operators] == ["Add"]


def test_dead_code_goes_on_compiled_runtimes_only() -> None:
    b = GraphBuilder()
    x = b.input((1, 4, 6, 6))
    b.conv(x, 8)
    out = b.conv(x, 2)
    graph = b.build(out)
    assert len(normalise(graph).operators) == 1
    assert len(normalise(graph, compiled=False).operators) == 2


def scaled(b: GraphBuilder, op: str, x: str, scalar: float) -> str:
    return b.add_operator(op, [x], {"scalar": scalar})


def gelu_by_erf(b: GraphBuilder, x: str) -> str:
    return scaled(b, "Mul", b.binary("Mul", x, scaled(b, "Add", b.unary("Erf", scaled(b, "Div", x, 2**0.5)), 1.0)), 0.5)


def gelu_by_erf_halved_first(b: GraphBuilder, x: str) -> str:
    return b.binary("Mul", scaled(b, "Mul", x, 0.5), scaled(b, "Add", b.unary("Erf", scaled(b, "Mul", x, 0.5**0.5)), 1.0))


def gelu_by_tanh(b: GraphBuilder, x: str) -> str:
    inner = scaled(b, "Mul", b.binary("Add", x, scaled(b, "Mul", scaled(b, "Pow", x, 3.0), 0.044715)), 0.7978845608)
    return b.binary("Mul", scaled(b, "Mul", x, 0.5), scaled(b, "Add", b.unary("Tanh", inner), 1.0))


def silu(b: GraphBuilder, x: str) -> str:
    return b.binary("Mul", x, b.unary("Sigmoid", x))


def hard_swish(b: GraphBuilder, x: str) -> str:
    return scaled(b, "Div", b.binary("Mul", x, b.unary("Clip", scaled(b, "Add", x, 3.0), min=0.0, max=6.0)), 6.0)


def layer_norm(b: GraphBuilder, x: str) -> str:
    d = b.binary("Sub", x, b.reduce("ReduceMean", x, [-1]))
    spread = b.unary("Sqrt", scaled(b, "Add", b.reduce("ReduceMean", scaled(b, "Pow", d, 2.0), [-1]), 1e-5))
    return b.scale(b.scale(b.binary("Div", d, spread), (16,)), (16,), op="Add")


def rms_norm(b: GraphBuilder, x: str) -> str:
    mean = b.reduce("ReduceMean", b.binary("Mul", x, x), [-1])
    return b.scale(b.binary("Mul", x, b.unary("Reciprocal", b.unary("Sqrt", scaled(b, "Add", mean, 1e-5)))), (16,))


@pytest.mark.parametrize(
    ("write", "op", "params"),
    [
        (gelu_by_erf, "Gelu", 0),
        (gelu_by_erf_halved_first, "Gelu", 0),
        (gelu_by_tanh, "Gelu", 0),
        (silu, "Swish", 0),
        (hard_swish, "HardSwish", 0),
        (layer_norm, "LayerNormalization", 32),
        (rms_norm, "RMSNormalization", 16),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_written_out_is_recognised(write: Callable[[GraphBuilder, str], str], op: str, params: int) -> None:
    b = GraphBuilder()
    graph = normalise(b.build(write(b, b.input((1, 4, 16)))))
    assert [found.op for found in graph.operators] == [op]
    assert graph.cost.params == params


def test_another_constant_is_no_gelu() -> None:
    b = GraphBuilder()
    x = b.input((1, 4, 16))
    y = scaled(b, "Mul", b.binary("Mul", x, scaled(b, "Add", b.unary("Erf", scaled(b, "Div", x, 1.5)), 1.0)), 0.5)
    assert "Gelu" not in {op.op for op in normalise(b.build(y)).operators}


def heads(b: GraphBuilder, x: str, n: int) -> str:
    return b.transpose(b.reshape(x, (1, n, 4, 8)), (0, 2, 1, 3))


def test_written_out_attention_becomes_one_operator_with_the_same_macs() -> None:
    b = GraphBuilder()
    x = b.input((1, 10, 32))
    q, k, v = (heads(b, b.gemm(x, 32), 10) for _ in range(3))
    logits = b.scale(scaled(b, "Mul", b.matmul(q, b.transpose(k, (0, 1, 3, 2))), 8**-0.5), (4, 10, 10), op="Add")
    y = b.matmul(b.unary("Softmax", logits, axis=-1), v)
    before = b.build(b.gemm(b.reshape(b.transpose(y, (0, 2, 1, 3)), (1, 10, 32)), 32))
    graph = normalise(before)
    assert [op.op for op in graph.operators] == ["Gemm", "Gemm", "Gemm", "Attention", "Gemm"]
    assert graph.operators[3].attribute("heads") == 4
    assert (graph.cost.macs, graph.cost.params) == (before.cost.macs, before.cost.params)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_scale_on_query_and_key_belongs_to_the_attention(where: str) -> None:
    b = GraphBuilder()
    q, k, v = (b.transpose(b.reshape(y, (1, 9, 2, 4)), (0, 2, 1, 3)) for y in b.split(b.input((1, 9, 24)), (8, 8, 8), axis=2))
    if where == "before":
        k = scaled(b, "Mul", k, 0.7)
    k = b.transpose(k, (0, 1, 3, 2))
    if where == "after":
        k = scaled(b, "Mul", k, 0.7)
    weights = b.unary("Softmax", b.matmul(scaled(b, "Mul", q, 0.7), k))
    graph = normalise(b.build(b.matmul(weights, v)))
    assert Counter(op.op for op in graph.operators)["Attention"] == 1
    assert not {op.op for op in graph.operators} & {"Mul", "MatMul", "Softmax"}


def test_fused_projection_is_split_before_attention() -> None:
    b = GraphBuilder()
    x = b.input((1, 10, 32))
    stacked = b.transpose(b.reshape(b.gemm(x, 96), (1, 10, 3, 4, 8)), (2, 0, 3, 1, 4))
    q, k, v = (b.reshape(part, (1, 4, 10, 8)) for part in b.split(stacked, (1, 1, 1), axis=0))
    y = b.attention(q, k, v)
    before = b.build(b.gemm(b.reshape(b.transpose(y, (0, 2, 1, 3)), (1, 10, 32)), 32))
    graph = normalise(before)
    assert [op.op for op in graph.operators] == ["Gemm", "Split", "Attention", "Gemm"]
    assert graph.cost.macs == before.cost.macs


def test_attention_over_channels_keeps_its_moves() -> None:
    b = GraphBuilder()
    x = b.input((1, 10, 32))
    q, k, v = (b.transpose(b.reshape(b.gemm(x, 32), (1, 10, 4, 8)), (0, 2, 3, 1)) for _ in range(3))
    y = b.transpose(b.attention(q, k, v), (0, 3, 1, 2))
    before = b.build(b.gemm(b.reshape(y, (1, 10, 32)), 32))
    graph = normalise(before)
    assert [op.op for op in graph.operators].count("Transpose") == 4
    assert graph.cost.macs == before.cost.macs


def test_layer_scale_padding_and_squeeze_excite() -> None:
    b = GraphBuilder()
    x = b.input((1, 8, 7, 7))
    x = b.scale(b.conv(x, 8), (8, 1, 1))
    x = b.add_operator("Pad", [x], {"pads": (0, 0, 1, 1, 0, 0, 2, 2)}, shape=(1, 8, 10, 10))
    x = b.conv(x, 8, 3, pads=(0, 0, 0, 0))
    gate = b.unary("Sigmoid", b.conv(b.conv(b.reduce("ReduceMean", x, (2, 3)), 2, activation="Relu"), 8))
    before = b.build(b.binary("Mul", x, gate))
    graph = normalise(before)
    assert [op.op for op in graph.operators] == ["Conv", "Conv", "GlobalAveragePool", "Conv", "Conv", "Mul"]
    assert graph.operators[1].attribute("pads") == (1, 1, 2, 2)
    assert graph.operators[-1].attribute("gate") == 1
    assert graph.cost.macs == before.cost.macs
    assert graph.cost.params == before.cost.params - 8


def test_eager_runtimes_run_what_is_written() -> None:
    b = GraphBuilder()
    x = b.norm("BatchNormalization", b.conv(b.input((1, 3, 8, 8)), 4), 4)
    assert [op.op for op in normalise(b.build(silu(b, x)), compiled=False).operators] == ["Conv", "BatchNormalization", "Swish"]


def test_zeros_are_cut_or_folded() -> None:
    """A cell 0 -conv-> 1 -none-> 3, 0 -none-> 2 -conv-> 3: what feeds a ``none`` goes either way, a convolution of zeros only when folded."""
    space = get_space("nasbench201")
    cell = space.architecture(["nor_conv_1x1", "none", "none", "skip_connect", "none", "nor_conv_3x3"])
    graph = next(part for name, part in space.segments(cell) if name == "stage1.cell1")
    kernels = {
        change: [op.attribute("kernel")[0] for op in change(graph).operators if op.op == "Conv"] for change in (cut_zeros, fold_zeros)
    }
    assert kernels == {cut_zeros: [3], fold_zeros: []}
    assert cut_zeros(graph).values[cut_zeros(graph).outputs[0]].shape == (1, 16, 32, 32)
