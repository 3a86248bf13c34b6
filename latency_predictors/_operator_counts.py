"""What candidates are made of: how often each kind of operator runs, under each idea of what the runtime executes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from nas.devices.predictor import Floats, Segments
from nas.graphs.graph import DTYPE_BYTES, Graph, Operator
from nas.graphs.passes.zeros import cut_zeros, fold_zeros, remove_unread

RUNTIMES: tuple[tuple[str, Callable[[Graph], Graph]], ...] = (
    ("as written", lambda graph: graph),
    ("unread removed", remove_unread),
    ("zeros cut", cut_zeros),
    ("zeros folded", fold_zeros),
)
"""An eager runtime executes the graph as written; converters drop what nothing reads, or what is multiplied by zero
as well; compilers also fold what is computed from zeros."""

QUANTITIES = ("operators", "macs", "activation_bytes", "weight_bytes")


class Kind(NamedTuple):
    """A kind of operator: everything that its cost can depend on.

    Attributes:
        family: Class of kinds that a device treats alike (``pointwise``, ``depthwise3``, ``Add`` …).
        shape: Spelling of sizes and window.
        macs: Multiply-adds.
        activation_bytes: Bytes of inputs and outputs as the graph states them.
        weight_bytes: Bytes of weights.
    """

    family: str
    shape: str
    macs: int
    activation_bytes: float
    weight_bytes: float


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Operator counts of n candidates.

    Attributes:
        kinds: The columns.
        counts: By runtime, shape (runtimes, n, kinds).
        depths: Operators on the longest path, shape (runtimes, n).
    """

    kinds: tuple[Kind, ...]
    counts: Floats
    depths: Floats

    def __len__(self) -> int:
        return int(self.counts.shape[1])

    def quantities(self) -> Floats:
        """Return operators (1), MACs, activation and weight bytes of each kind, shape (kinds, 4)."""
        return np.array([[1, k.macs, k.activation_bytes, k.weight_bytes] for k in self.kinds], dtype=float).reshape(-1, 4)


def catalogue(candidates: Sequence[Segments]) -> Catalogue:
    """Count the operators of candidates given as chained segments; a segment object is read once however often it stands."""
    cache: dict[int, tuple[Graph, list[tuple[Counter[Kind], int]]]] = {}
    rows: list[list[tuple[Counter[Kind], int]]] = []
    columns: dict[Kind, int] = {}
    for parts in candidates:
        total = [(Counter[Kind](), 0) for _ in RUNTIMES]
        for _, graph in parts:
            if id(graph) not in cache:  # the graph is kept alive by its entry, so its id stays its own
                cache[id(graph)] = (graph, [_read(change(graph)) for _, change in RUNTIMES])
            for i, (counter, depth) in enumerate(cache[id(graph)][1]):
                total[i][0].update(counter)
                total[i] = (total[i][0], total[i][1] + depth)
        rows.append(total)
        for counter, _ in total:
            for kind in counter:
                columns.setdefault(kind, len(columns))
    counts = np.zeros((len(RUNTIMES), len(rows), len(columns)))
    depths = np.zeros((len(RUNTIMES), len(rows)))
    for row, total in enumerate(rows):
        for i, (counter, depth) in enumerate(total):
            depths[i, row] = depth
            for kind, count in counter.items():
                counts[i, row, columns[kind]] = count
    return Catalogue(tuple(columns), counts, depths)


def _read(graph: Graph) -> tuple[Counter[Kind], int]:
    """Return a graph's operators by kind, and the longest path; operators outside the vocabulary are left out."""
    depth = {value.name: 0 for value in graph.inputs}
    for op in graph.operators:
        reached = (op.category != "unknown") + max((depth[name] for name in op.inputs), default=0)
        depth |= {value.name: reached for value in op.outputs}
    return Counter(kind_of(graph, op) for op in graph.operators if op.category != "unknown"), max(depth[name] for name in graph.outputs)


def kind_of(graph: Graph, op: Operator) -> Kind:
    """Return the kind of an operator of a graph."""
    inputs = [graph.values[name] for name in op.inputs]
    sizes = "+".join("x".join(map(str, value.shape)) for value in (*inputs, *op.outputs))
    window = op.attribute("kernel"), op.attribute("stride"), op.attribute("groups"), op.attribute("activation")
    return Kind(
        _family(op, inputs[0].shape if inputs else ()),
        f"{sizes} {window}",
        graph.macs_of(op),
        sum(value.elements * DTYPE_BYTES[value.dtype] for value in (*inputs, *op.outputs)),
        sum(weight.elements * DTYPE_BYTES[weight.dtype] for weight in op.weights),
    )


def _family(op: Operator, shape: tuple[int, ...]) -> str:
    if op.op != "Conv":
        return op.op
    kernel, groups = op.attribute("kernel"), op.attribute("groups")
    if groups > 1 and groups == shape[1]:
        return f"depthwise{max(kernel)}"
    name = "pointwise" if prod(kernel) == 1 else f"conv{max(kernel)}"
    return f"grouped {name}" if groups > 1 else name
