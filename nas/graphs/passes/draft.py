"""A graph under rewriting: mutable nodes with users at hand. Passes edit it; `build` verifies the result once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.graphs.graph import Attributes, Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import Category, Shape, spec_of


@dataclass(eq=False, slots=True)
class Node:
    """A mutable `nas.graphs.graph.Operator`."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[Value]
    weights: tuple[Weight, ...] = ()
    attributes: Attributes = field(default_factory=dict)
    precision: str | None = None
    alive: bool = True

    @property
    def out(self) -> str:
        """Name of the first output."""
        return self.outputs[0].name

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.outputs[0].shape

    @property
    def category(self) -> Category:
        """As `nas.graphs.graph.Operator.category`."""
        return spec_of(self.op).category


class Draft:
    """A graph that passes edit in place.

    Nodes keep their order. A node that takes over the outputs of a later one may do so because its own inputs come
    earlier still; one that takes over inputs must come after what makes them, which `build` verifies.
    """

    def __init__(self, graph: Graph) -> None:
        self.name, self.notices, self.inputs, self.outputs = graph.name, graph.notices, graph.inputs, list(graph.outputs)
        self._nodes = [
            Node(op.name, op.op, list(op.inputs), list(op.outputs), op.weights, dict(op.attributes), op.precision) for op in graph.operators
        ]
        self._values = {value.name: value for value in graph.inputs}
        self._producers: dict[str, Node] = {}
        self._users: dict[str, list[Node]] = {value.name: [] for value in graph.inputs}
        for node in self._nodes:
            self._index(node)

    def _index(self, node: Node) -> None:
        for value in node.outputs:
            self._producers[value.name] = node
            self._values[value.name] = value
            self._users.setdefault(value.name, [])
        for name in node.inputs:
            self._users[name].append(node)

    def nodes(self, *ops: str) -> Iterator[Node]:
        """Iterate over the living nodes in order, optionally of some kinds; the pass may edit while iterating."""
        for node in list(self._nodes):
            if node.alive and (not ops or node.op in ops):
                yield node

    def shape(self, value: str) -> Shape:
        """Return the shape of a value."""
        return self._values[value].shape

    def value(self, name: str) -> Value:
        """Return a value."""
        return self._values[name]

    def producer(self, value: str) -> Node | None:
        """Return the node that makes a value; None for an input of the graph."""
        return self._producers.get(value)

    def users(self, value: str) -> list[Node]:
        """Return the nodes that read a value (one that reads it twice appears twice)."""
        return self._users[value]

    def only_user(self, value: str) -> Node | None:
        """Return the one node that reads a value, None where several do or the value leaves the graph."""
        users = self._users[value]
        return users[0] if len(users) == 1 and value not in self.outputs else None

    def set_inputs(self, node: Node, inputs: Sequence[str]) -> None:
        """Let a node read other values."""
        for name in node.inputs:
            self._users[name].remove(node)
        node.inputs = list(inputs)
        for name in node.inputs:
            self._users[name].append(node)

    def redirect(self, old: str, new: str) -> None:
        """Let everything that reads `old`, the graph's outputs included, read `new`."""
        for node in self._users[old]:
            node.inputs = [new if name == old else name for name in node.inputs]
            self._users[new].append(node)
        self._users[old] = []
        self.outputs = [new if name == old else name for name in self.outputs]

    def remove(self, node: Node) -> None:
        """Remove a node whose outputs nothing reads."""
        node.alive = False
        for name in node.inputs:
            self._users[name].remove(node)

    def bypass(self, node: Node, value: str | None = None) -> None:
        """Remove a node of one output and let its users read `value` (default: its first input)."""
        self.redirect(node.out, node.inputs[0] if value is None else value)
        self.remove(node)

    def absorb(self, node: Node, later: Node) -> None:
        """Let `node` make what `later`, its only user, made; `later` goes. Fusion of a tail."""
        old, new = node.outputs[0], later.outputs[0]
        self.remove(later)
        node.outputs[0] = new
        self._producers[new.name] = node
        del self._producers[old.name], self._users[old.name]

    def become(self, node: Node, op: str, inputs: Sequence[str], weights: Sequence[Weight] = (), **attributes: Any) -> None:
        """Turn a node into another operator with the same outputs; what nothing reads any more goes."""
        before = list(dict.fromkeys(node.inputs))
        node.op, node.weights, node.attributes = op, tuple(weights), attributes
        self.set_inputs(node, inputs)
        for name in before:
            self.prune(name)

    def prune(self, value: str) -> None:
        """Remove the maker of a value that nothing reads, and so on upwards."""
        node = self.producer(value)
        if node is None or not node.alive or any(self._users[v.name] or v.name in self.outputs for v in node.outputs):
            return
        self.remove(node)
        for name in dict.fromkeys(node.inputs):
            self.prune(name)

    def insert_before(self, place: Node, op: str, inputs: Sequence[str], out_shape: Shape, /, **attributes: Any) -> Node:
        """Add a node before `place`; its name derives from that of `place`."""
        base, count = f"{place.name}.{op.lower()}", 0
        label = base
        while label in self._values:
            count += 1
            label = f"{base}_{count}"
        made = [Value(label, out_shape, self._values[inputs[0]].dtype)]
        node = Node(label, op, list(inputs), made, (), attributes, place.precision)
        self._nodes.insert(self._nodes.index(place), node)
        self._index(node)
        return node

    def add_outputs(self, node: Node, shapes: Sequence[Shape]) -> list[str]:
        """Give a node further outputs; return the names of all."""
        first = node.outputs[0]
        for i, shape in enumerate(shapes, 1):
            value = Value(f"{first.name}:{i}", shape, first.dtype)
            node.outputs.append(value)
            self._producers[value.name], self._values[value.name], self._users[value.name] = node, value, []
        return [value.name for value in node.outputs]

    def build(self) -> Graph:
        """Return the verified graph.

        Raises:
            GraphError: A pass broke it.
        """
        operators = tuple(
            Operator(n.name, n.op, tuple(n.inputs), tuple(n.outputs), n.weights, freeze(n.attributes), n.precision)
            for n in self._nodes
            if n.alive
        )
        return Graph(self.inputs, operators, tuple(self.outputs), self.name, self.notices)
