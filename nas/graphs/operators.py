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
        priced_as: The better-known operator of its category that does the same kind of work, where it is not itself one that devices were
            timed with: predictors tell operators of one category apart by this name.
    """

    name: str
    category: Category
    infer: Infer | None = None
    macs: Macs | None = None
    required: tuple[str, ...] = ()
    priced_as: str = ""


def _broadcast(inputs: Sequence[Shape], weights: Sequence[Shape], _: Attributes) -> Shape:
    shapes = [*inputs, *weights]
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
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
    extra, dilation = attributes.get("output_padding", (0,) * len(kernel)), attributes.get("dilation", (1,) * len(kernel))
    spatial = [
        (x[2 + i] - 1) * stride[i] - pads[i] - pads[len(kernel) + i] + dilation[i] * (kernel[i] - 1) + 1 + extra[i]
        for i in range(len(kernel))
    ]
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


def _linear_attention_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, attributes: Attributes) -> int:
    """State update k vᵀ of every key-value head and step, and qᵀ S of every query head; (b, t, heads · d) operands."""
    q, _, v = [*inputs, *weights][:3]
    heads, shared = int(attributes["q_heads"]), int(attributes["kv_heads"])
    return prod(q[:-1]) * (q[-1] // heads) * (v[-1] // shared) * (shared + heads)


def einsum_terms(equation: str, shapes: Sequence[Shape]) -> tuple[list[list[str]], list[str], dict[str, int]]:
    """Return the labels of every operand, those of the result, and their sizes; an ellipsis is spelled out.

    Raises:
        GraphError: The equation and the shapes disagree.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise GraphError(f"the equation has other operands, got {equation!r} for {len(shapes)}")
    labelled, sizes, widest = [], dict[str, int](), 0
    for term, shape in zip(terms, shapes, strict=True):
        open_rank = len(shape) - len(term.replace("...", ""))
        if open_rank < 0 or (open_rank and "..." not in term):
            raise GraphError(f"the equation does not fit its operands, got {equation!r} for {shape}")
        widest = max(widest, open_rank if "..." in term else 0)
        before, _, after = term.partition("...")
        labels = [*before, *(f"...{i}" for i in range(open_rank, 0, -1) if "..." in term), *after]
        labelled.append(labels)
        for label, size in zip(labels, shape, strict=True):
            if size != 1 and sizes.get(label, 1) not in (1, size):
                raise GraphError(f"the equation does not fit its operands, got {equation!r} with {label!r} of {sizes[label]} and {size}")
            sizes[label] = max(size, sizes.get(label, 1))
    batch = [f"...{i}" for i in range(widest, 0, -1)]
    if not arrow:
        seen = [label for labels in labelled for label in labels if not label.startswith("...")]
        result = [*batch, *sorted(label for label in set(seen) if seen.count(label) == 1)]
    else:
        before, dots, after = right.partition("...")
        result = [*before, *(batch if dots else ()), *after]
    if foreign := [label for label in result if label not in sizes]:
        raise GraphError(f"the equation makes a label that it does not read, got {foreign[0]!r} in {equation!r}")
    return labelled, result, sizes


def _einsum(inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Attributes) -> Shape:
    _, result, sizes = einsum_terms(str(attributes["equation"]), [*inputs, *weights])
    return tuple(sizes[label] for label in result)


def _einsum_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, attributes: Attributes) -> int:
    """Pairs from left to right, as PyTorch and ONNX Runtime contract them; a label of one operand alone is summed beforehand, for free.

    A pair costs the product of the sizes of its labels where one of them is summed over, else it is elementwise and costs none.
    """
    labelled, result, sizes = einsum_terms(str(attributes["equation"]), [*inputs, *weights])
    total, left = 0, set(labelled[0])
    for i, right in enumerate(map(set, labelled[1:]), 1):
        later = {*result, *(label for labels in labelled[i + 1 :] for label in labels)}
        left, right = left & (right | later), right & (left | later)
        if (left | right) - later:
            total += prod(sizes[label] for label in left | right)
        left = (left | right) & later
    return total


def _recurrent_macs(inputs: Sequence[Shape], weights: Sequence[Shape], _out: Shape, attributes: Attributes) -> int:
    """Every matrix once a step and sample: those among the weights, and of the inputs the ``computed_weights`` behind the first."""
    steps, computed = prod(inputs[0][:-1]), inputs[1 : 1 + attributes.get("computed_weights", 0)]
    return steps * sum(prod(weight) for weight in [*computed, *weights] if weight[-1:] != (prod(weight),) and len(weight) >= 2)


def _dynamic_conv_macs(inputs: Sequence[Shape], weights: Sequence[Shape], out: Shape, _: Attributes) -> int:
    return prod(out) * prod([*inputs, *weights][1][1:])


def _loss(inputs: Sequence[Shape], _weights: Sequence[Shape], attributes: Attributes) -> Shape:
    return (inputs[0][0], *inputs[0][2:]) if attributes.get("reduction") == "none" else ()


_WINDOW = ("kernel", "stride", "pads")
_SPECS = [
    OpSpec("Conv", "conv", _conv, _conv_macs, (*_WINDOW, "groups")),
    OpSpec("ConvTranspose", "conv", _conv_transpose, _conv_transpose_macs, (*_WINDOW, "groups")),
    OpSpec("Gemm", "matmul", _gemm, _gemm_macs),
    OpSpec("MatMul", "matmul", _matmul, _matmul_macs),
    OpSpec("Einsum", "matmul", _einsum, _einsum_macs, ("equation",)),
    OpSpec("LinearAttention", "attention", None, _linear_attention_macs, ("q_heads", "kv_heads")),
    OpSpec("DynamicConv", "exotic", None, _dynamic_conv_macs),
    OpSpec("DeformConv", "exotic", None, _dynamic_conv_macs),
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
    OpSpec("MeanVarianceNormalization", "norm", _same, priced_as="InstanceNormalization"),
    OpSpec("LRN", "norm", _same, priced_as="GroupNormalization"),
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
    *(
        OpSpec(n, "activation", _same, priced_as=like)
        for n, like in (("Celu", "Elu"), ("ThresholdedRelu", "Relu"), ("Shrink", "LeakyRelu"))
    ),
    OpSpec("Softmax", "softmax", _same),
    OpSpec("Hardmax", "softmax", _same, priced_as="Softmax"),
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
        OpSpec(n, "elementwise", _same, priced_as="Sin")
        for n in ("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Bernoulli", "Dropout")
    ),
    *(OpSpec(n, "elementwise", _same, priced_as="Not") for n in ("BitwiseNot", "IsInf", "IsNaN")),
    *(OpSpec(n, "elementwise", _broadcast, priced_as="And") for n in ("Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift")),
    OpSpec("SwiGLU", "elementwise", _same, priced_as="Mul"),
    OpSpec("RotaryEmbedding", "elementwise", _same, priced_as="Mul"),
    OpSpec("Trilu", "elementwise", _same, priced_as="Where"),
    *(
        OpSpec(n, "reduce", _reduce, None, ("axes",), like)
        for n, like in (
            ("ReduceL1", "ReduceSum"),
            ("ReduceSumSquare", "ReduceL2"),
            ("ReduceLogSum", "ReduceSum"),
            ("ReduceLogSumExp", "ReduceSum"),
        )
    ),
    *(
        OpSpec(n, "reduce", _reduce, None, ("axes",))
        for n in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
    ),
    OpSpec("AveragePool", "pool", _pool, None, _WINDOW),
    OpSpec("MaxPool", "pool", _pool, None, _WINDOW),
    OpSpec("GlobalAveragePool", "pool", _global_pool),
    OpSpec("GlobalMaxPool", "pool", _global_pool),
    OpSpec("LpPool", "pool", _pool, None, _WINDOW, "AveragePool"),
    OpSpec("GlobalLpPool", "pool", _global_pool, priced_as="GlobalAveragePool"),
    OpSpec("Reshape", "layout", _reshape, None, ("shape",)),
    OpSpec("Transpose", "layout", _transpose, None, ("perm",)),
    OpSpec("Concat", "layout", _concat, None, ("axis",)),
    *(OpSpec(n, "layout") for n in ("Split", "Slice", "Pad", "Expand", "Tile", "Gather", "DepthToSpace", "SpaceToDepth", "Cast", "Roll")),
    OpSpec("ReverseSequence", "layout", _same, priced_as="Gather"),
    OpSpec("CenterCropPad", "layout", priced_as="Pad"),
    OpSpec("TensorScatter", "layout", _same, priced_as="Concat"),
    OpSpec("Identity", "layout", _same),
    OpSpec("Constant", "layout", _constant),
    OpSpec("Resize", "resize"),
    *(OpSpec(n, "recurrent", None, _recurrent_macs) for n in ("LSTM", "GRU", "RNN")),
    OpSpec("QuantizeLinear", "quantize", _same),
    OpSpec("DequantizeLinear", "quantize", _same),
    OpSpec("DynamicQuantizeLinear", "quantize", _same, priced_as="QuantizeLinear"),
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
            "OneHot",
            "AffineGrid",
            "Col2Im",
            "CumProd",
            "Det",
            "MaxRoiPool",
            "MaxUnpool",
            "RoiAlign",
            "STFT",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "EyeLike",
            "Range",
            "RegexFullMatch",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "TfIdfVectorizer",
            "MelWeightMatrix",
            "BlackmanWindow",
            "HammingWindow",
            "HannWindow",
            "ConstantOfShape",
        )
    ),
    *(OpSpec(n, "exotic", _loss) for n in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")),
]
OPS: Mapping[str, OpSpec] = {spec.name: spec for spec in _SPECS}


WRITTEN_OUT: Mapping[str, str] = {
    "Sum": "additions",
    "Mean": "additions and a scale",
    "GreaterOrEqual": "Greater",
    "LessOrEqual": "Less",
    "Flatten": "Reshape",
    "Squeeze": "Reshape",
    "Unsqueeze": "Reshape",
    "CastLike": "Cast",
    "BitCast": "Cast",
    "Upsample": "Resize",
    "Scatter": "ScatterElements",
    "ConvInteger": "Conv at eight bits",
    "QLinearConv": "Conv at eight bits",
    "MatMulInteger": "MatMul or Gemm at eight bits",
    "QLinearMatMul": "MatMul or Gemm at eight bits",
    "CausalConvWithState": "Concat and a depthwise Conv",
    "Shape": "a constant",
    "Size": "a constant",
    "If": "the branch that a constant chooses, else the dearer one",
    "Loop": "its body as often as it runs",
    "Scan": "its body as often as it runs",
    "SequenceMap": "its body for every item",
    **dict.fromkeys(("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"), "its items"),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), "what it holds"),
    "ConcatFromSequence": "Concat",
    "SplitToSequence": "Split",
}
"""What a frontend writes for operators of ONNX that need no name of their own here."""

DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress", "ImageDecoder"})
"""Operators whose sizes depend on numbers: a graph ends before them, and says so."""


def spec_of(op: str) -> OpSpec:
    """Return the specification of an operator; an operator outside the vocabulary gets the category ``unknown``."""
    return OPS.get(op) or OpSpec(op, "unknown")
