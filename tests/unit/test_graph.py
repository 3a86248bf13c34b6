"""Graphs are verified when made, count what they should, and survive a round trip."""

from pathlib import Path

import pytest

from nas.errors import ArtifactError, GraphError
from nas.graphs.graph import Graph, GraphBuilder, Operator, Value, join


def block(channels: int = 8, size: int = 16) -> Graph:
    b = GraphBuilder("block")
    x = b.input((1, channels, size, size))
    with b.scope("mixer"):
        y = b.depthwise(x, 3, activation="Relu", name="dw")
        y = b.conv(y, channels, name="pw")
    return b.build(b.binary("Add", x, y))


def test_counts_follow_closed_formulas() -> None:
    cost = block().cost
    assert cost.macs == 16 * 16 * (8 * 9 + 8 * 8)
    assert cost.params == (8 * 9 + 8) + (8 * 8 + 8)
    assert cost.operators == 3


def test_round_trip(tmp_path: Path) -> None:
    graph = block()
    graph.save(tmp_path / "g.json.gz")
    again = Graph.load(tmp_path / "g.json.gz")
    assert again == graph
    assert again.key == graph.key
    graph.save(tmp_path / "h.json.gz")
    assert (tmp_path / "g.json.gz").read_bytes() == (tmp_path / "h.json.gz").read_bytes()


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.json.gz").write_bytes(b"no gzip")
    with pytest.raises(ArtifactError, match="damaged"):
        Graph.load(tmp_path / "g.json.gz")


def test_split_and_concat() -> None:
    b = GraphBuilder()
    parts = b.split(b.input((1, 8, 4, 4)), (2, 6))
    graph = b.build(b.concat(parts))
    assert graph.values[graph.outputs[0]].shape == (1, 8, 4, 4)
    assert graph.cost.macs == 0


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Operator("a", "Relu", ("nothing",), (Value("y", (1, 8, 4, 4)),)), "nothing before it makes"),
        (Operator("a", "Relu", ("x",), (Value("y", (1, 9, 4, 4)),)), "wrong output shape"),
        (Operator("a", "Conv", ("x",), (Value("y", (1, 9, 4, 4)),)), "lacks the attribute"),
        (Operator("a", "Relu", ("x",), (Value("x", (1, 8, 4, 4)),)), "made twice"),
    ],
)
def test_verifier_names_the_fault(operator: Operator, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph((Value("x", (1, 8, 4, 4)),), (operator,), ("y",))


def test_unknown_operator_is_listed() -> None:
    b = GraphBuilder()
    graph = b.build(b.add_operator("FancyOp", [b.input((1, 8))], shape=(1, 8)))
    assert graph.unknown == ("FancyOp",)


def test_join_chains_segments_and_sums_costs() -> None:
    whole = join([("a", block()), ("b", block())])
    assert whole.cost.macs == 2 * block().cost.macs
    assert whole.operators[-1].name == "b.add"
    with pytest.raises(GraphError, match="takes"):
        join([("a", block(8)), ("b", block(16))])


def test_networkx_view() -> None:
    view = block().to_networkx()
    assert list(view.successors("mixer.dw")) == ["mixer.pw"]


def test_peak_memory_counts_what_is_alive() -> None:
    assert block(8, 16).peak_memory_bytes("fp16") == 2 * 8 * 16 * 16 * 3
