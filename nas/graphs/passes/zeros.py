"""Dead code: what a compiler drops because nothing reads it, or because it is zero whatever the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.graphs.graph import Graph, Operator, Weight, freeze

_KEEPS_ZERO = {"Relu", "Gelu", "Swish", "HardSwish", "Tanh", "LeakyRelu", "PRelu", "Elu", "Mish", "Selu", "Erf", "Softsign", "Neg", "Abs"}


def remove_unread(graph: Graph) -> Graph:
    """Return the graph without operators whose results reach no output."""
    needed = set(graph.outputs)
    operators: list[Operator] = []
    for op in reversed(graph.operators):
        if any(value.name in needed for value in op.outputs):
            operators.append(op)
            needed.update(op.inputs)
    return graph if len(operators) == len(graph.operators) else replace(graph, operators=tuple(reversed(operators)))


def fold_zeros(graph: Graph) -> Graph:
    """Return the graph without what is zero whatever the input, and without what then feeds nothing.

    A multiplication by zero is a `Mul` with the attribute ``constant`` 0. Zeros pass through poolings, layout operators and
    activations that keep zero; a term that is zero leaves its sum. A convolution or linear layer of zeros leaves its bias, which folds
    into the next one: it is taken for zero too. An output that is zero throughout becomes an `Expand` of a constant, which reads nothing.
    """

    def is_zero(op: Operator, dead: list[bool]) -> bool:
        return bool(dead) and (all(dead) or (op.op == "Mul" and any(dead)) or _is_zeroed(op)) and _linear(op)

    return _without(graph, is_zero)


def cut_zeros(graph: Graph) -> Graph:
    """Return the graph without multiplications by zero: what they read may then feed nothing, what reads their zeros is computed all the same.

    Converters that build a graph from its output do so: a ``none`` edge is not there, a convolution of zeros is. A term that is such a
    zero leaves its sum; zeros that something else reads become an `Expand` of a constant, which reads nothing.
    """
    return _without(graph, lambda op, dead: _is_zeroed(op) or (_is_sum(op) and all(dead)))


def _without(graph: Graph, is_zero: Callable[[Operator, list[bool]], bool]) -> Graph:
    """Return the graph without operators that are zero, given which of their inputs are; a term that is zero leaves its sum."""
    zero: set[str] = set()
    same: dict[str, str] = {}
    operators: list[Operator] = []
    for op in graph.operators:
        inputs = tuple(same.get(name, name) for name in op.inputs)
        dead = [name in zero for name in inputs]
        if is_zero(op, dead):
            zero |= {value.name for value in op.outputs}
        elif any(dead) and _is_sum(op):
            same[op.outputs[0].name] = next(name for name, gone in zip(inputs, dead, strict=True) if not gone)
        else:
            operators.append(replace(op, inputs=inputs) if inputs != op.inputs else op)
    return _with_constants(graph, operators, same, zero)


def _is_zeroed(op: Operator) -> bool:
    return op.op == "Mul" and op.attribute("constant") == 0


def _is_sum(op: Operator) -> bool:
    return op.op == "Add" and not op.weights


def _with_constants(graph: Graph, operators: list[Operator], same: dict[str, str], zero: set[str]) -> Graph:
    outputs = tuple(same.get(name, name) for name in graph.outputs)
    for name in sorted({*outputs, *(name for op in operators for name in op.inputs)} & zero):
        value = graph.values[name]
        constant = Operator(f"{name}.constant", "Expand", (), (value,), (Weight(value.shape, value.dtype, False),), freeze({"constant": 0}))
        operators.insert(0, constant)
    return remove_unread(Graph(graph.inputs, tuple(operators), outputs, graph.name, graph.notices))


def _linear(op: Operator) -> bool:
    """Whether an operator of zeros is zero (or its bias, see `fold_zeros`)."""
    return op.category in ("conv", "matmul", "pool", "layout", "norm", "reduce") or op.op in {"Mul", "Add", "Sub", *_KEEPS_ZERO}
