"""Norms, activations, elementwise operators, reductions, pools and layout operators of ONNX."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nas.graphs.frontends.onnx_reader.products import as_value, window_of
from nas.graphs.frontends.onnx_reader.refs import (
    DTYPES,
    FLOATS,
    QUANTISED,
    Call,
    Constant,
    Handler,
    Tensor,
    handles,
)
from nas.graphs.frontends.text import plain
from nas.graphs.graph import Attributes, Value, Weight
from nas.graphs.operators import OPS, Shape


@handles("*")
def _generic(call: Call) -> None:
    """An operator as it is; one of another domain keeps the domain in its name."""
    main = call.node.domain in ("", "ai.onnx")
    attributes = {key: value for key, value in call.attributes.items() if isinstance(value, int | float | str)}
    name = plain(call.op if main else f"{call.node.domain}.{call.op}")
    if name in OPS and OPS[name].infer is not None and call.tensors and not isinstance(call.tensors[0], Value):
        call.emit(name, [as_value(call, call.tensors[0]), *call.tensors[1:]], attributes)
        return
    call.emit(name, call.tensors, attributes)


@handles("Constant")
def _constant(call: Call) -> None:
    if len(call.attributes) != 1:
        raise ValueError(f"a constant of {len(call.attributes)} values")
    ((name, value),) = call.attributes.items()
    import numpy as np
    import onnx

    reader, out = call.reader, call.outputs[0]
    match name:
        case "value":
            ref = reader.constant(value, out)
        case "sparse_value":
            ref = Constant(tuple(value.dims), reader.dtype(value.values.data_type, out), (out,))
        case "value_float" | "value_floats":
            array = np.asarray(value, dtype=np.float32)
            ref = Constant(array.shape, "fp32", (out,), array)
        case "value_int" | "value_ints":
            array = np.asarray(value, dtype=np.int64)
            ref = Constant(array.shape, "int64", (out,), array)
        case "value_string" | "value_strings":
            ref = Constant(() if name == "value_string" else (len(value),), "string", (out,))
        case _:
            raise KeyError(f"no value but {name}")
    if isinstance(value, onnx.TensorProto):
        reader.resize(out, prod(value.dims))
    reader.bind(out, ref)


@handles("Identity")
def _identity(call: Call) -> None:
    ref = call.operands[0]
    if ref is None:
        raise IndexError("the operand is left out")
    call.alias(ref, bits=call.reader.bits_of(call.inputs[0]))


@handles("Dropout", "com.microsoft.BiasDropout")
def _dropout(call: Call) -> None:
    """Nothing at run time; in training mode, which a constant operand sets, it draws numbers."""
    training = call.array(2) if call.op == "Dropout" else None
    if training is not None and bool(training.reshape(-1)[0]):
        call.emit("Dropout", call.tensors[:1])
        return
    call.alias(call.tensor(0), bits=call.reader.bits_of(call.inputs[0]))
    if len(call.outputs) > 1 and call.outputs[1]:
        call.alias(Constant(call.tensor(0).shape, "bool"), 1)


@handles("QuantizeLinear", "com.microsoft.QuantizeLinear")
def _quantise(call: Call) -> None:
    zero = call.operands[2] if len(call.operands) > 2 else None
    kind = DTYPES.get(call.attributes.get("output_dtype", 0), "") or (zero.dtype if isinstance(zero, Constant | Value) else "uint8")
    call.alias(as_value(call, call.tensor(0)), bits=16 if kind in {"int16", "uint16"} else 8)


@handles("DequantizeLinear", "com.microsoft.DequantizeLinear")
def _dequantise(call: Call) -> None:
    """Back to floats: what was quantised before is known by its floats already; an input of integers is converted."""
    x = call.tensor(0)
    if isinstance(x, Constant):
        call.reader.take_packed(x)
        call.alias(x)
    elif x.dtype in FLOATS:
        call.alias(x, bits=call.reader.bits_of(call.inputs[0]))
    else:
        call.bits = 16 if x.dtype in {"int16", "uint16"} else 8 if x.dtype in QUANTISED else 0
        call.emit("DequantizeLinear", [x], shape=x.shape, dtype="fp32")


@handles("DynamicQuantizeLinear")
def _dynamic(call: Call) -> None:
    call.reader.types[call.outputs[0]] = (call.tensor(0).shape, "uint8")
    for name, dtype in zip(call.outputs[1:], ("fp32", "uint8"), strict=False):
        if name:
            call.reader.types[name] = ((), dtype)
    call.bits = 0
    call.emit("DynamicQuantizeLinear", call.tensors[:1])


# --- norms and activations ----------------------------------------------------------------------------------------------


@handles("BatchNormalization")
def _batch_norm(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    operands = [call.tensor(i) for i in range(1, 5)]
    call.emit("BatchNormalization", [x, *operands], {"epsilon": call.attributes.get("epsilon", 1e-5)}, outputs=call.outputs[:1])
    made = call.reader.operators[-1]
    if len(made.weights) == 4:
        statistics = tuple(Weight(w.shape, w.dtype, False) for w in made.weights[2:])
        call.reader.operators[-1] = replace(made, weights=made.weights[:2] + statistics)
    for name, ref in zip(call.outputs[1:], operands[2:], strict=False):  # running statistics of training mode
        call.reader.bind(name, ref)


@handles("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft.SimplifiedLayerNormalization")
def _layer_norm(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    rank = len(x.shape)
    axis = call.axis(-1, rank)
    op = "LayerNormalization" if call.op == "LayerNormalization" else "RMSNormalization"
    operands = [x, *call.tensors[1:]]
    names = [name for i, name in enumerate(call.outputs) if name or i == 0]
    for name in names[1:]:  # mean and spread of training mode
        call.reader.types[name] = ((*x.shape[:axis], *(1 for _ in x.shape[axis:])), "fp32")
    call.emit(op, operands, {"axis": axis - rank, "epsilon": call.attributes.get("epsilon", 1e-5)}, outputs=names)


@handles("GroupNormalization")
def _group_norm(call: Call) -> None:
    call.emit("GroupNormalization", [as_value(call, call.tensor(0)), *call.tensors[1:]], {"groups": call.attributes["num_groups"]})


@handles("Clip")
def _clip(call: Call) -> None:
    bounds = {}
    for i, key in enumerate(("min", "max"), 1):
        ref = call.operands[i] if i < len(call.operands) else None
        bounds[key] = call.attributes.get(key, ref.scalar if isinstance(ref, Constant) else None)
    call.emit("Clip", [as_value(call, call.tensor(0))], bounds)


@handles("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> None:
    call.emit(call.op, [as_value(call, call.tensor(0))], {"axis": call.attributes.get("axis", -1 if call.reader.opset >= 13 else 1)})


@handles("SwiGLU")
def _gated(call: Call) -> None:
    call.emit("SwiGLU", [as_value(call, call.tensor(0)), call.tensor(1)])


@handles("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def _rotary(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    call.emit("RotaryEmbedding", [x, *(ref for ref in call.tensors[1:] if isinstance(ref, Value))], shape=x.shape)


# --- elementwise ---------------------------------------------------------------------------------------------------------

_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor")
_BITS = ("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
_REVERSED = {"Sub", "Div", "Pow", "Less", "Greater"}


@handles(*_BINARY, *_BITS)
def _binary(call: Call) -> None:
    write_binary(call, call.op.removesuffix("OrEqual"), _at_axis(call), call.outputs)


def _at_axis(call: Call) -> list[Tensor]:
    """Operands; the second one of operator sets before 7 stands at an axis of the first."""
    operands = call.tensors
    if call.reader.opset < 7 and "axis" in call.attributes and len(operands) == 2:
        rank, narrow = len(operands[0].shape), operands[1]
        behind = rank - call.axis(0, rank) - len(narrow.shape)
        if behind > 0:
            operands = [operands[0], call.reshape(narrow, (*narrow.shape, *(1 for _ in range(behind))))]
    return operands


def write_binary(call: Call, op: str, operands: list[Tensor], outputs: tuple[str, ...] | list[str], dtype: str | None = None) -> Value:
    """Write an operator of two operands; a constant scalar among them becomes an attribute."""
    attributes: Attributes = {}
    constant = next((i for i, ref in enumerate(operands) if isinstance(ref, Constant)), None)
    ref = operands[constant] if constant is not None else None
    if isinstance(ref, Constant) and len(operands) == 2:
        if constant == 0 and op in _REVERSED:
            attributes["reversed"] = 1
        other = operands[1 - (constant or 0)]
        if ref.scalar is not None and len(ref.shape) <= len(other.shape):
            attributes["scalar"] = ref.scalar
            operands = [other]
    return call.emit(op, operands, attributes, outputs=outputs, dtype=dtype)[0]


@handles("Sum", "Mean", "Max", "Min")
def _variadic(call: Call) -> None:
    """A chain of operators of two operands, as a runtime adds up; a mean ends with a scale."""
    op, operands = ("Add" if call.op in ("Sum", "Mean") else call.op), call.tensors
    if len(operands) == 1:
        call.alias(operands[0], bits=call.reader.bits_of(call.inputs[0]))
        return
    operands.sort(key=lambda ref: isinstance(ref, Constant))
    total: Tensor = operands[0]
    for i, ref in enumerate(operands[1:], 2):
        last = i == len(operands) and call.op != "Mean"
        total = write_binary(call, op, [total, ref], call.outputs if last else [f"{call.outputs[0]}.{i}"])
    if call.op == "Mean":
        call.emit("Mul", [total], {"scalar": 1 / len(operands)})


@handles("Where")
def _where(call: Call) -> None:
    call.emit("Where", call.tensors)


@handles("PRelu")
def _prelu(call: Call) -> None:
    call.emit("PRelu", [as_value(call, call.tensor(0)), *call.tensors[1:]])


# --- reductions and pools ------------------------------------------------------------------------------------------------


def _axes_between(before: Shape, after: Shape, keeps_dims: bool) -> Shape:
    """Return the axes along which a tensor of one shape is reduced to another, where the file does not fix them."""
    if keeps_dims:
        return tuple(i for i, size in enumerate(before) if after[i] != size)
    axes, left = [], list(after)
    for i, size in enumerate(before):
        if left and left[0] == size and len(before) - i - 1 >= len(left) - 1:
            left.pop(0)
        else:
            axes.append(i)
    return tuple(axes)


def _reducing(op: str) -> Handler:
    def handler(call: Call) -> None:
        x = as_value(call, call.tensor(0))
        rank, axes = len(x.shape), call.integers(1, "axes")
        if axes is None and call.optional(1) is not None:
            axes = _axes_between(x.shape, call.shape(), bool(call.attributes.get("keepdims", 1)))
        if not axes and call.attributes.get("noop_with_empty_axes"):
            call.emit("Identity", [x])  # of the operators that square or take logarithms as well, next to nothing
            return
        axes = tuple(a % rank for a in axes) if axes else tuple(range(rank))
        call.emit(op, [x], {"axes": axes, "keepdims": int(call.attributes.get("keepdims", 1))})

    return handler


for _name, _spec in OPS.items():
    if _spec.category == "reduce":
        handles(_name)(_reducing(_name))


@handles("AveragePool", "MaxPool", "LpPool")
def _pool(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    window = window_of(call, tuple(call.attributes["kernel_shape"]), x.shape)
    window["dilation"] = window["dilation"] if set(window["dilation"]) != {1} else None
    window["ceil"] = call.attributes.get("ceil_mode") or None
    if len(call.outputs) > 1 and call.outputs[1]:
        call.reader.types.setdefault(call.outputs[1], (call.shape(0), "int64"))
    call.emit(call.op, [x], window)


@handles("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(call: Call) -> None:
    call.emit(call.op, [as_value(call, call.tensor(0))])


# --- layout --------------------------------------------------------------------------------------------------------------


@handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: Call) -> None:
    x = call.tensor(0)
    shape = None
    if call.op == "Reshape" and (target := call.integers(1, "shape")) is not None:
        keep_zero = call.attributes.get("allowzero", 0)
        sizes = [x.shape[i] if s == 0 and not keep_zero else s for i, s in enumerate(target)]
        if -1 in sizes:
            sizes[sizes.index(-1)] = prod(x.shape) // -prod(sizes)
        shape = tuple(sizes)
    shape = call.shape() if shape is None else shape
    if prod(shape) != prod(x.shape) or min(shape, default=1) < 0:
        raise ValueError(f"a tensor of shape {x.shape} does not reshape to {shape}")
    if shape == x.shape or isinstance(x, Constant):
        call.alias(x if isinstance(x, Value) else x.reshaped(shape), bits=call.reader.bits_of(call.inputs[0]))
    else:
        call.emit("Reshape", [x], {"shape": shape})


@handles("Transpose")
def _transpose(call: Call) -> None:
    rank = len(call.tensor(0).shape)
    call.emit("Transpose", call.tensors, {"perm": tuple(call.attributes.get("perm", range(rank)[::-1]))})


@handles("Concat")
def _concat(call: Call) -> None:
    parts = [ref for ref in call.tensors if 0 not in ref.shape or len(call.tensors) == 1]
    axis = call.axis(1 if call.reader.opset < 4 else call.attributes["axis"], len(parts[0].shape))
    if len(parts) == 1:
        call.alias(parts[0])
    else:
        call.emit("Concat", parts, {"axis": axis})


@handles("Split")
def _split(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    axis = call.axis(0, len(x.shape))
    sizes = call.integers(1, "split")
    if sizes is None and call.optional(1) is not None:
        sizes = tuple(call.shape(i)[axis] for i in range(len(call.outputs)))
    if sizes is None:
        count, size = len(call.outputs), x.shape[axis]
        part = -(-size // count)
        sizes = (*(part for _ in range(count - 1)), size - part * (count - 1))
    if sum(sizes) != x.shape[axis] or len(sizes) != len(call.outputs):
        raise ValueError(f"parts of {sizes} of an axis of {x.shape[axis]} in {len(call.outputs)} outputs")
    parts = [(name, size) for name, size in zip(call.outputs, sizes, strict=True) if size]
    for name, size in zip(call.outputs, sizes, strict=True):
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        if size:
            call.reader.types[name or f"{call.outputs[0]}.unread"] = (shape, x.dtype)
        else:
            call.reader.bind(name, Constant(shape, x.dtype))
    names = [name or f"{call.outputs[0]}.unread.{i}" for i, (name, _) in enumerate(parts)]
    for name, (_, size) in zip(names, parts, strict=True):
        call.reader.types[name] = ((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    call.emit("Split", [x], {"axis": axis, "sizes": tuple(size for _, size in parts)}, outputs=names)


@handles("Slice")
def _slice(call: Call) -> None:
    x, shape = as_value(call, call.tensor(0)), call.shape()
    starts, axes, steps = call.integers(1, "starts") or (), call.integers(3, "axes"), call.integers(4, "steps")
    if not starts and shape != x.shape:
        call.emit("Slice", [x], {"axes": tuple(i for i, size in enumerate(shape) if size != x.shape[i])}, shape=shape)
        return
    axes = tuple(a % len(x.shape) for a in (axes or range(len(starts))))
    cut = [i for i in range(len(starts)) if shape[axes[i]] != x.shape[axes[i]] or (steps is not None and steps[i] < 0)]
    if not cut:
        call.alias(x, bits=call.reader.bits_of(call.inputs[0]))
        return
    if len(cut) == 1:
        i = cut[0]
        axis = axes[i]
        start = max(0, starts[i] + x.shape[axis]) if starts[i] < 0 else min(starts[i], x.shape[axis])
        attributes: Attributes = {"axis": axis, "start": start, "size": shape[axis], "step": steps[i] if steps else 1}
    else:
        attributes = {"axes": tuple(axes[i] for i in cut)}
    call.emit("Slice", [x], attributes, shape=shape)


@handles("Gather")
def _gather(call: Call) -> None:
    x, index = call.tensor(0), call.tensor(1)
    axis = call.axis(0, len(x.shape))
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    if isinstance(index, Constant) and index.scalar is not None and not index.shape and isinstance(x, Value):
        if x.shape[axis] == 1:
            call.emit("Reshape", [x], {"shape": shape})
        else:
            call.emit("Gather", [x], {"axis": axis, "index": int(index.scalar) % x.shape[axis]}, shape=shape)
        return
    call.emit("Gather", [x, index], {"axis": axis}, shape=shape, dtype=x.dtype)


@handles("Pad")
def _pad(call: Call) -> None:
    x, rank = as_value(call, call.tensor(0)), len(call.tensor(0).shape)
    name = "paddings" if "paddings" in call.attributes else "pads"
    pads, axes = call.integers(1, name), call.integers(3, "axes")
    if pads is None:
        pads = (*(0 for _ in range(rank)), *(after - before for after, before in zip(call.shape(), x.shape, strict=True)))
        axes = None
    if axes is not None:
        begin, end = [0] * rank, [0] * rank
        for i, axis in enumerate(axes):
            begin[axis], end[axis] = pads[i], pads[len(axes) + i]
        pads = (*begin, *end)
    if len(pads) != 2 * rank:
        raise ValueError(f"pads {pads} for a tensor of rank {rank}")
    mode, value = call.attributes.get("mode", "constant"), call.array(2)
    if mode == "constant" and (call.attributes.get("value") or (value is not None and value.size == 1 and value.reshape(-1)[0] != 0)):
        mode = "value"
    if any(pads):
        shape = tuple(size + pads[i] + pads[rank + i] for i, size in enumerate(x.shape))
        call.emit("Pad", [x], {"pads": pads, "mode": mode if mode != "constant" else None}, shape=shape)
    else:
        call.alias(x, bits=call.reader.bits_of(call.inputs[0]))


@handles("Resize", "Upsample")
def _resize(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    shape = call.known_shape()
    scales = call.attributes.get("scales")
    if shape is None and scales is None:
        place = 1 if call.op == "Upsample" or call.reader.opset < 11 else 2
        known = call.array(place)
        scales = None if known is None else tuple(float(s) for s in known.reshape(-1))
    if shape is None and "height_scale" in call.attributes:
        scales = (1, 1, call.attributes["height_scale"], call.attributes["width_scale"])
    if shape is None and scales:
        shape = tuple(int(size * scale) for size, scale in zip(x.shape, scales, strict=True))
    call.emit("Resize", [x], {"mode": call.attributes.get("mode", "nearest")}, shape=shape)


@handles("Expand", "Tile")
def _expand(call: Call) -> None:
    x, shape = as_value(call, call.tensor(0)), call.shape()
    if x.shape == shape:
        call.alias(x, bits=call.reader.bits_of(call.inputs[0]))
    else:
        ratio = tuple(after // before for after, before in zip(shape, x.shape, strict=True)) if call.op == "Tile" else ()
        call.emit(call.op, [x], {"shape": shape} if call.op == "Expand" else {"repeats": ratio}, shape=shape)


@handles("Cast", "CastLike", "BitCast")
def _cast(call: Call) -> None:
    x = as_value(call, call.tensor(0))
    dtype = call.tensor(1).dtype if call.op == "CastLike" else DTYPES.get(call.attributes["to"], "fp32")
    shape = call.shape() if call.op == "BitCast" else x.shape
    call.emit("Cast", [x], {"to": dtype}, shape=shape, dtype=dtype)
    made = call.reader.operators[-1]
    value = replace(made.outputs[0], dtype=dtype)
    call.reader.operators[-1] = replace(made, outputs=(value,))
    call.reader.bind(value.name, value)


@handles("Scatter")
def _scatter(call: Call) -> None:
    call.emit("ScatterElements", call.tensors, {"axis": call.attributes.get("axis", 0)}, shape=call.tensor(0).shape)


@handles("TopK")
def _top(call: Call) -> None:
    x = call.tensor(0)
    axis = call.axis(-1, len(x.shape))
    count = call.integers(1, "k")
    k = call.shape()[axis] if count is None else count[0]
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    for name, dtype in zip(call.outputs, (x.dtype, "int64"), strict=False):
        if name:
            call.reader.types[name] = (shape, dtype)
    call.emit("TopK", [x], {"axis": axis, "k": k})


@handles("ConstantOfShape", "Range", "EyeLike")
def _worked_out(call: Call) -> None:
    """What a constant operator makes stays a constant of known shape; of computed sizes the graph ends here."""
    shape = call.shape()
    if call.op == "EyeLike":
        call.alias(Constant(shape, call.tensor(0).dtype))
    else:
        call.emit(call.op, call.tensors, shape=shape)
