"""What each operator of TensorFlow Lite is in the vocabulary."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nas.errors import GraphError
from nas.graphs.frontends.tflite_reader.reader import ACTIVATIONS, TO_NCHW, Call, Constant, Tensor, handles
from nas.graphs.graph import Attributes, Value
from nas.graphs.operators import Shape

_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # of a picture, channels-last -> channels-first
_UNARY: dict[str, tuple[str, dict[str, float]]] = {
    **ACTIVATIONS,
    "RELU_0_TO_1": ("Clip", {"min": 0.0, "max": 1.0}),
    "LOGISTIC": ("Sigmoid", {}),
    "HARD_SWISH": ("HardSwish", {}),
    "GELU": ("Gelu", {}),
    "ELU": ("Elu", {}),
    "LEAKY_RELU": ("LeakyRelu", {}),
    **{name: (name.title(), {}) for name in ("ABS", "EXP", "LOG", "SQRT", "NEG", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN")},
    "RSQRT": ("Pow", {"scalar": -0.5}),
    "SQUARE": ("Pow", {"scalar": 2.0}),
    "LOGICAL_NOT": ("Not", {}),
    "L2_NORMALIZATION": ("LpNormalization", {}),
    "LOCAL_RESPONSE_NORMALIZATION": ("LRN", {}),
}
_BINARY = {
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "DIV": "Div",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "POW": "Pow",
    "FLOOR_DIV": "Div",
    "FLOOR_MOD": "Mod",
    "EQUAL": "Equal",
    "NOT_EQUAL": "Equal",
    "LESS": "Less",
    "LESS_EQUAL": "Less",
    "GREATER": "Greater",
    "GREATER_EQUAL": "Greater",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
}
_REDUCTIONS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
    "REDUCE_ANY": "ReduceMax",
    "REDUCE_ALL": "ReduceMin",
}


@handles("*")
def generic(call: Call) -> None:
    """An operator outside the vocabulary keeps its name."""
    reader = call.reader
    operands = [call.flat(i) for i, ref in enumerate(call.inputs) if isinstance(ref, Tensor)]
    made = [(call.shape(i), call.dtype(i)) for i in range(len(call.outputs))]
    name = call.name if "." in call.name else f"tflite.{call.name}"
    for index, value in zip(call.outputs, reader.emit_many(call.label, name, operands, made, {}), strict=True):
        reader.refs[index] = Tensor(value)


@handles("QUANTIZE", "DEQUANTIZE", "CAST")
def _convert(call: Call) -> None:
    """Between floats and the integers that stand for them: part of what reads or makes them. Other casts are operators."""
    ref = call.optional(0)
    assert isinstance(ref, Tensor)
    dtype = call.dtype()
    if call.name != "CAST" and ref.value.dtype == dtype == "fp32":
        call.reader.refs[call.outputs[0]] = ref
        return
    shape = ref.value.shape
    made = call.reader.emit(call.label, "Cast" if call.name == "CAST" else "DequantizeLinear", [ref.value], shape, dtype, {"to": dtype})
    call.reader.refs[call.outputs[0]] = Tensor(made, ref.picture)


def _window(call: Call, options: Any, x: Shape, kernel: Shape, dilated: bool = True) -> Attributes:
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor()) if dilated else (1, 1)
    if min(*stride, *dilation, *kernel) < 1:
        raise ValueError(f"a window of kernel {kernel}, strides {stride}, dilations {dilation}")
    pads = (0, 0, 0, 0)
    if options.Padding() == call.reader.schema.Padding.SAME:
        total = [max(0, (-(-x[2 + i] // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[2 + i]) for i in (0, 1)]
        pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "pads": pads}


def _matrix(call: Call, index: int) -> Constant:
    ref = call.optional(index)
    if not isinstance(ref, Constant):
        raise GraphError("weights that are computed. Do this: convert the model with constant weights")
    return ref


@handles("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(call: Call) -> None:
    x, w, depthwise = call.picture(0), _matrix(call, 1), call.name != "CONV_2D"
    options = call.options("DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    if depthwise:
        _, high, wide, out = w.shape
        shape, groups = (out, 1, high, wide), x.shape[1]
    else:
        out, high, wide, inner = w.shape
        shape, groups = (out, inner, high, wide), x.shape[1] // inner
    weight = Constant(shape, w.dtype, w.buffer)
    attributes = _window(call, options, x.shape, (high, wide)) | {"groups": groups}
    call.make("Conv", [x, weight, *call.bias(2)], attributes, picture=True, activation=options.FusedActivationFunction())


@handles("TRANSPOSE_CONV")
def _transposed(call: Call) -> None:
    x, w, options = call.picture(2), _matrix(call, 1), call.options("TransposeConvOptions")
    out, high, wide, inner = w.shape
    stride, kernel, shape = (options.StrideH(), options.StrideW()), (high, wide), call.shape()
    total = [(x.shape[2 + i] - 1) * stride[i] + kernel[i] - shape[1 + i] for i in (0, 1)]
    cut = [max(0, t) for t in total]
    attributes = {
        "kernel": kernel,
        "stride": stride,
        "pads": (cut[0] // 2, cut[1] // 2, cut[0] - cut[0] // 2, cut[1] - cut[1] // 2),
        "output_padding": tuple(max(0, -t) for t in total),
        "groups": 1,
    }
    weight = Constant((inner, out, high, wide), w.dtype, w.buffer)
    call.make("ConvTranspose", [x, weight, *call.bias(3)], attributes, picture=True, activation=options.FusedActivationFunction())


@handles("FULLY_CONNECTED")
def _dense(call: Call) -> None:
    options, w = call.options("FullyConnectedOptions"), call.optional(1)
    x, reader = call.flat(0), call.reader
    inner, shape = w.shape[1], call.shape()
    rows = (prod(x.shape) // inner, inner) if not options.KeepNumDims() else (*x.shape[:-1], inner)
    if x.shape != rows:
        x = reader.emit(f"{call.label}.rows", "Reshape", [x], rows, x.dtype, {"shape": rows})
    made = (*rows[:-1], w.shape[0])
    if isinstance(w, Constant):
        operands: list[Value | Constant] = [x, w, *call.bias(2)]
        op = "Gemm"
    else:
        turned = reader.emit(f"{call.label}.turned", "Transpose", [call.flat(1)], w.shape[::-1], x.dtype, {"perm": (1, 0)})
        operands, op = [x, turned], "MatMul"
    if made == shape:
        call.make(op, operands, {}, picture=False, activation=options.FusedActivationFunction())
        return
    product = reader.emit(f"{call.label}.product", op, operands, made, call.dtype(), {})
    call.make("Reshape", [product], {"shape": shape}, picture=False, activation=options.FusedActivationFunction())


@handles("BATCH_MATMUL")
def _product(call: Call) -> None:
    options, reader = call.options("BatchMatMulOptions"), call.reader
    a, b = call.flat(0), call.optional(1)
    if options.AdjX():
        a = _swapped(call, a)
    if isinstance(b, Constant) and len(b.shape) == 2:
        weight = b if options.AdjY() else Constant(b.shape[::-1], b.dtype, b.buffer)
        call.make("Gemm", [a, weight], {}, picture=False)
        return
    right = call.flat(1)
    call.make("MatMul", [a, _swapped(call, right) if options.AdjY() else right], {}, picture=False)
    del reader


def _swapped(call: Call, x: Value) -> Value:
    rank = len(x.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return call.reader.emit(f"{call.label}.turned", "Transpose", [x], [x.shape[i] for i in perm], x.dtype, {"perm": perm})


@handles("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def _pool(call: Call) -> None:
    x, options = call.picture(0), call.options("Pool2DOptions")
    attributes = _window(call, options, x.shape, (options.FilterHeight(), options.FilterWidth()), dilated=False)
    del attributes["dilation"]
    op = {"AVERAGE_POOL_2D": "AveragePool", "MAX_POOL_2D": "MaxPool"}.get(call.name, "LpPool")
    call.make(op, [x], attributes, picture=True, activation=options.FusedActivationFunction())


@handles(*_UNARY, "PRELU")
def _unary(call: Call) -> None:
    op, attributes = _UNARY.get(call.name, ("PRelu", {}))
    ref = call.optional(0)
    assert isinstance(ref, Tensor)
    slopes = [_channels_first(s, ref) for s in call.bias(1)] if call.name == "PRELU" else []
    call.make(op, [ref.value, *slopes], attributes, picture=ref.picture)


def _channels_first(constant: Constant, beside: Tensor) -> Constant:
    """Return a constant in the order of axes of the value that it is combined with."""
    if not beside.picture or not constant.shape:
        return constant
    shape = (*(1 for _ in range(4 - len(constant.shape))), *constant.shape)
    return Constant(tuple(shape[i] for i in TO_NCHW), constant.dtype, constant.buffer, None)


@handles(*_BINARY, "SQUARED_DIFFERENCE")
def _binary(call: Call) -> None:
    reader, picture = call.reader, call.is_picture(0, 1) and len(call.shape()) == 4
    operands: list[Value | Constant] = []
    attributes: Attributes = {}
    for i in (0, 1):
        ref = call.optional(i)
        if isinstance(ref, Tensor):
            operands.append(ref.value if picture else call.flat(i))
        elif prod(ref.shape) == 1 and len(ref.shape) <= len(call.shape()):
            if i == 0 and call.name in ("SUB", "DIV", "POW"):
                attributes["reversed"] = 1
            if ref.array is not None and ref.array.dtype.kind == "f":
                attributes["scalar"] = float(ref.array.reshape(-1)[0])
        elif picture:
            operands.append(_channels_first(ref, Tensor(Value("", (1, 1, 1, 1)), True)))
        else:
            operands.append(ref)
    if call.name == "SQUARED_DIFFERENCE":
        shape = call.shape()
        shape = tuple(shape[i] for i in TO_NCHW) if picture else shape
        difference = reader.emit(f"{call.label}.difference", "Sub", operands, shape, call.dtype(), attributes)
        call.make("Pow", [difference], {"scalar": 2.0}, picture=picture)
        return
    fused = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(call.name)
    activation = call.options(fused).FusedActivationFunction() if fused and call.op.BuiltinOptions() is not None else 0
    call.make(_BINARY[call.name], operands, attributes, picture=picture, activation=activation)


@handles("SOFTMAX", "LOG_SOFTMAX")
def _softmax(call: Call) -> None:
    ref = call.optional(0)
    assert isinstance(ref, Tensor)
    axis = 1 if ref.picture else -1
    call.make("Softmax" if call.name == "SOFTMAX" else "LogSoftmax", [ref.value], {"axis": axis}, picture=ref.picture)


@handles(*_REDUCTIONS)
def _reduction(call: Call) -> None:
    ref, axes, keep = call.optional(0), call.numbers(1), bool(call.options("ReducerOptions").KeepDims())
    assert isinstance(ref, Tensor)
    rank = len(ref.shape)
    axes = tuple(sorted({axis % rank for axis in axes}))
    picture = ref.picture and (keep or axes in ((1, 2), (0, 1, 2)))
    value = ref.value if picture else call.flat(0)
    places = tuple(sorted(_AXIS[axis] for axis in axes)) if picture else axes
    call.make(_REDUCTIONS[call.name], [value], {"axes": places, "keepdims": int(keep)}, picture=picture and keep)


@handles("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(call: Call) -> None:
    x = call.flat(0)
    if call.shape() == x.shape:
        call.reader.refs[call.outputs[0]] = Tensor(x)
    else:
        call.make("Reshape", [x], {"shape": call.shape()}, picture=False)


@handles("TRANSPOSE")
def _transpose(call: Call) -> None:
    call.make("Transpose", [call.flat(0)], {"perm": call.numbers(1)}, picture=False)


@handles("CONCATENATION")
def _concatenation(call: Call) -> None:
    options, indices = call.options("ConcatenationOptions"), range(len(call.inputs))
    picture = call.is_picture(*indices) and len(call.shape()) == 4 and not any(isinstance(ref, Constant) for ref in call.inputs)
    axis = options.Axis() % len(call.shape())
    parts: list[Value | Constant] = [call.picture(i) if picture else call.flat(i) for i in indices]
    call.make("Concat", parts, {"axis": _AXIS[axis] if picture else axis}, picture=picture, activation=options.FusedActivationFunction())


@handles("PACK")
def _pack(call: Call) -> None:
    shape, axis = call.shape(), call.options("PackOptions").Axis() % len(call.shape())
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [
        call.reader.emit(f"{call.label}.part", "Reshape", [x], single, x.dtype, {"shape": single})
        for x in (call.flat(i) for i in range(len(call.inputs)))
    ]
    if len(parts) == 1:
        call.reader.refs[call.outputs[0]] = Tensor(parts[0])
    else:
        call.make("Concat", parts, {"axis": axis}, picture=False)


@handles("UNPACK", "SPLIT", "SPLIT_V")
def _split(call: Call) -> None:
    reader, place = call.reader, 1 if call.name == "SPLIT" else 0
    ref = call.optional(place)
    assert isinstance(ref, Tensor)
    axis = call.options("UnpackOptions").Axis() if call.name == "UNPACK" else call.numbers({"SPLIT": 0, "SPLIT_V": 2}[call.name])[0]
    axis %= len(ref.shape)
    picture = ref.picture and call.name != "UNPACK"
    x = ref.value if picture else call.flat(place)
    at = _AXIS[axis] if picture else axis
    sizes = [1 if call.name == "UNPACK" else call.shape(i)[axis] for i in range(len(call.outputs))]
    made = [((*x.shape[:at], size, *x.shape[at + 1 :]), x.dtype) for size in sizes]
    if sum(sizes) != x.shape[at]:
        raise ValueError(f"parts of {sizes} of an axis of {x.shape[at]}")
    values = reader.emit_many(call.label, "Split", [x], made, {"axis": at, "sizes": tuple(sizes)})
    for i, (index, value) in enumerate(zip(call.outputs, values, strict=True)):
        if call.name == "UNPACK":
            shape = call.shape(i)
            value = reader.emit(f"{call.label}.part", "Reshape", [value], shape, value.dtype, {"shape": shape})
        reader.refs[index] = Tensor(value, picture)


@handles("SLICE", "STRIDED_SLICE", "PAD", "PADV2", "MIRROR_PAD", "TILE", "BROADCAST_TO")
def _move(call: Call) -> None:
    """What takes a part of a tensor, or puts it into a larger one; its cost follows from the sizes."""
    ref, shape = call.optional(0), call.shape()
    assert isinstance(ref, Tensor)
    picture = ref.picture and len(shape) == 4
    x = ref.value if picture else call.flat(0)
    out = tuple(shape[i] for i in TO_NCHW) if picture else shape
    if out == x.shape:
        call.reader.refs[call.outputs[0]] = Tensor(x, picture)
    elif "PAD" in call.name:
        flat = call.numbers(1)
        pairs = [(flat[2 * i], flat[2 * i + 1]) for i in range(len(shape))]
        pairs = [pairs[i] for i in TO_NCHW] if picture else pairs
        pads = (*(before for before, _ in pairs), *(after for _, after in pairs))
        mode = {"MIRROR_PAD": "reflect", "PADV2": "value"}.get(call.name)
        call.make("Pad", [x], {"pads": pads, "mode": mode}, picture=picture)
    elif call.name == "TILE":
        call.make("Tile", [x], {"repeats": tuple(o // i for o, i in zip(out, x.shape, strict=True))}, picture=picture)
    elif call.name == "BROADCAST_TO":
        call.make("Expand", [x], {"shape": out}, picture=picture)
    elif len(out) == len(x.shape):
        axes = tuple(i for i, size in enumerate(out) if size != x.shape[i])
        call.make("Slice", [x], {"axes": axes}, picture=picture)
    else:  # a slice that drops axes
        call.make("Slice", [call.flat(0)], {"axes": tuple(range(len(ref.shape)))}, picture=False)


@handles("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP")
def _gather(call: Call) -> None:
    table, index = (1, 0) if call.name == "EMBEDDING_LOOKUP" else (0, 1)
    operands: list[Value | Constant] = []
    for i in (table, index):
        ref = call.optional(i)
        operands.append(call.flat(i) if isinstance(ref, Tensor) else ref)
    axis = call.options("GatherOptions").Axis() if call.name == "GATHER" else 0
    call.make("GatherND" if call.name == "GATHER_ND" else "Gather", operands, {"axis": axis}, picture=False)


@handles("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def _resize(call: Call) -> None:
    op = {"DEPTH_TO_SPACE": "DepthToSpace", "SPACE_TO_DEPTH": "SpaceToDepth"}.get(call.name, "Resize")
    mode = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}.get(call.name)
    call.make(op, [call.picture(0)], {"mode": mode}, picture=True)


@handles("ARG_MAX", "ARG_MIN", "CUMSUM", "ONE_HOT", "SELECT", "SELECT_V2", "ADD_N")
def _plain(call: Call) -> None:
    op = {"ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin", "CUMSUM": "CumSum", "ONE_HOT": "OneHot", "ADD_N": "Sum"}.get(call.name, "Where")
    values = [call.flat(i) for i, ref in enumerate(call.inputs) if isinstance(ref, Tensor)]
    if op == "Sum":
        total = values[0]
        for value in values[1:]:
            total = call.reader.emit(f"{call.label}.sum", "Add", [total, value], call.shape(), call.dtype(), {})
        call.reader.refs[call.outputs[0]] = Tensor(total)
        return
    call.make(op, values, {}, picture=False)


@handles("TOPK_V2")
def _top(call: Call) -> None:
    made = [(call.shape(i), call.dtype(i)) for i in range(len(call.outputs))]
    for index, value in zip(call.outputs, call.reader.emit_many(call.label, "TopK", [call.flat(0)], made, {}), strict=True):
        call.reader.refs[index] = Tensor(value)


@handles("SHAPE", "RANK", "ZEROS_LIKE")
def _known(call: Call) -> None:
    ref, shape = call.optional(0), call.shape()
    array = np.array(ref.shape if call.name == "SHAPE" else len(ref.shape), dtype=np.int64) if call.name != "ZEROS_LIKE" else None
    call.reader.refs[call.outputs[0]] = Constant(shape, call.dtype(), -1, array)
