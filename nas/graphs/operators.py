"""The operator vocabulary: ONNX's operator names, what each costs, and how its output shape follows from its input.

Counting convention: one multiply-add is one MAC, counted for convolutions and matrix products alone, as PyTorch's
``FlopCounterMode`` does (its figures are 2 × MACs). Everything else is counted in elements and bytes. An operator
outside the vocabulary keeps its name, has the category ``unknown`` and is reported by name; it is never free.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from nas.errors import GraphError

Shape = tuple[int, ...]
Category = Literal[
    "conv",
    "matmul",
    "attention",
    "norm",
    "activation",
    "softmax",
    "elementwise",
    "reduce",
    "pool",
    "layout",
    "resize",
    "recurrent",
    "quantize",
    "exotic",
    "unknown",
]
Attributes = Mapping[str, Any]
Infer = Callable[[Sequence[Shape], Sequence[Shape], Attributes], Shape]
Macs = Callable[[Sequence[Shape], Sequence[Shape], Shape, Attributes], int]


@dataclass(frozen=True, slots=True)
class OpSpec:
    """What the engine knows of one operator.

    Attributes:
        name: ONNX name; `Attention` also stands for the same thing written out.
        category: The class under which predictors price it.
        infer: Output shape from (input shapes, weight shapes, attributes); None where the importer must supply it.
        macs: Multiply-adds from (input shapes, weight shapes, output shape, attributes); None means none.
        required: Attributes that the operator cannot be without.
    """

    name: str
    category: Category
    infer: Infer | None = None
    macs: Macs | None = None
    required: tuple[str, ...] = ()


def _broadcast(inputs: Sequence[Shape], weights: Sequence[Shape], _: Attributes) -> Shape:
    shapes = [*inputs, *weights]
    rank = max(map(len, shapes))
    out = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise GraphError(f"shapes do not broadcast, got {shapes}")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def _same(inputs: Sequence[Shape], _weights: Sequence[Shape], _: Attributes) -> Shape:
    return inputs[0]


def _window(shape: Shape, channels: int, attributes: Attributes) -> Shape:
    """(n, c, *spatial) -> (n, channels, *spatial') of a sliding window."""
    kernel, stride, pads = attributes["kernel"], attributes["stride"], attributes["pads"]
    rank = len(kernel)
    if len(shape) != rank + 2:
        raise GraphError(f"a {rank}-d window needs a rank-{rank + 2} input, got {shape}")
    dilation = attributes.get("dilation", (1,) * rank)
    up = attributes.get("ceil", 0)
    spatial = []
    for i in range(rank):
        room = shape[2 + i] + pads[i] + pads[rank + i] - dilation[i] * (kernel[i] - 1) - 1
        if room < 0:
            raise GraphError(f"the window does not fit, got kernel {kernel} on {shape}")
        steps = -(-room // stride[i]) if up else room // stride[i]
        if up and steps * stride[i] >= shape[2 + i] + pads[i]:
            steps -= 1
        spatial.append(steps + 1)
    return (shape[0], channels, *spatial)


def _conv(inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Attributes) -> Shape:
    (x, *_), w, groups = inputs, weights[0], attributes["groups"]
    if x[1] != w[1] * groups or w[0] % groups:
        raise GraphError(f"channels and groups disagree, got input {x}, weight {w}, groups {groups}")
    return _window(x, w[0], attributes)


def _conv_transpose(inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Attributes) -> Shape:
    x, w = inputs[0], weights[0]  # w: (c_in, c_out / groups, *kernel)
    kernel, stride, pads = attributes["kernel"], attributes["stride"], attributes["pads"]
    extra = attributes.get("output_padding", (0,) * len(kernel))
    spatial = [(x[2 + i] - 1) * stride[i] - pads[i] - pads[len(kernel) + i] + kernel[i] + extra[i] for i in range(len(kernel))]
    return (x[0], w[1] * attributes["groups"], *spatial)


def _gemm(inputs: Sequence[Shape], weights: Sequence[Shape], _: Attributes) -> Shape:
    x, w = inputs[0], weights[0]  # (…, k) · (n, k)ᵀ
    if x[-1] != w[1]:
        raise GraphError(f"inner sizes differ, got input {x}, weight {w}")
    return (*x[:-1], w[0])


def _matmul(inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Attributes) -> Shape:
    a, b = [*inputs, *weights][:2]
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise GraphError(f"inner sizes differ, got {a} and {b}")
    return (*_broadcast([a[:-2], b[:-2]], (), attributes), a[-2], b[-1])


def _attention(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    q, k, v = inputs[:3]  # (…, n, d), (…, m, d) or with key_transposed (…, d, m), (…, m, e)
    if attributes.get("key_transposed"):
        k = (*k[:-2], k[-1], k[-2])
    if q[-1] != k[-1] or k[-2] != v[-2]:
        raise GraphError(f"q, k and v disagree, got {q}, {k}, {v}")
    return (*q[:-1], v[-1])


def _pool(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    return _window(inputs[0], inputs[0][1], attributes)


def _global_pool(inputs: Sequence[Shape], _weights: Sequence[Shape], _: Attributes) -> Shape:
    return (*inputs[0][:2], *(1 for _ in inputs[0][2:]))


def _reduce(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    x = inputs[0]
    axes = {axis % len(x) for axis in attributes["axes"]}
    if attributes.get("keepdims", 1):
        return tuple(1 if i in axes else size for i, size in enumerate(x))
    return tuple(size for i, size in enumerate(x) if i not in axes)


def _concat(inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Attributes) -> Shape:
    shapes = [*inputs, *weights]
    axis = attributes["axis"] % len(shapes[0])
    if len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) > 1:
        raise GraphError(f"shapes differ off the axis {axis}, got {shapes}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _transpose(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    x, perm = inputs[0], attributes["perm"]
    if sorted(perm) != list(range(len(x))):
        raise GraphError(f"perm is no permutation, got {perm} for {x}")
    return tuple(x[i] for i in perm)


def _reshape(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    x, shape = inputs[0], tuple(attributes["shape"])
    if prod(x) != prod(shape):
        raise GraphError(f"sizes differ, got {x} -> {shape}")
    return shape


def _constant(_inputs: Sequence[Shape], weights: Sequence[Shape], _: Attributes) -> Shape:
    return weights[0]


def _conv_macs(_inputs: Sequence[Shape], weights: Sequence[Shape], out: Shape, _: Attributes) -> int:
    return prod(out) * prod(weights[0][1:])


def _conv_transpose_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, _: Attributes) -> int:
    return prod(inputs[0]) * prod(weights[0][1:])


def _gemm_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, _: Attributes) -> int:
    return prod(inputs[0]) * weights[0][0]


def _matmul_macs(inputs: Sequence[Shape], _weights: Sequence[Shape], out: Shape, _: Attributes) -> int:
    return prod(out) * inputs[0][-1]


def _attention_macs(inputs: Sequence[Shape], _weights: Sequence[Shape], out: Shape, _: Attributes) -> int:
    q, v = inputs[0], inputs[2]
    return prod(out[:-1]) * v[-2] * (q[-1] + v[-1])


def _einsum_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, attributes: Attributes) -> int:
    """Product of the sizes of all labels, where a label is summed over; a longer chain of operands is outside the convention."""
    left, _, right = str(attributes.get("equation", "")).partition("->")
    terms, shapes = left.split(","), [*inputs, *weights]
    if len(terms) != 2 or len(shapes) != 2 or "." in left:
        return 0
    sizes = {label: size for term, shape in zip(terms, shapes, strict=True) for label, size in zip(term, shape, strict=True)}
    return prod(sizes.values()) if set(sizes) - set(right) else 0


def _lstm_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, _: Attributes) -> int:
    steps = prod(inputs[0][:-1])
    return steps * sum(prod(weight) for weight in weights if weight[-1] != prod(weight) and len(weight) >= 2)


_WINDOW = ("kernel", "stride", "pads")
_SPECS = [
    OpSpec("Conv", "conv", _conv, _conv_macs, (*_WINDOW, "groups")),
    OpSpec("ConvTranspose", "conv", _conv_transpose, _conv_transpose_macs, (*_WINDOW, "groups")),
    OpSpec("Gemm", "matmul", _gemm, _gemm_macs),
    OpSpec("MatMul", "matmul", _matmul, _matmul_macs),
    OpSpec("Einsum", "matmul", None, _einsum_macs),
    OpSpec("Attention", "attention", _attention, _attention_macs),
    *(
        OpSpec(n, "norm", _same)
        for n in (
            "BatchNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "InstanceNormalization",
            "RMSNormalization",
            "LpNormalization",
        )
    ),
    *(
        OpSpec(n, "activation", _same)
        for n in (
            "Relu",
            "Clip",
            "Gelu",
            "Swish",
            "HardSwish",
            "HardSigmoid",
            "Sigmoid",
            "Tanh",
            "Elu",
            "PRelu",
            "LeakyRelu",
            "Mish",
            "Softplus",
            "Selu",
            "Erf",
        )
    ),
    OpSpec("Softmax", "softmax", _same),
    OpSpec("LogSoftmax", "softmax", _same),
    *(
        OpSpec(n, "elementwise", _broadcast)
        for n in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "Where", "Equal", "Less", "Greater", "And", "Or")
    ),
    *(
        OpSpec(n, "elementwise", _same)
        for n in ("Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Not", "Softsign")
    ),
    *(
        OpSpec(n, "reduce", _reduce, None, ("axes",))
        for n in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
    ),
    OpSpec("AveragePool", "pool", _pool, None, _WINDOW),
    OpSpec("MaxPool", "pool", _pool, None, _WINDOW),
    OpSpec("GlobalAveragePool", "pool", _global_pool),
    OpSpec("GlobalMaxPool", "pool", _global_pool),
    OpSpec("Reshape", "layout", _reshape, None, ("shape",)),
    OpSpec("Transpose", "layout", _transpose, None, ("perm",)),
    OpSpec("Concat", "layout", _concat, None, ("axis",)),
    *(OpSpec(n, "layout") for n in ("Split", "Slice", "Pad", "Expand", "Tile", "Gather", "DepthToSpace", "SpaceToDepth", "Cast", "Roll")),
    OpSpec("Identity", "layout", _same),
    OpSpec("Constant", "layout", _constant),
    OpSpec("Resize", "resize"),
    OpSpec("LSTM", "recurrent", None, _lstm_macs),
    OpSpec("QuantizeLinear", "quantize", _same),
    OpSpec("DequantizeLinear", "quantize", _same),
    *(
        OpSpec(n, "exotic")
        for n in (
            "ArgMax",
            "ArgMin",
            "TopK",
            "GatherElements",
            "GatherND",
            "ScatterElements",
            "ScatterND",
            "DFT",
            "GridSample",
            "CumSum",
            "NonMaxSuppression",
            "OneHot",
        )
    ),
]
OPS: Mapping[str, OpSpec] = {spec.name: spec for spec in _SPECS}


def spec_of(op: str) -> OpSpec:
    """Return the specification of an operator; an operator outside the vocabulary gets the category ``unknown``."""
    return OPS.get(op) or OpSpec(op, "unknown")
