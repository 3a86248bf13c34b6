"""What PyTorch launches for a graph as it is written: one kernel an operator, with the bytes that it really moves.

An eager runtime folds nothing: a batch norm, an activation, a sum each read and write a whole tensor, and only views are free. Under
automatic mixed precision the numbers' size is not the graph's: convolutions and products take and give halves, norms, softmax and powers
floats, and whatever meets a float vector (a layer scale, a position table) becomes float and is cast back before the next product. Memory
order is followed too, since a reshape of a permuted tensor is a copy and a transposition none. Both travel along the graph from operator to
operator, so a network's blocks are counted one after the other, each from the state that the one before leaves.

Source: PyTorch 2.4, ``torch.amp`` ("CUDA Ops that can autocast"), ``aten/src/ATen/TensorUtils.cpp`` (`computeStride`), ``TensorIterator`` (type
promotion, order of outputs).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod, sqrt
from typing import NamedTuple

import numpy as np

from nas.devices.predictor import Floats
from nas.graphs.graph import Graph, Operator, Value
from nas.graphs.operators import Shape

_ACTIVATIONS = {
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu"), "relu"),
    **dict.fromkeys(("HardSwish", "HardSigmoid"), "hard"),
    **dict.fromkeys(("Swish", "Sigmoid", "Tanh"), "silu"),
    **dict.fromkeys(("Gelu", "Erf", "Elu", "Selu"), "gelu"),
    **dict.fromkeys(("Mish", "Softplus"), "mish"),
}
_FLOAT_UNDER_AUTOCAST = {"Exp", "Log", "Pow", "Reciprocal"}
_FLOAT_SUMS = {"ReduceSum", "ReduceProd", "ReduceL2"}
_SLOW = {"Div", "Pow", "Mod", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos"}
_FLAGS = {"Equal", "Less", "Greater", "And", "Or", "Not"}
_KEEPS_ORDER = {"conv", "pool", "resize"}
_DENSE = ("stem", "point", "conv3", "conv", "gemm")
# Where columns begin: windows, channels, positions and starts. Source: set by hand; experiments/007_public_profiles has the errors.
_DEPTHWISE = (("3", 0, 3), ("5", 3, 5), ("7", 5, 7), ("9", 7, 10**6))
_NARROW = (32, 64, 128, 256, 512)
_CHANNELS = (64, 128, 256)
_RIDGES = (20, 40, 80)
_POSITIONS = (64, 256)
_STARTS_US = (5, 10, 20, 40, 80, 160)
_STARTED = (
    *("conv", "depthwise", "grouped", "matmul", "product", "attention", "ln", "gn", "softmax", "pool", "reduce", "concat", "activation"),
    *("elementwise", "resize"),
)
_HINGED = ("conv", "depthwise", "grouped", "matmul", "attention", "loop")


_ON_A_PROCESSOR = {"gelu": 2, "silu": 1.5, **dict.fromkeys(("ln", "gn", "softmax", "concat", "pad"), 3)}
"""What a byte costs there where numbers are not only moved: exponentials, sums along an axis, loops of odd lengths. Set by hand."""


class Unit(NamedTuple):
    """What a column counts, and how many of it a device is expected to pay for at its usual price: under autocast, and in floats."""

    of: str
    autocast: float
    floats: float


def _columns() -> dict[str, Unit]:
    moved = (
        *("cast", "bias", "bn", "relu", "gelu", "silu", "hard", "mish", "add", "mul", "affine", "slow", "ln", "gn", "softmax", "copy"),
        *("concat", "pad", "gather", "roll", "move", "pool", "reduce", "resize", "exotic"),
    )
    columns = {name: Unit("MB", 1, _ON_A_PROCESSOR.get(name, 1)) for name in moved}
    columns |= {f"start/{kind}": Unit("start", 0, 0) for kind in _STARTED}
    columns |= {f"weights/{kind}": Unit("MB", 0, 0) for kind in ("wide", "point", "gemm", "grouped")}
    columns |= {
        "start": Unit("start", 1, 0.3),
        "weights": Unit("MB", 0, 1),
        "weight work": Unit("MB", 0, 1),
        "mixed order": Unit("MB", 0, 0),
    }
    for kind in _DENSE:
        columns |= {f"{kind}/macs": Unit("MMAC", 0.5, 0.6), f"{kind}/bytes": Unit("MB", 0.5, 0.3)}
        columns |= {f"{kind}/{extra}": Unit("MMAC", 0, 0) for extra in ("unaligned", "strided")}
    columns |= {f"conv/{extra}": Unit("MMAC", 0, 0) for extra in ("dilated", "one way")}
    columns |= {f"padded/{n}": Unit("MMAC", 0, 0) for n in (64, 128)}
    columns |= {f"{shape}/macs<{edge}": Unit("MMAC", 0, 0) for shape in ("wide", "flat") for edge in _NARROW}
    columns |= {f"macs {side}<{edge}": Unit("MMAC", 0, 0) for side in ("in", "out") for edge in _CHANNELS}
    columns |= {f"roof/{kind}/{ridge}": Unit("20 MMAC", 0.2, 0) for kind in ("conv", "gemm") for ridge in _RIDGES}
    columns |= {f"{kind}/positions<{n}": Unit("MMAC", 0, 0) for kind in ("conv", "gemm") for n in _POSITIONS}
    columns["strided/in"] = Unit("M", 0, 0)
    columns |= {f"grouped/{name}": Unit("MMAC", target, target) for name, target in (("macs", 0.5), ("strided", 0))}
    columns |= {f"grouped/{n}": Unit("MMAC", 0, 0) for n in (8, 16, 32, 64)}
    columns["grouped/bytes"] = Unit("MB", 0.5, 0.3)
    for band, *_ in _DEPTHWISE:
        columns |= {f"depthwise{band}/taps": Unit("M", 0.2, 0.1), f"depthwise{band}/out": Unit("M", 0.2, 0)}
    columns |= {f"depthwise/{name}": Unit("M", 0, 0) for name in ("row", "multiplied", "strided taps", "strided in")}
    columns["depthwise/bytes"] = Unit("MB", 0.5, 0.3)
    columns |= {f"{kind}/macs": Unit("MMAC", 0.5, 0.6) for kind in ("product", "attention", "masked")}
    columns |= {f"{kind}/bytes": Unit("MB", 0.5, 0.3) for kind in ("product", "attention")}
    columns |= {f"{kind}/padded": Unit("MMAC", 0, 0) for kind in ("product", "attention", "masked")}
    columns |= {"product/batch": Unit("M", 0, 0), "masked/scores": Unit("M", 0, 0), "recurrent/macs": Unit("MMAC", 3, 3)}
    columns |= {f"{name}/rows": Unit("M", 0, 0) for name in ("ln", "gn", "softmax")}
    columns |= {"pool/taps": Unit("M", 0, 0), "copies": Unit("M", 0, 0)}
    columns |= {f"at least {us} µs/{kind}": Unit("ms", 0, 0.15) for kind in _HINGED for us in _STARTS_US}
    return columns


COLUMNS = _columns()
_AT = {name: i for i, name in enumerate(COLUMNS)}


class State(NamedTuple):
    """How a tensor lies in memory: bytes a number, and elements from one index to the next along each axis."""

    number_bytes: int
    strides: Shape


@dataclass(frozen=True, eq=False)
class Kernels:
    """What a graph launches.

    Attributes:
        names: Operators' names, (operators,).
        ops: Their kinds.
        rows: (operators, columns).
        total: Sum over operators, (columns,).
        leaving: State of the graph's first output.
    """

    names: tuple[str, ...]
    ops: tuple[str, ...]
    rows: Floats
    total: Floats
    leaving: State


_cache: OrderedDict[tuple[int, bool, State | None], tuple[Graph, Kernels]] = OrderedDict()
_CACHED = 20_000  # by hand


def kernels_of(graph: Graph, autocast: bool, entering: State | None = None) -> Kernels:
    """Count a graph's kernels; results are kept by object identity, since spaces hand out the same segment again and again.

    Args:
        graph: As it is written: nothing is folded, fused or removed.
        autocast: Mixed precision with images channels-last; else floats, contiguous.
        entering: State of the first input; None: an image.
    """
    key = (id(graph), autocast, entering)
    cached = _cache.get(key)
    if cached is not None and cached[0] is graph:
        return cached[1]
    walk = _Walk(graph, autocast, entering)
    rows = np.array([walk.row(op) for op in graph.operators]).reshape(-1, len(COLUMNS))
    kernels = Kernels(
        tuple(op.name for op in graph.operators),
        tuple(op.op for op in graph.operators),
        rows,
        rows.sum(axis=0),
        walk.states[graph.outputs[0]],
    )
    _cache[key] = (graph, kernels)
    while len(_cache) > _CACHED:
        _cache.popitem(last=False)
    return kernels


def _contiguous(shape: Shape) -> Shape:
    strides, step = [0] * len(shape), 1
    for i in range(len(shape) - 1, -1, -1):
        strides[i], step = step, step * max(1, shape[i])
    return tuple(strides)


def _channels_last(shape: Shape) -> Shape:
    if len(shape) != 4:
        return _contiguous(shape)
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c)


def _is_dense(shape: Shape, strides: Shape) -> bool:
    """Whether the elements fill their memory without gap or overlap, in whatever order."""
    need = 1
    for step, size in sorted((step, size) for size, step in zip(shape, strides, strict=True) if size > 1):
        if step != need:
            return False
        need *= size
    return True


def _packed(shape: Shape, strides: Shape) -> Shape:
    """Return the strides of a dense tensor whose axes lie in the same order."""
    packed, need = [0] * len(shape), 1
    for i in sorted(range(len(shape)), key=lambda i: (-strides[i], i))[::-1]:
        packed[i], need = need, need * shape[i]
    return tuple(packed)


def _viewed(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """Return the strides of a view of another shape, None where only a copy has that shape."""
    out, at = [0] * len(new), len(new) - 1
    base, old_size, new_size = (strides[-1] if shape else 1), 1, 1
    for d in range(len(shape) - 1, -1, -1):
        old_size *= shape[d]
        if d == 0 or (shape[d - 1] != 1 and strides[d - 1] != old_size * base):
            while at >= 0 and (new_size < old_size or new[at] == 1):
                out[at], new_size, at = new_size * base, new_size * new[at], at - 1
            if new_size != old_size:
                return None
            if d > 0:
                base, old_size, new_size = strides[d - 1], 1, 1
    return None if at != -1 else tuple(out)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _within_variances(graph: Graph) -> set[str]:
    """Return the operators that are steps of one kernel: mean((x − mean(x))²) as PyTorch's ``var`` is written down, x − mean(x) read but once."""
    producers, readers = graph.producer(), graph.consumers()
    names: set[str] = set()
    for op in graph.operators:
        square = producers.get(op.inputs[0]) if op.op == "ReduceMean" and op.inputs else None
        if square is None or square.op != "Pow" or square.attribute("scalar") != 2.0 or len(readers[square.outputs[0].name]) > 1:
            continue
        centred = producers.get(square.inputs[0])
        if centred is None or centred.op != "Sub" or len(centred.inputs) != 2 or len(readers[centred.outputs[0].name]) > 1:
            continue
        mean = producers.get(centred.inputs[1])
        if mean is None or mean.op != "ReduceMean" or mean.inputs[0] != centred.inputs[0]:
            continue
        names |= {square.name, centred.name} | ({mean.name} if len(readers[mean.outputs[0].name]) == 1 else set())
    return names


class _Walk:
    """Follows a graph operator by operator; see the module.

    Args:
        graph: To follow.
        autocast: See `kernels_of`.
        entering: See `kernels_of`.
    """

    def __init__(self, graph: Graph, autocast: bool, entering: State | None) -> None:
        self.graph, self.autocast = graph, autocast
        self.work = 2 if autocast else 4  # bytes a number in convolutions and products
        self.image_order = _channels_last if autocast else _contiguous
        self.states = {v.name: State(4, self.image_order(v.shape)) for v in graph.inputs}
        if entering is not None:
            first = graph.inputs[0]
            fits = len(entering.strides) == len(first.shape)
            self.states[first.name] = entering if fits else State(entering.number_bytes, _contiguous(first.shape))
        self._within = _within_variances(graph)
        self._row: Floats = np.zeros(len(COLUMNS))

    def row(self, op: Operator) -> Floats:
        """Return the quantities of an operator, (columns,), and note the states of its outputs."""
        self._row = np.zeros(len(COLUMNS))
        inputs, out = [self.graph.values[name] for name in op.inputs], op.outputs[0]
        state = self._launch(op, inputs, out)
        if op.category == "unknown":  # nobody knows what it launches
            self._row[:] = 0
        fused = op.attribute("activation")
        if fused is not None:
            self._kernel(_ACTIVATIONS.get(fused, "gelu"), 2 * state.number_bytes * out.elements)
        again = op.attribute("weight_elements")
        if again:
            self._kernel("weight work", 4 * again)
        for value in op.outputs:
            fits = value is out or len(value.shape) == len(state.strides)
            self.states[value.name] = State(state.number_bytes, state.strides if fits else _contiguous(value.shape))
        if not self.autocast and self._row[_AT["start"]]:
            self._wait(op, inputs)
        return self._row

    def _add(self, column: str, amount: float) -> None:
        self._row[_AT[column]] += amount

    def _kernel(self, column: str, number_of_bytes: float) -> None:
        self._row[_AT[column]] += number_of_bytes / 1e6
        self._row[_AT["start"]] += 1

    def _wait(self, op: Operator, inputs: list[Value]) -> None:
        """Count starts by kind, and time with a floor: small work waits for its start, large work hides it (600 GMAC/s and 100 GB/s)."""
        row, category = self._row, op.category
        depthwise = any(row[_AT[f"depthwise{band}/taps"]] for band, *_ in _DEPTHWISE)
        kind = "depthwise" if depthwise else "grouped" if row[_AT["grouped/macs"]] else category
        named = {"norm": "gn" if row[_AT["gn"]] else "ln" if row[_AT["ln"]] else "", "layout": "concat" if op.op == "Concat" else ""}
        counted = "reduce" if op.op.startswith("Global") else "product" if row[_AT["product/bytes"]] else named.get(category, kind)
        if counted in _STARTED:
            self._add(f"start/{counted}", len(inputs) if counted == "concat" else 1)
        if category == "layout":
            return
        macs = self.graph.macs_of(op) / 1e6
        moved = 4e-6 * (sum(v.elements for v in (*inputs, *op.outputs)) + sum(w.elements for w in op.weights))
        for us in _STARTS_US:
            self._add(f"at least {us} µs/{kind if kind in _HINGED else 'loop'}", max(us / 1e3, macs / 600, moved / 100))

    def _weights(self, kind: str, elements: int) -> None:
        """Count the start of a product and the weights it reads; a GPU's batch shares them."""
        self._kernel("weights", self.work * elements)
        if not self.autocast:
            self._add(f"weights/{kind}", self.work * elements / 1e6)

    def _halved(self, value: Value) -> float:
        """Cast a float to what a product takes; return the bytes it reads."""
        if self.autocast and self.states[value.name].number_bytes == 4 and value.dtype.startswith("fp"):
            self._kernel("cast", 6 * value.elements)
        return self.work * value.elements

    def _floats(self, value: Value) -> int:
        """Cast a half to what a norm takes; return the bytes a number."""
        size = self.states[value.name].number_bytes
        if self.autocast and size == 2:
            self._kernel("cast", 6 * value.elements)
            return 4
        return size

    def _launch(self, op: Operator, inputs: list[Value], out: Value) -> State:
        category, kind = op.category, op.priced_as
        if op.name in self._within:  # no kernel of its own
            return State(self.states[inputs[0].name].number_bytes, self._order_of(inputs, out))
        if category == "conv":
            return self._convolution(op, inputs[0], out)
        if category == "matmul":
            return self._product(op, inputs, out)
        if category == "attention":
            return self._attention(op, inputs, out)
        if not inputs:
            return State(4, _contiguous(out.shape))
        x = inputs[0]
        size, strides = self.states[x.name]
        if kind in ("Reshape", "Identity", "Transpose", "Expand", "Slice", "Split", "Cast"):
            return self._view(op, x, out)
        if category in ("norm", "softmax"):
            return self._norm(op, x, out)
        if category == "activation":
            self._kernel(_ACTIVATIONS.get(kind, "gelu"), 2 * size * out.elements)
            return State(size, _packed(out.shape, strides) if _is_dense(x.shape, strides) else _contiguous(out.shape))
        if category in ("elementwise", "quantize"):
            return self._elementwise(op, inputs, out)
        if category == "pool":
            self._kernel("reduce" if kind.startswith("Global") else "pool", size * (x.elements + out.elements))
            if not kind.startswith("Global"):
                self._add("pool/taps", out.elements * prod(op.attribute("kernel")) / 1e6)
            return State(size, self.image_order(out.shape))
        if category == "reduce":
            self._kernel("reduce", size * (x.elements + out.elements))
            return State(4 if kind in _FLOAT_SUMS and self.autocast else size, _contiguous(out.shape))
        if category == "resize":
            self._kernel("resize", size * (x.elements + out.elements))
            return State(size, _packed(out.shape, strides))
        if category == "layout":
            size = max(self.states[v.name].number_bytes for v in inputs)
            size = 4 if op.weights and kind == "Concat" else size
            self._kernel({"Concat": "concat", "Gather": "gather", "Pad": "pad", "Roll": "roll"}.get(kind, "move"), 2 * size * out.elements)
            return State(size, self._order_of(inputs, out, same_rank=True))
        self._kernel("exotic", 4 * (out.elements + sum(v.elements for v in inputs)))
        self._add("recurrent/macs", self.graph.macs_of(op) / 1e6 if category == "recurrent" else 0.0)
        return State(4, _contiguous(out.shape))

    def _order_of(self, inputs: list[Value], out: Value, same_rank: bool = False) -> Shape:
        """Return the strides of a new tensor: in the order of the first whole input."""
        for value in inputs:
            strides = self.states[value.name].strides
            fits = len(value.shape) == len(out.shape) if same_rank else value.shape == out.shape
            if fits and _is_dense(value.shape, strides):
                return _packed(out.shape, strides)
        return _contiguous(out.shape)

    def _view(self, op: Operator, x: Value, out: Value) -> State:
        size, strides = self.states[x.name]
        if op.op == "Transpose":
            return State(size, tuple(strides[i] for i in op.attribute("perm")))
        if op.op == "Expand":
            extra = len(out.shape) - len(x.shape)
            own = (0 if a == 1 and b > 1 else s for a, b, s in zip(x.shape, out.shape[extra:], strides, strict=True))
            return State(size, (*(0,) * extra, *own))
        if op.op in ("Slice", "Split", "Cast"):
            return State(size, strides if len(out.shape) == len(x.shape) else _contiguous(out.shape))
        view = _viewed(x.shape, strides, out.shape)
        if view is None:
            self._kernel("copy", 2 * size * out.elements)
            self._add("copies", out.elements / 1e6)
        return State(size, view or _contiguous(out.shape))

    def _norm(self, op: Operator, x: Value, out: Value) -> State:
        size, strides = self.states[x.name]
        if op.op == "BatchNormalization":
            self._kernel("bn", 2 * size * out.elements)
            if not _is_dense(x.shape, strides):
                self._kernel("copy", 2 * size * out.elements)
            return State(size, _packed(out.shape, strides))
        size = self._floats(x) if op.op != "RMSNormalization" else size
        name = "softmax" if op.category == "softmax" else "ln" if op.op in ("LayerNormalization", "RMSNormalization") else "gn"
        if name == "ln" and (not _is_dense(x.shape, strides) or _packed(x.shape, strides) != _contiguous(x.shape)):
            self._kernel("copy", 2 * self.states[x.name].number_bytes * x.elements)
        self._kernel(name, 2 * size * out.elements)
        self._add(f"{name}/rows", out.elements / max(1, out.shape[-1]) / 1e6)
        return State(size, _contiguous(out.shape))

    def _elementwise(self, op: Operator, inputs: list[Value], out: Value) -> State:
        read = {v.name: self.states[v.name].number_bytes for v in inputs}
        size = max(read.values())
        if self.autocast and any(w.shape for w in op.weights):  # a parameter with axes is a float and makes floats, however small
            size = 4
        if op.op in _FLOAT_UNDER_AUTOCAST and self.autocast:
            read, size = {v.name: self._floats(v) for v in inputs}, 4
        if op.priced_as in _FLAGS:
            size = 1
        moved = sum(read[v.name] * v.elements for v in inputs) + size * out.elements + 4 * sum(w.elements for w in op.weights)
        large = [v for v in inputs if 2 * v.elements > out.elements]
        kind = "slow" if op.priced_as in _SLOW else "affine" if len(large) < 2 else "add" if op.op in ("Add", "Sub") else "mul"
        promotes = size == 4 and any(read[v.name] == 2 for v in large)  # it moves what a cast does, and saves its reader one
        self._kernel("cast" if promotes else kind, moved)
        whole = [_packed(v.shape, self.states[v.name].strides) for v in inputs if v.shape == out.shape]
        if len(set(whole)) > 1:
            self._add("mixed order", moved / 1e6)
        return State(size, self._order_of(inputs, out))

    def _convolution(self, op: Operator, x: Value, out: Value) -> State:
        weight = op.weights[0].shape if op.weights else (out.shape[1], x.shape[1])
        kernel, groups = tuple(op.attribute("kernel")), int(op.attribute("groups", 1))
        c_in, c_out, taps, strided = x.shape[1], out.shape[1], prod(kernel), max(op.attribute("stride", (1,))) > 1
        macs, positions = self.graph.macs_of(op) / 1e6, prod(out.shape[2:]) * out.shape[0]
        moved = (self._halved(x) + self.work * out.elements) / 1e6
        if not _is_dense(x.shape, self.states[x.name].strides):
            self._kernel("copy", 2 * self.work * x.elements)
        self._weights("grouped" if groups > 1 else "point" if taps == 1 else "wide", prod(weight))
        if len(op.weights) > 1:
            self._kernel("bias", 2 * self.work * out.elements)
        if groups == c_in and groups > 1:
            elements = out.elements / 1e6
            self._add("depthwise/bytes", moved)
            for name, before, most in _DEPTHWISE:  # a larger kernel pays what a smaller one does, and for what it has more
                self._add(f"depthwise{name}/taps", elements * max(0, min(taps, most**2) - before**2))
                self._add(f"depthwise{name}/out", elements if max(kernel) > before else 0.0)
            self._add("depthwise/row", elements * max(kernel))
            self._add("depthwise/multiplied", elements * taps if c_in != c_out else 0.0)
            if strided:
                self._add("depthwise/strided taps", elements * taps)
                self._add("depthwise/strided in", x.elements / 1e6)
        elif groups > 1:
            self._add("grouped/bytes", moved)
            self._add("grouped/macs", macs)
            self._add("grouped/strided", macs if strided else 0.0)
            for n in (8, 16, 32, 64):
                self._add(f"grouped/{n}", taps * positions * _up(c_in // groups, n) * _up(c_out // groups, n) * groups / 1e6)
        else:
            kind = "stem" if c_in <= 4 else "point" if taps == 1 else "conv3" if kernel == (3, 3) else "conv"
            self._dense(kind, macs, moved, c_in, c_out, prod(out.shape[2:]))
            if strided:
                self._add(f"{kind}/strided", macs)
                self._add("strided/in", x.elements / 1e6)
            self._add("conv/one way", macs if len(set(kernel)) > 1 else 0.0)
            self._add("conv/dilated", macs if max(op.attribute("dilation", (1,))) > 1 else 0.0)
        return State(self.work, self.image_order(out.shape))

    def _dense(self, kind: str, macs: float, moved: float, c_in: int, c_out: int, positions: int) -> None:
        self._add(f"{kind}/macs", macs)
        self._add(f"{kind}/bytes", moved)
        self._add(f"{kind}/unaligned", macs if c_in % 8 or c_out % 8 else 0.0)
        outer = macs / (c_in * c_out)
        for n in (64, 128):
            self._add(f"padded/{n}", outer * _up(c_in, 32) * _up(c_out, n))
        shape, unit = "flat" if kind in ("point", "gemm") else "wide", "gemm" if kind in ("point", "gemm") else "conv"
        for edge in _NARROW:  # what narrow operators pay more stays when they widen: a multiply-add gets cheaper, an operator does not
            self._add(f"{shape}/macs<{edge}", macs * min(1.0, edge / sqrt(c_in * c_out)))
        for edge in _CHANNELS:
            self._add(f"macs in<{edge}", macs * min(1.0, edge / c_in))
            self._add(f"macs out<{edge}", macs * min(1.0, edge / c_out))
        for ridge in _RIDGES:
            self._add(f"roof/{unit}/{ridge}", max(macs / ridge, moved))
        for n in _POSITIONS if not self.autocast else ():  # a GPU's batch has plenty
            self._add(f"{unit}/positions<{n}", macs * min(1.0, n / positions))

    def _product(self, op: Operator, inputs: list[Value], out: Value) -> State:
        macs = self.graph.macs_of(op) / 1e6
        if op.op == "Gemm" and op.weights and len(op.weights[0].shape) >= 2:
            x, (n, k) = inputs[0], op.weights[0].shape[:2]
            moved = self._halved(x) + self.work * out.elements
            matrix = _viewed(x.shape, self.states[x.name].strides, (prod(x.shape[:-1]), x.shape[-1]))
            if matrix is None or (matrix[1] != 1 and matrix[0] != 1):
                self._kernel("copy", 2 * self.work * x.elements)
            self._weights("gemm", n * k)
            self._dense("gemm", macs, moved / 1e6, k, n, prod(out.shape[:-1]))
            return State(self.work, _contiguous(out.shape))
        moved = sum(self._halved(v) for v in inputs) + self.work * out.elements
        for value in inputs:
            shape, strides = value.shape, self.states[value.name].strides
            if len(shape) > 2:
                batch = _viewed(shape[:-2], strides[:-2], (prod(shape[:-2]),))
                if batch is None or 0 in strides[:-2] or 1 not in strides[-2:]:
                    self._kernel("copy", 2 * self.work * value.elements)
        self._kernel("product/bytes", moved)
        self._add("product/macs", macs)
        if len(out.shape) > 1 and inputs:
            many, (m, n), k = prod(out.shape[:-2]), out.shape[-2:], inputs[0].shape[-1]
            self._add("product/padded", many * _up(m, 64) * _up(n, 64) * _up(k, 32) / 1e6)
            self._add("product/batch", many / 1e6)
        return State(self.work, _contiguous(out.shape))

    def _attention(self, op: Operator, inputs: list[Value], out: Value) -> State:
        q, k, v = (value.shape for value in inputs[:3])
        heads, keys = prod(q[:-2]), k[-1] if op.attribute("key_transposed") else k[-2]
        moved = sum(self._halved(value) for value in inputs) + self.work * out.elements
        kind = "masked" if len(inputs) > 3 or op.weights else "attention"
        self._kernel("attention/bytes", moved)
        self._add(f"{kind}/macs", self.graph.macs_of(op) / 1e6)
        self._add(f"{kind}/padded", 2 * heads * _up(q[-2], 64) * _up(keys, 64) * _up(max(q[-1], v[-1]), 32) / 1e6)
        if kind == "masked":
            self._add("masked/scores", heads * q[-2] * keys / 1e6)
        if len(out.shape) == 4:  # written by position, heads side by side
            _, h, n, d = out.shape
            return State(self.work, (n * h * d, d, h * d, 1))
        return State(self.work, _contiguous(out.shape))
