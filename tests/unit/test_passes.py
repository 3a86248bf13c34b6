"""Passes keep MACs and outputs, and do what they say."""

from nas.graph import GraphBuilder
from nas.passes import normalise


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
