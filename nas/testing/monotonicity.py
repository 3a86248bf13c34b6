"""More work never takes less time: random networks, each beside one that does more.

A case is a network and a larger one: with an operator appended or inserted, more pixels, more depth, a larger kernel, more channels (by
multiples of 32, since alignment is real). Where operators are added, those after the runtime's passes must be those of before and the new
one: a completed activation, norm or attention may cost less than its parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nas.devices.predictor import Predictor
from nas.devices.profile import Profile
from nas.graphs.graph import Attributes, Graph, GraphBuilder, Operator, Value, Weight
from nas.graphs.passes import normalise

TOLERANCE = 0.01
"""Share of an estimate by which more work may lower it. Set by hand."""

Kind = Literal["append", "insert", "pixels", "depth", "kernel", "channels"]
KINDS: tuple[Kind, ...] = ("append", "insert", "pixels", "depth", "kernel", "channels")
_CHANNELS = (32, 64, 96, 128, 160, 192, 256, 320, 512)  # by hand
_SIZES = (56, 64, 96, 112, 128, 160, 192, 224, 256)  # by hand
_STEPS = ("conv", "depthwise", "grouped", "point", "residual", "squeeze", "pool", "attention", "tokens", "norm", "down")
_ACTIVATIONS = ("Relu", "Clip", "HardSwish", "Swish", "Gelu", "Sigmoid", "LeakyRelu", "Tanh")
_KEEPING = (
    *_ACTIVATIONS,
    "Softmax",
    "Exp",
    "Sqrt",
    "Abs",
    "Identity",
    "LayerNormalization",
    "add",
    "scale",
    "shift",
    "conv",
    "depthwise",
    "pool",
)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a network.

    Attributes:
        kind: One of `_STEPS`.
        channels: That it gives on, a multiple of 32.
        kernel: Odd.
        activation: Behind its convolution; empty for none.
    """

    kind: str
    channels: int
    kernel: int
    activation: str


@dataclass(frozen=True, eq=False)
class Case:
    """Two networks of which the second does more.

    Attributes:
        kind: What it does more.
        less: The first.
        more: The second.
        change: In words.
    """

    kind: Kind
    less: Graph
    more: Graph
    change: str

    @cached_property
    def adds_one(self) -> bool:
        """Whether the operators after our passes are those of before and one more."""
        before, after = (Counter(_signatures(normalise(graph))) for graph in (self.less, self.more))
        return not before - after and (after - before).total() == 1


def cases(count: int, seed: int = 0) -> Iterator[Case]:
    """Draw cases; kinds take turns.

    Args:
        count: How many.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        kind = KINDS[made % len(KINDS)]
        size, steps = int(rng.choice(_SIZES)), _draw(rng)
        classifies = bool(rng.random() < 0.5)
        case = (
            _edited(rng, kind, lower(steps, size, classifies))
            if kind in ("append", "insert")
            else _grown(rng, kind, steps, size, classifies)
        )
        if case is not None:
            made += 1
            yield case


def falls(predictor: Predictor, profile: Profile, precision: str, chosen: Sequence[Case]) -> list[tuple[Case, float]]:
    """Return the cases in which more work is estimated faster by more than `TOLERANCE`, with the estimates' ratio.

    A network with an operator that the predictor leaves out is not compared. Of several devices, a hundred cases on all of them before the next
    hundred is the fastest: predictors read a graph once while they remember it.
    """
    compared = [case for case in chosen if predictor.as_written or case.kind not in ("append", "insert") or case.adds_one]
    if not compared:
        return []
    graphs = [graph for case in compared for graph in (case.less, case.more)]
    estimates = predictor.estimate_batch([[("graph", graph)] for graph in graphs], profile, precision)
    ratios = estimates.latency_ms[1::2] / estimates.latency_ms[::2]
    lower = estimates.usable[1::2] & (ratios < 1 - TOLERANCE)
    return [(compared[i], float(ratios[i])) for i in np.flatnonzero(lower)]


def lower(steps: Sequence[Step], size: int, classifies: bool = True) -> Graph:
    """Return the network of some steps for an image (1, 3, size, size), with or without a classifier."""
    b = GraphBuilder("drawn")
    x = b.conv(b.input((1, 3, size, size)), steps[0].channels, 3, stride=2, activation="Relu", name="stem")
    for i, step in enumerate(steps):
        with b.scope(f"{i}"):
            x = _lowered(b, x, step)
    if classifies:
        x = b.gemm(b.flatten(b.global_pool(x, name="pool"), name="flat"), 1000, name="head")
    return b.build(x)


def _lowered(b: GraphBuilder, x: str, step: Step) -> str:
    c, act = step.channels, step.activation or None
    if b.shape(x)[1] != c:
        x = b.conv(x, c, 1, name="widen")
    n, _, h, w = b.shape(x)
    match step.kind:
        case "conv":
            return b.conv(x, c, step.kernel, activation=act, name="conv")
        case "depthwise":
            return b.depthwise(x, step.kernel, activation=act, name="depthwise")
        case "grouped":
            return b.conv(x, c, 3, groups=c // 32, activation=act, name="grouped")
        case "point":
            return b.conv(x, c, 1, activation=act, name="point")
        case "residual":
            y = b.depthwise(b.conv(x, 2 * c, 1, activation=act, name="expand"), step.kernel, activation=act, name="depthwise")
            return b.binary("Add", b.conv(y, c, 1, name="project"), x, name="add")
        case "squeeze":
            gate = b.conv(b.conv(b.global_pool(x, name="mean"), 32, activation="Relu", name="down"), c, name="up")
            return b.binary("Mul", x, b.unary("Sigmoid", gate, name="gate"), name="scale")
        case "pool":
            return b.pool("MaxPool", x, 3, stride=1, pads=(1, 1, 1, 1), name="pool")
        case "norm":
            return b.norm("InstanceNormalization", x, c, name="norm")
        case "down":
            return b.conv(x, c, 3, stride=2, activation=act, name="down") if h >= 14 else x
    t = b.transpose(b.reshape(x, (n, c, h * w), name="flat"), (0, 2, 1), name="tokens")
    t = b.norm("LayerNormalization", t, c, axis=-1, name="norm")
    if step.kind == "attention" and h * w <= 1024:
        q, k, v = (b.gemm(t, c, name=name) for name in "qkv")
        q, k, v = (
            b.transpose(b.reshape(y, (n, h * w, c // 32, 32), name=f"split{i}"), (0, 2, 1, 3), name=f"heads{i}")
            for i, y in enumerate((q, k, v))
        )
        y = b.reshape(b.transpose(b.attention(q, k, v, name="attention"), (0, 2, 1, 3), name="join"), (n, h * w, c), name="merge")
    else:
        y = b.gemm(b.gemm(t, 2 * c, activation=act, name="fc1"), c, name="fc2")
    y = b.transpose(b.gemm(y, c, name="project"), (0, 2, 1), name="back")
    return b.binary("Add", b.reshape(y, (n, c, h, w), name="image"), x, name="add")


def _draw(rng: np.random.Generator) -> list[Step]:
    count, width = int(rng.integers(1, 9)), int(rng.integers(0, 5))
    return [
        Step(
            str(rng.choice(_STEPS)),
            _CHANNELS[min(width + i // 2, len(_CHANNELS) - 1)],
            int(rng.choice((1, 3, 5, 7, 9))),
            str(rng.choice(("", *_ACTIVATIONS[:5]))),
        )
        for i in range(count)
    ]


def _grown(rng: np.random.Generator, kind: Kind, steps: list[Step], size: int, classifies: bool) -> Case | None:
    at = int(rng.integers(len(steps)))
    step, grown, larger = steps[at], list(steps), size
    match kind:
        case "pixels":
            larger = size + 2 * int(rng.integers(1, 33))
            change = f"{size} to {larger} pixels"
        case "depth":
            grown.insert(at + 1, replace(step, kind="point" if step.kind == "down" else step.kind))
            change = f"step {at} twice"
        case "kernel":
            grown[at] = replace(step, kernel=step.kernel + 2)
            change = f"kernel of step {at} ({step.kind}) {step.kernel} to {step.kernel + 2}"
        case _:
            more = 32 * int(rng.integers(1, 5))
            grown = [replace(s, channels=s.channels + more) for s in steps]
            change = f"{more} channels more"
    less = lower(steps, size, classifies)
    case = Case(kind, less, lower(grown, larger, classifies), change)
    same_parts = kind != "pixels" or [op.op for op in less.operators] == [op.op for op in case.more.operators]
    return case if same_parts and case.more.key != less.key else None


def _edited(rng: np.random.Generator, kind: Kind, less: Graph) -> Case | None:
    made = [value for op in less.operators for value in op.outputs]
    value = less.values[less.outputs[0]] if kind == "append" else made[int(rng.integers(len(made)))]
    if kind == "insert" and rng.random() < 0.2:
        value = less.inputs[0]
    op = _keeping(str(rng.choice(_KEEPING)), value)
    if op is None:
        return None
    return Case(kind, less, inserted(less, value.name, op), f"{kind} {op.op} at {value.name}")


def inserted(graph: Graph, value: str, op: Operator) -> Graph:
    """Return a graph in which `op`, which keeps shape and dtype, stands between a value and all that read it."""
    new = op.outputs[0].name
    at = next((i + 1 for i, each in enumerate(graph.operators) if any(v.name == value for v in each.outputs)), 0)
    moved = [replace(each, inputs=tuple(new if name == value else name for name in each.inputs)) for each in graph.operators]
    outputs = tuple(new if name == value else name for name in graph.outputs)
    return Graph(graph.inputs, (*moved[:at], op, *moved[at:]), outputs, graph.name)


def _keeping(kind: str, value: Value) -> Operator | None:
    """Return an operator that reads a value and keeps its shape and dtype, None where this one cannot."""
    shape, out = value.shape, replace(value, name="inserted")
    rank, channels = len(shape), shape[1] if len(shape) == 4 else shape[-1]

    def made(op: str, attributes: Attributes | None = None, weights: Sequence[Weight] = (), inputs: int = 1) -> Operator:
        return Operator("inserted", op, (value.name,) * inputs, (out,), tuple(weights), tuple(sorted((attributes or {}).items())))

    window = {"kernel": (3, 3), "stride": (1, 1), "pads": (1, 1, 1, 1), "dilation": (1, 1)}
    match kind:
        case "add":
            return made("Add", inputs=2)
        case "scale" | "shift":
            vector = Weight((channels, 1, 1) if rank == 4 else (channels,))
            return made("Mul" if kind == "scale" else "Add", weights=[vector])
        case "conv" | "depthwise" if rank == 4:
            groups = channels if kind == "depthwise" else 1
            weights = [Weight((channels, channels // groups, 3, 3)), Weight((channels,))]
            return made("Conv", {**window, "groups": groups}, weights)
        case "pool" if rank == 4:
            return made("MaxPool", {k: v for k, v in window.items() if k != "dilation"})
        case "LayerNormalization" if rank == 3:
            return made(kind, {"axis": -1}, [Weight((channels,)), Weight((channels,))])
        case "Softmax":
            return made(kind, {"axis": -1})
        case "conv" | "depthwise" | "pool" | "LayerNormalization":
            return None
    return made(kind)


def _signatures(graph: Graph) -> Iterator[tuple[Any, ...]]:
    for op in graph.operators:
        shapes = tuple(graph.values[name].shape for name in op.inputs)
        yield op.op, shapes, tuple(v.shape for v in op.outputs), op.weights, op.attributes
