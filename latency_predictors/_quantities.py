"""What an operator makes a tensor processor do, in countable quantities; no device, no coefficient, no fit.

One row a operator, one column a quantity: padded multiply-adds under several tilings and weight-reuse assumptions,
elements by kind of work, bytes beyond on-chip memory, counts. A latency model is a choice of columns and a price for
each; because every price multiplies a sum over operators, a network is one vector and so is a block of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import numpy.typing as npt

from nas.devices.predictor import Floats
from nas.graphs import known
from nas.graphs.graph import Graph, GraphBuilder, Operator
from nas.graphs.images import CHANNELS
from nas.graphs.operators import Shape, spec_of

ALIGNMENTS = {"none": (1, 1), "out": (4, 32), "tile": (32, 32), "wide": (32, 64), "packed": (32, 32)}
"""Input and output channels are padded to multiples: 32 is the depth of Hexagon's tensor tile. ``packed`` pads the product of input channels and
taps, as where the window is laid out in the depth of the tile.
Each member of the ensemble draws one (`latency_predictors._switches.OPTIONS`)."""

DEPTH = 32
"""Channels are stored in multiples of this many; an image of three channels takes ten times its size. Source: the depth of that tile."""

REUSES = (0, 16, 32, 64, 128, "map")
"""Positions below which a dense layer waits for its weights: cost = padded weights × max(positions, reuse).
Set by hand; each member draws one."""

ON_CHIP_MELEMENTS = (1, 2, 4)
"""Input and output beyond this many 10⁶ elements are spilled to memory (an 8 MB on-chip store holds 4 in fp16).
Set by hand; each member draws one, or none."""

DENSE = ("stem", "point", "conv", "dilated", "conv3d", "gemm")
_ELEMENTS = {
    "Relu": "relu",
    "Clip": "relu",
    "LeakyRelu": "relu",
    "PRelu": "relu",
    "HardSwish": "hard",
    "HardSigmoid": "hard",
    "Swish": "silu",
    "Sigmoid": "silu",
    "Tanh": "silu",
    "Gelu": "gelu",
    "Erf": "gelu",
    "Elu": "gelu",
    "Selu": "gelu",
    "Mish": "gelu",
    "Softplus": "gelu",
}
_SLOW = {"Div", "Pow", "Mod", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Softsign"}
_FREE = {"Reshape", "Identity", "Cast", "Expand", "Constant"}
_AFFINE = ("Mul", "Add", "Sub", "Div")
_MAKERS_OF_IMAGES = ("Conv", "ConvTranspose", "DepthToSpace")
_LEAST_PIXELS = 256  # of a map of few channels, to be an image and not a vector. Source: set by hand, 16 × 16
_CHANNELS_LAST = {"matmul", "attention", "softmax"}
_PASSIVE = {"Reshape", "Identity", "Cast", "Split", "Slice", "Transpose", "Mul", "Add", "Concat"}
_NHWC = {(0, 2, 3, 1), (0, 3, 1, 2)}  # permutations between (n, c, h, w) and (n, h, w, c)
_LEAKY = {"LeakyRelu", "PRelu"}
"""Part of ``relu``, counted once more: where the convolution before applies these as well, the price of ``relu`` is taken back."""

FREE_ACTIVATIONS = {"Relu", "Clip"}
"""Activations that the convolution before them applies as it writes."""

_POINTWISE = ("add", "mul", "affine", "slow", "relu", "leaky", "hard", "silu", "gelu", "norm")

DEEPENED = (
    "io",
    *_POINTWISE,
    "pool",
    "pool/in",
    "global",
    "resize",
    "concat",
    "blocks",
)
"""Quantities that are counted by stored elements as well, channels padded to `DEPTH`."""

_PLAIN = (
    "dw/3",
    "dw/5",
    "dw/7",
    "dw/3/strided",
    "dw/5/strided",
    "dw/7/strided",
    "dw/out",
    "dw/in",
    "dw/row",
    "strided/macs",
    "strided/in",
    "strided/out",
    "group/exact",
    "group/32",
    "group/dense",
    "io",
    "out",
    *(f"spill/{m}" for m in ON_CHIP_MELEMENTS),
    *(f"spill/{m}/deep" for m in ON_CHIP_MELEMENTS),
    *(f"{name}/deep" for name in DEEPENED),
    "weights",
    *_POINTWISE,
    "norm/rows",
    "softmax",
    "softmax/32",
    "softmax/64",
    "softmax/rows",
    "attention/heads",
    "attention/1",
    "attention/32",
    "attention/64",
    "attention/io",
    "transpose",
    "transpose/attention",
    "transpose/nhwc",
    "concat",
    "split",
    "split/attention",
    "move",
    "gather",
    "blocks",
    "pool",
    "pool/in",
    "pool/overlapping",
    "pool/taps",
    "global",
    "reduce",
    "resize",
    "recurrent",
    "recurrent/steps",
    "exotic",
    "image",
    "image/out",
    "image/read",
    "regroup",
    "transpose/deep",
)
_COUNTS = ("n/dense", "n/depthwise", "n/elementwise", "n/norm", "n/attention", "n/layout", "n/other", "n/exotic", "n/squeeze")

QUANTITIES: tuple[str, ...] = (
    *(f"{kind}/{a}/{r}" for kind in DENSE for a in ALIGNMENTS for r in REUSES),
    *_PLAIN,
    *_COUNTS,
)
"""Columns of `Quantities.rows`: 10⁶ multiply-adds, 10⁶ elements, or counts (``n/…``; rows, heads and steps in 10³)."""

COLUMN = {name: i for i, name in enumerate(QUANTITIES)}


def _kind(quantity: str) -> str:
    head, _, rest = quantity.partition("/")
    if head == "leaky":
        return "relu"
    return f"{head}/{rest[0]}" if head == "dw" and rest[0].isdigit() else rest if head == "n" else head


def kinds_of(quantities: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of work of some quantities, each once."""
    return tuple(dict.fromkeys(_kind(name) for name in quantities))


KINDS: tuple[str, ...] = kinds_of(QUANTITIES)
"""Kinds of work, coarser than quantities: what a fit has or has not seen."""

KIND_OF = np.array([KINDS.index(_kind(name)) for name in QUANTITIES])


@dataclass(frozen=True, eq=False)
class Quantities:
    """The quantities of a graph.

    Attributes:
        names: Operators' names, (operators,).
        ops: Operators' kinds.
        kinds: These, and those of activations that are fused into operators.
        rows: (operators, quantities).
        total: Sum over operators, (quantities,).
        unknown: Kinds of operators outside the vocabulary, sorted; their rows are empty.
        precisions: That operators fix.
        borders: (operator that makes a value, one that reads it at another precision, the value's shape), once a value and precision.
    """

    names: tuple[str, ...]
    ops: tuple[str, ...]
    kinds: frozenset[str]
    rows: Floats
    total: Floats
    unknown: tuple[str, ...]
    precisions: tuple[str | None, ...]
    borders: tuple[tuple[int, int, Shape], ...]

    def runnable(self, forbidden: Collection[str]) -> npt.NDArray[np.bool_]:
        """Return which operators have a price on a device that lacks the kinds `forbidden`, (operators,); a fused activation is in that of its operator."""
        return np.array([op not in self.unknown and op not in forbidden for op in self.ops], dtype=bool)


_cache: OrderedDict[int, tuple[Graph, Quantities]] = OrderedDict()
_CACHED_GRAPHS = 50_000  # by hand


def quantities_of(graph: Graph, normalise: Callable[[Graph], Graph] | None = None) -> Quantities:
    """Count a graph's work after the runtime's fusions (`normalise`); results are kept by object identity.

    Graphs are immutable and spaces hand out the same segment again and again, so a second call costs a look-up.
    """
    cached = _cache.get(id(graph))
    if cached is not None and cached[0] is graph:
        return cached[1]
    compiled = normalise(graph) if normalise else graph
    rows = np.zeros((len(compiled.operators), len(QUANTITIES)))
    near, images = _around_attention(compiled), _images_read(compiled)
    for row, operator in zip(rows, compiled.operators, strict=True):
        row[:] = _row_of(compiled, operator, operator.name in near)
        row[COLUMN["image/read"]] += images.get(operator.name, 0.0)
    quantities = Quantities(
        tuple(op.name for op in compiled.operators),
        tuple(op.op for op in compiled.operators),
        compiled.kinds,
        rows,
        rows.sum(axis=0),
        compiled.unknown,
        tuple(op.precision for op in compiled.operators),
        _borders(compiled) if len(compiled.precisions) > 1 else (),
    )
    _cache[id(graph)] = (graph, quantities)
    while len(_cache) > _CACHED_GRAPHS:
        _cache.popitem(last=False)
    return quantities


_rows: dict[Hashable, Floats] = {}
_CACHED_ROWS = 16_384  # 36 MB; by hand


def _row_of(graph: Graph, op: Operator, near_attention: bool) -> Floats:
    """Return what an operator does, (quantities,); most operators of a network do what one before them did."""
    shapes = [tuple(graph.values[name].shape for name in op.inputs), tuple(v.shape for v in op.outputs), tuple(w.shape for w in op.weights)]
    key = (op.op, op.attributes, *shapes, near_attention)
    row = _rows.get(key)
    if row is None:
        row = np.zeros(len(QUANTITIES))
        if op.category != "unknown" and not _count_image(row, graph, op):
            _count(row, graph, op, near_attention)
            _deepen(row, graph, op)
        if len(_rows) == _CACHED_ROWS:
            _rows.clear()
        _rows[key] = row
    return row


def work_of(graph: Graph, normalise: Callable[[Graph], Graph], forbidden: Collection[str] = ()) -> tuple[Floats, bool]:
    """Return the sum of a graph's quantities over the operators that a device runs, and whether it runs them all.

    That of a published network in the form that Qualcomm's tables time was counted once and for all; every other graph's is counted here.
    """
    counts = known.counts()
    row = counts.rows.get(graph.name)
    if row is not None and counts.quantities == QUANTITIES and graph is known.deferred_with_normalisation(graph.name):
        kinds = {kind for kind, runs in zip(counts.kinds, counts.runs[row], strict=True) if runs}
        if kinds.isdisjoint(forbidden) and not any(spec_of(kind).category == "activation" for kind in forbidden):  # it may be fused
            return counts.totals[row], True
    counted = quantities_of(graph, normalise)
    whole = not counted.unknown and counted.kinds.isdisjoint(forbidden)
    return counted.total if whole else counted.rows[counted.runnable(forbidden)].sum(axis=0), whole


@cache
def requantisation(shape: Shape) -> Graph:
    """Return what changes the precision of a tensor of some shape: one elementwise operator."""
    builder = GraphBuilder("requantisation")
    return builder.build(builder.unary("QuantizeLinear", builder.input(shape), name="requantise"))


def _borders(graph: Graph) -> tuple[tuple[int, int, Shape], ...]:
    makers = {value.name: i for i, op in enumerate(graph.operators) for value in op.outputs}
    borders: dict[tuple[str, str | None], tuple[int, int, Shape]] = {}
    for i, op in enumerate(graph.operators):
        for name in op.inputs:
            if name in makers and graph.operators[makers[name]].precision != op.precision:
                borders.setdefault((name, op.precision), (makers[name], i, graph.values[name].shape))
    return tuple(borders.values())


def _count_image(row: Floats, graph: Graph, op: Operator) -> bool:
    """Count a step of an image's normalisation, and an image that is made; return whether the former is all that the operator does.

    AI Hub compiles the normalisation into its classifiers: a subtraction and a division by channel, 0.2 to 0.3 ms on a phone, half of it
    for each. Every operator is judged by itself, so that work put before, between or behind never makes a network cheaper.
    """
    out = op.outputs[0]
    if len(out.shape) < 4:
        return False
    if op.op in _MAKERS_OF_IMAGES and out.shape[1] in (3, 4) and prod(out.shape[2:]) > 1:
        row[COLUMN["image/out"]] += out.elements / 1e6
    if not (op.op in _AFFINE and len(op.inputs) == 1 and graph.values[op.inputs[0]].shape == out.shape and out.shape[1] == CHANNELS):
        return False
    if not any(w.elements == CHANNELS for w in op.weights):
        return False
    row[COLUMN["image"]] += out.elements / 2e6
    return True


def _is_image(shape: Shape) -> bool:
    return len(shape) >= 4 and shape[1] <= 4 and prod(shape[2:]) >= _LEAST_PIXELS


def _images_read(graph: Graph) -> dict[str, float]:
    """Return 10⁶ pixels by operator that takes up an image of few channels, each image once; what makes another such image passes it on."""
    images: dict[str, float] = {}
    counted: set[str] = set()
    for op in graph.operators:
        if any(_is_image(value.shape) for value in op.outputs):
            continue
        for name in op.inputs:
            shape = graph.values[name].shape
            if name not in counted and _is_image(shape):
                counted.add(name)
                images[op.name] = images.get(op.name, 0.0) + shape[0] * prod(shape[2:]) / 1e6
    return images


def _is_scalar(op: Operator) -> bool:
    """Whether an operator scales or shifts its one input by a single number."""
    return op.op in _AFFINE and len(op.inputs) == 1 and not any(w.elements > 1 for w in op.weights)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _whole_tiles(shape: Shape) -> int:
    """Return the positions of a map, or of tokens, in whole tiles of 8 × 4 or 32."""
    return prod(shape[:-2]) * _up(shape[-2], 8) * _up(shape[-1], 4) if len(shape) > 1 else _up(prod(shape), 32)


def _dense(row: Floats, kind: str, c_in: int, c_out: int, taps: int, positions: int, tiled: int) -> None:
    for a, (of_in, of_out) in ALIGNMENTS.items():
        if a == "packed":
            weights = _up(c_in * taps, of_in) * _up(c_out, of_out)
        else:
            weights = _up(c_in, min(of_in, 4) if kind == "stem" else of_in) * _up(c_out, of_out) * taps
        for r in REUSES:
            row[COLUMN[f"{kind}/{a}/{r}"]] += weights * (tiled if r == "map" else max(positions, int(r))) / 1e6


def _around_attention(graph: Graph) -> set[str]:
    """Return the layout operators between a projection and the products of its attention: a compiler lays these out once."""
    near: set[str] = set()
    producers, readers = graph.producer(), graph.consumers()
    for op in graph.operators:
        if op.category != "attention" and not (op.op == "MatMul" and len(op.inputs) > 1):
            continue
        for following, step in ((False, _before), (True, _after)):
            edge, depth = [op], 0
            while edge and depth < 6:
                edge = [neighbour for each in edge for neighbour in step(each, producers, readers) if _is_passive(neighbour, following)]
                near |= {neighbour.name for neighbour in edge if neighbour.op in ("Transpose", "Split")}
                depth += 1
    return near


def _before(op: Operator, producers: Mapping[str, Operator], _: Mapping[str, list[Operator]]) -> list[Operator]:
    return [producers[name] for name in op.inputs if name in producers]


def _after(op: Operator, _: Mapping[str, Operator], readers: Mapping[str, list[Operator]]) -> list[Operator]:
    return [reader for value in op.outputs for reader in readers[value.name]]


def _is_passive(op: Operator, following: bool) -> bool:
    if op.op in ("Mul", "Add"):
        return len(op.inputs) < 2 and not following
    return op.op in _PASSIVE and not (following and op.op == "Concat")


def _count(row: Floats, graph: Graph, op: Operator, near_attention: bool) -> None:
    def add(name: str, amount: float) -> None:
        row[COLUMN[name]] += amount

    inputs = [graph.values[name] for name in op.inputs]
    out = op.outputs[0]
    n_in = sum(value.elements for value in inputs) / 1e6
    n_out = sum(value.elements for value in op.outputs) / 1e6
    category = op.category
    if op.op == "Reshape" and _regroups(inputs[0].shape, out.shape):
        add("regroup", n_out)
    if op.op in _FREE or _is_scalar(op) or _keeps_all(op):  # a scalar is folded into a neighbour
        return
    if category not in ("layout",):
        add("io", n_in + n_out)
        add("out", n_out)
        for m in ON_CHIP_MELEMENTS:
            add(f"spill/{m}", max(0.0, n_in + n_out - m))
    add("weights", sum(w.elements for w in op.weights) / 1e6)
    _activation(row, op.attribute("activation"), n_out)
    if category == "conv":
        _convolution(row, graph, op)
    elif category == "matmul":
        _product(row, op, inputs[0].shape, out.shape, [v.shape for v in inputs])
    elif category == "attention":
        q, k, v = (value.shape for value in inputs[:3])
        heads = prod(q[:-2])
        scores = heads * q[-2] * k[-2] / 1e6
        add("attention/1", scores * (q[-1] + v[-1]))
        for a in (32, 64):
            add(f"attention/{a}", heads * _up(q[-2], a) * _up(k[-2], a) * (_up(q[-1], 32) + _up(v[-1], 32)) / 1e6)
            add(f"softmax/{a}", heads * q[-2] * _up(k[-2], a) / 1e6)
        add("softmax", scores)
        add("softmax/rows", heads * q[-2] / 1e3)
        add("attention/heads", 2 * heads / 1e3)
        add("attention/io", n_in + n_out)
        add("n/attention", 1)
    elif op.op == "SqueezeExcite":
        for weight in op.weights:
            if len(weight.shape) >= 2:
                _dense(row, "gemm", prod(weight.shape[1:]), weight.shape[0], 1, 1, 32)
        add("global", inputs[0].elements / 1e6)
        add("affine", n_out)
        for name, times in (("n/dense", 2), ("n/elementwise", 1), ("n/other", 1), ("n/squeeze", 1)):
            add(name, times)
    elif category == "norm":
        if op.op == "BatchNormalization":
            add("affine", n_out)
            add("n/elementwise", 1)
        else:
            add("norm", n_out)
            add("norm/rows", out.elements / out.shape[-1] / 1e3)
            add("n/norm", 1)
    elif category == "activation":
        _activation(row, op.priced_as, n_out, fused=False)
        add("n/elementwise", 1)
    elif category == "softmax":
        add("softmax", n_out)
        add("softmax/rows", out.elements / out.shape[-1] / 1e3)
        for a in (32, 64):
            add(f"softmax/{a}", out.elements / out.shape[-1] * _up(out.shape[-1], a) / 1e6)
        add("n/attention", 1)
    elif category == "elementwise":
        big = [value for value in inputs if value.elements * 2 > out.elements]
        kind = "slow" if op.priced_as in _SLOW else "affine" if len(big) < 2 else "add" if op.op in ("Add", "Sub", "Max", "Min") else "mul"
        add(kind, n_out)
        add("n/elementwise", 1)
        if op.op == "Mul" and len(inputs) == 2 and any(v.shape[2:] == (1, 1) for v in inputs) and prod(out.shape[2:]) > 1:
            add("n/squeeze", 1)
    elif category in ("pool", "reduce"):
        _reduction(row, op, n_in, n_out)
    elif category == "layout":
        kind = {"Transpose": "transpose", "Concat": "concat", "Split": "split", "Gather": "gather"}.get(op.priced_as, "move")
        if near_attention:
            kind += "/attention"
        elif op.op == "Transpose" and tuple(op.attribute("perm")) in _NHWC:
            kind += "/nhwc"  # the device's own layout is channels-last
        if op.op == "Transpose" and len(out.shape) > 4:
            add("transpose/deep", n_out)
        add("blocks" if op.op in ("DepthToSpace", "SpaceToDepth") else kind, n_out)
        add("n/layout", 1)
    elif category == "resize":
        add("resize", n_out)
        add("n/other", 1)
    elif category == "recurrent":
        steps = inputs[0].shape[0] if len(inputs[0].shape) < 3 else max(inputs[0].shape[-3:-1])
        directions = 2 if op.attribute("direction") == "bidirectional" else 1
        add("recurrent", graph.macs_of(op) / 1e6)
        add("recurrent/steps", steps * directions / 1e3)
        add("n/other", 1)
    elif category == "quantize":
        add("affine", n_out)
        add("n/elementwise", 1)
    else:  # exotic
        add("exotic", n_in + n_out)
        add("n/exotic", 1)


def _regroups(before: Shape, after: Shape) -> bool:
    """Whether a reshape takes channels apart, or works in more axes than a device's layouts have."""
    return max(len(before), len(after)) > 4 or (len(before) == len(after) == 4 and before[1] != after[1])


def _keeps_all(op: Operator) -> bool:
    """Whether a pooling looks at one position at a time."""
    return op.category == "pool" and "kernel" in dict(op.attributes) and max((*op.attribute("kernel"), *op.attribute("stride"))) == 1


def _stored(op: Operator, shape: Shape) -> float:
    """Return 10⁶ elements of a tensor as it is stored: channels in multiples of `DEPTH`.

    Channels are the last axis of tokens, of what products and normalisations over the last axis work on, and of square maps in front of it; else the
    second. An operator is judged by itself, so that what stands before it never makes it cheaper.
    """
    if not shape:
        return 1e-6
    last = len(shape) != 4 or op.category in _CHANNELS_LAST or op.op == "LayerNormalization" or shape[1] == shape[2] != shape[3]
    if last:
        return prod(shape[:-1]) * _up(shape[-1], DEPTH) / 1e6
    return shape[0] * _up(shape[1], DEPTH) * prod(shape[2:]) / 1e6


def _deepen(row: Floats, graph: Graph, op: Operator) -> None:
    """Count again what an operator does by element, by stored elements."""
    inputs, outputs = [graph.values[name] for name in op.inputs], op.outputs
    n_in, n_out = (max(sum(v.elements for v in values) / 1e6, 1e-9) for values in (inputs, outputs))
    deep_in, deep_out = (sum(_stored(op, v.shape) for v in values) for values in (inputs, outputs))
    for name in DEEPENED:
        amount = row[COLUMN[name]]
        if amount:
            by = (
                deep_in / n_in
                if name in ("pool/in", "global")
                else (deep_in + deep_out) / (n_in + n_out)
                if name == "io"
                else deep_out / n_out
            )
            row[COLUMN[f"{name}/deep"]] += amount * by
    if row[COLUMN["io"]]:
        for m in ON_CHIP_MELEMENTS:
            row[COLUMN[f"spill/{m}/deep"]] += max(0.0, deep_in + deep_out - m)


def _activation(row: Floats, name: str | None, elements: float, *, fused: bool = True) -> None:
    if name is not None and not (fused and name in FREE_ACTIVATIONS):
        row[COLUMN[_ELEMENTS.get(name, "gelu")]] += elements
    if name in _LEAKY:
        row[COLUMN["leaky"]] += elements


def _convolution(row: Floats, graph: Graph, op: Operator) -> None:
    x, out, weight = graph.values[op.inputs[0]].shape, op.outputs[0].shape, op.weights[0].shape
    kernel, groups = tuple(op.attribute("kernel")), int(op.attribute("groups", 1))
    taps, batch = prod(kernel), out[0]
    positions = batch * prod(x[2:] if op.op == "ConvTranspose" else out[2:])
    c_in, c_out = x[1], out[1]
    if groups == c_in and groups > 1:
        band = "3" if max(kernel) <= 3 else "5" if max(kernel) <= 5 else "7"
        stride = op.attribute("stride", (1,))
        elements = positions * _up(c_out, 32) / 1e6
        row[COLUMN[f"dw/{band}"]] += elements * taps
        if max(stride) > 1:
            row[COLUMN[f"dw/{band}/strided"]] += elements * taps
        row[COLUMN["dw/out"]] += elements
        row[COLUMN["dw/in"]] += batch * prod(x[2:]) * _up(c_in, 32) / 1e6
        row[COLUMN["dw/row"]] += elements * kernel[0]
        row[COLUMN["n/depthwise"]] += 1
        return
    row[COLUMN["n/dense"]] += 1
    if max(op.attribute("stride", (1,))) > 1 and op.op == "Conv":
        row[COLUMN["strided/macs"]] += graph.macs_of(op) / 1e6
        row[COLUMN["strided/in"]] += batch * c_in * prod(x[2:]) / 1e6
        row[COLUMN["strided/out"]] += prod(out) / 1e6
    if groups > 1:
        g_in, g_out = c_in // groups, c_out // groups
        exact = taps * positions * g_in * c_out / 1e6
        row[COLUMN["group/exact"]] += exact
        row[COLUMN["group/32"]] += taps * positions * _up(max(g_in, 32), 32) * groups * _up(g_out, 4) / 1e6
        row[COLUMN["group/dense"]] += taps * positions * c_in * c_out / 1e6
        return
    dilated = max(op.attribute("dilation", (1,))) > 1 and taps > 1
    kind = (
        "stem"
        if c_in <= 4 and taps > 1
        else "conv3d"
        if sum(k > 1 for k in kernel) > 2 or (len(kernel) == 3 and taps > 1)
        else "dilated"
        if dilated
        else "point"
        if taps == 1
        else "conv"
    )
    if len(weight) < 2:
        return
    _dense(row, kind, c_in, c_out, taps, positions, batch * _whole_tiles((x if op.op == "ConvTranspose" else out)[2:]))


def _product(row: Floats, op: Operator, first: tuple[int, ...], out: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    k, n = first[-1], out[-1]
    if op.weights and len(op.weights[0].shape) >= 2:
        _dense(row, "gemm", k, n, 1, prod(out[:-1]), _up(prod(out[:-1]), 32))
        row[COLUMN["n/dense"]] += 1
        return
    batch, m = prod(out[:-2]), out[-2]
    row[COLUMN["attention/1"]] += batch * m * k * n / 1e6
    row[COLUMN["attention/32"]] += batch * _up(m, 32) * _up(k, 32) * _up(n, 32) / 1e6
    row[COLUMN["attention/64"]] += batch * _up(m, 64) * _up(k, 32 if k < n else 64) * _up(n, 32 if n <= k else 64) / 1e6
    row[COLUMN["attention/heads"]] += batch / 1e3
    row[COLUMN["attention/io"]] += (sum(map(prod, shapes)) + prod(out)) / 2e6
    row[COLUMN["n/attention"]] += 1


def _reduction(row: Floats, op: Operator, n_in: float, n_out: float) -> None:
    spatial = op.category == "reduce" and len(op.outputs[0].shape) >= 2 and tuple(op.attribute("axes")) in ((2, 3), (-2, -1))
    if spatial or op.priced_as in ("GlobalAveragePool", "GlobalMaxPool"):
        row[COLUMN["global"]] += n_in
    elif op.category == "reduce":
        row[COLUMN["reduce"]] += n_in
    else:
        row[COLUMN["pool"]] += n_out
        row[COLUMN["pool/in"]] += n_in
        row[COLUMN["pool/taps"]] += n_out * prod(op.attribute("kernel"))
        if 1 < max(op.attribute("stride")) < max(op.attribute("kernel")):
            row[COLUMN["pool/overlapping"]] += n_out
    row[COLUMN["n/other"]] += 1
