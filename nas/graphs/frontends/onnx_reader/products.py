"""Convolutions, matrix products, attention and recurrent layers of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from nas.errors import GraphError
from nas.graphs.frontends.onnx_reader.refs import Call, Constant, Tensor, handles
from nas.graphs.graph import Attributes, Value
from nas.graphs.operators import OPS, Shape


def pads_of(call: Call, x: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """Return the padding of a window, begins and then ends, whichever way the file says it."""
    rank, mode = len(kernel), call.attributes.get("auto_pad", "NOTSET")
    if mode in {"NOTSET", ""}:
        return tuple(call.attributes.get("pads", (0,) * 2 * rank))
    if mode == "VALID":
        return (0,) * 2 * rank
    total = [max(0, (-(-x[2 + i] // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[2 + i]) for i in range(rank)]
    return _sided(total, mode)


def _sided(total: Sequence[int], mode: str) -> Shape:
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return tuple(small + large if mode == "SAME_UPPER" else large + small)


def window_of(call: Call, kernel: Shape, x: Shape) -> Attributes:
    """Return kernel, stride, dilation and pads of a window.

    Raises:
        ValueError: They have not one number an axis, or a stride or dilation below one.
    """
    rank = len(kernel)
    stride = tuple(call.attributes.get("strides", (1,) * rank))
    dilation = tuple(call.attributes.get("dilations", (1,) * rank))
    if rank != len(x) - 2 or not len(stride) == len(dilation) == rank or min((*kernel, *stride, *dilation), default=1) < 1:
        raise ValueError(f"a window of kernel {kernel}, strides {stride} and dilations {dilation} on {x}")
    pads = pads_of(call, x, kernel, stride, dilation)
    if len(pads) != 2 * rank:
        raise ValueError(f"pads {pads} for a window of rank {rank}")
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "pads": pads}


@handles("Conv", "ConvTranspose", "com.microsoft.NhwcConv")
def convolution(call: Call) -> None:
    """A convolution with constant weights; one whose weights are computed has a name of its own."""
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    write_convolution(call, x, weight, [bias] if bias is not None else [], transposed=call.op == "ConvTranspose", outputs=call.outputs)


def write_convolution(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Sequence[Tensor],
    *,
    transposed: bool = False,
    outputs: Sequence[str],
    dtype: str | None = None,
) -> Value:
    """Write a convolution from its operands."""
    x = as_value(call, x)
    attributes = window_of(call, weight.shape[2:], x.shape) | {"groups": call.attributes.get("group", 1)}
    if attributes["groups"] < 1 or len(weight.shape) < 3:
        raise ValueError(f"{attributes['groups']} groups with weights of shape {weight.shape}")
    if transposed:
        attributes |= _transposed(call, x.shape, attributes)
    op = "ConvTranspose" if transposed else "Conv"
    if isinstance(weight, Value) and (infer := OPS[op].infer) is not None:
        shape = infer([x.shape], [weight.shape], attributes)
        return call.emit("DynamicConv", [x, weight, *bias], attributes, outputs=outputs, shape=shape, dtype=dtype)[0]
    return call.emit(op, [x, weight, *bias], attributes, outputs=outputs, dtype=dtype)[0]


def _transposed(call: Call, x: Shape, window: Attributes) -> Attributes:
    """Return pads and output padding of a transposed convolution, from what the file says: pads, a mode, or the size of the result."""
    rank, mode = len(window["kernel"]), call.attributes.get("auto_pad", "NOTSET")
    extra = tuple(call.attributes.get("output_padding", (0,) * rank))
    size = call.attributes.get("output_shape")
    full = [(x[2 + i] - 1) * window["stride"][i] + window["dilation"][i] * (window["kernel"][i] - 1) + 1 + extra[i] for i in range(rank)]
    if size is not None:
        wanted = size[-rank:]
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [x[2 + i] * window["stride"][i] for i in range(rank)]
    else:
        return {"output_padding": extra, "pads": (0,) * 2 * rank if mode == "VALID" else window["pads"]}
    total = [full[i] - wanted[i] for i in range(rank)]
    short = tuple(max(0, -t) for t in total)  # a result larger than the window reaches is padded at its end
    sided = _sided([max(0, t) for t in total], "SAME_UPPER" if mode == "SAME_UPPER" else "SAME_LOWER")
    return {"output_padding": tuple(e + s for e, s in zip(extra, short, strict=True)), "pads": sided}


def as_value(call: Call, ref: Tensor) -> Value:
    """Return an operand as a value; a constant becomes an operator's output."""
    return ref if isinstance(ref, Value) else call.step("Constant", [ref], ref.shape, dtype=ref.dtype)


@handles("DeformConv")
def _deformable(call: Call) -> None:
    kernel = tuple(call.tensor(1).shape[2:])
    call.emit("DeformConv", call.tensors, {"kernel": kernel, "groups": call.attributes.get("group", 1)})


@handles("CausalConvWithState")
def _causal(call: Call) -> None:
    """The state and the input joined, a depthwise convolution without padding, and the last columns as the new state."""
    x, weight = as_value(call, call.tensor(0)), call.tensor(1)
    state, kernel = call.optional(3), call.tensor(1).shape[2]
    batch, channels, length = x.shape
    whole = (
        call.step("Pad", [x], (batch, channels, length + kernel - 1), {"pads": (0, 0, kernel - 1, 0, 0, 0)})
        if state is None
        else call.step("Concat", [state, x], None, {"axis": 2})
    )
    bias = [b] if (b := call.optional(2)) is not None else []
    attributes = {"kernel": (kernel,), "stride": (1,), "dilation": (1,), "pads": (0, 0), "groups": channels}
    activation = call.attributes.get("activation", "none")
    op, operands = ("Conv", [whole, weight, *bias]) if isinstance(weight, Constant) else ("DynamicConv", [whole, weight, *bias])
    if activation in ("silu", "swish"):
        made = call.step(op, operands, (batch, channels, length), attributes)
        call.emit("Swish", [made], outputs=call.outputs[:1])
    else:
        call.emit(op, operands, attributes, outputs=call.outputs[:1], shape=(batch, channels, length))
    if len(call.outputs) > 1 and call.outputs[1]:
        cut = {"axis": 2, "start": length, "size": kernel - 1, "step": 1}
        call.emit("Slice", [whole], cut, outputs=call.outputs[1:2], shape=(batch, channels, kernel - 1))


def product(call: Call, a: Tensor, b: Tensor, outputs: Sequence[str] | None = None, dtype: str | None = None) -> Value:
    """Write a matrix product: with a constant matrix a `Gemm`, else a `MatMul`, operands of one axis widened as numpy does."""
    outputs = call.outputs[:1] if outputs is None else outputs
    if isinstance(b, Constant) and len(b.shape) == 2 and len(a.shape) >= 2:
        return call.emit("Gemm", [as_value(call, a), b.reshaped(b.shape[::-1])], outputs=outputs, dtype=dtype)[0]
    if isinstance(a, Constant) and isinstance(b, Value) and len(a.shape) >= 2 and len(b.shape) >= 2:
        right, left = swapped(call, b), swapped(call, a)
        if len(a.shape) == 2:
            flipped = call.step("Gemm", [right, a], None, dtype=dtype)
        else:
            flipped = call.step("MatMul", [right, left], None, dtype=dtype)
        rank = len(flipped.shape)
        return call.emit("Transpose", [flipped], {"perm": (*range(rank - 2), rank - 1, rank - 2)}, outputs=outputs)[0]
    if min(len(a.shape), len(b.shape)) == 0:
        raise ValueError("a product of a scalar")
    if len(a.shape) == 1 or len(b.shape) == 1:
        narrow = (len(a.shape) == 1, len(b.shape) == 1)
        a = call.reshape(a, (1, *a.shape)) if narrow[0] else a
        b = call.reshape(b, (*b.shape, 1)) if narrow[1] else b
        whole = product(call, a, b, [f"{call.outputs[0]}.whole"], dtype)
        shape = [
            s
            for i, s in enumerate(whole.shape)
            if not (narrow[0] and i == len(whole.shape) - 2) and not (narrow[1] and i == len(whole.shape) - 1)
        ]
        return call.emit("Reshape", [whole], {"shape": tuple(shape)}, outputs=outputs)[0]
    return call.emit("MatMul", [as_value(call, a), b], outputs=outputs, dtype=dtype)[0]


def swapped(call: Call, ref: Tensor) -> Tensor:
    """Swap the last two axes."""
    rank = len(ref.shape)
    return call.transpose(ref, (*range(rank - 2), rank - 1, rank - 2))


@handles("MatMul")
def _matmul(call: Call) -> None:
    product(call, call.tensor(0), call.tensor(1))


@handles("Gemm")
def gemm(call: Call) -> None:
    """``alpha · A' · B' + beta · C``; a bias that is computed, or no vector, is added behind."""
    write_gemm(call, call.tensor(0), call.tensor(1), call.optional(2), call.outputs)


def write_gemm(call: Call, a: Tensor, b: Tensor, bias: Tensor | None, outputs: Sequence[str]) -> Value:
    """Write a `Gemm` node's product and bias."""
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError(f"operands of shapes {a.shape} and {b.shape} where matrices are expected")
    a = swapped(call, a) if call.attributes.get("transA") else a
    b = swapped(call, b) if call.attributes.get("transB") else b
    if isinstance(b, Constant) and (bias is None or (isinstance(bias, Constant) and prod(bias.shape) in (1, b.shape[1]))):
        operands: list[Tensor] = [as_value(call, a), b.reshaped(b.shape[::-1]), *([] if bias is None else [bias])]
        return call.emit("Gemm", operands, outputs=outputs)[0]
    if bias is None:
        return product(call, a, b, outputs)
    made = product(call, a, b, [f"{call.outputs[0]}.product"])
    return call.emit("Add", [made, bias], outputs=outputs)[0]


@handles("Einsum")
def _einsum(call: Call) -> None:
    equation = str(call.attributes["equation"]).replace(" ", "")
    call.emit("Einsum", call.tensors, {"equation": equation})


@handles("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> None:
    """The matrices and the bias; where they are computed they are operands behind the sequence. Initial states cost nothing."""
    x, rest = as_value(call, call.tensor(0)), call.optional(3)
    matrices: list[Tensor] = [call.tensor(1), call.tensor(2)]
    bias = [rest.reshaped((prod(rest.shape),))] if isinstance(rest, Constant) else []
    attributes = {
        "bidirectional": int(call.attributes.get("direction") == "bidirectional"),
        "hidden": call.attributes.get("hidden_size"),
        "computed_weights": sum(isinstance(m, Value) for m in matrices) or None,
    }
    layout, hidden, directions = call.attributes.get("layout", 0), matrices[1].shape[-1], matrices[0].shape[0]
    steps, batch = (x.shape[1], x.shape[0]) if layout else (x.shape[0], x.shape[1])
    whole = (batch, steps, directions, hidden) if layout else (steps, directions, batch, hidden)
    last = (batch, directions, hidden) if layout else (directions, batch, hidden)
    for name, shape in zip(call.outputs, (whole, last, last), strict=False):
        if name:
            call.reader.types[name] = (shape, x.dtype)
    call.emit(call.op, [x, *matrices, *bias], attributes)


def attention(
    call: Call, q: Tensor, k: Tensor, v: Tensor, extra: Sequence[Tensor], heads: int, kv_heads: int, outputs: Sequence[str]
) -> Value:
    """Write softmax attention of (b, n, heads · d) operands, or of (b, heads, n, d) ones where `heads` is 0."""
    extra = [ref for ref in extra if ref.dtype in ("fp32", "fp16", "bf16", "fp64", "bool")]
    if heads and kv_heads != heads:
        parts = [as_value(call, split_heads(call, x, n)) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads))]
        made = call.step("Attention", [*parts, *extra], (*parts[0].shape[:-1], parts[2].shape[-1]))
        return merge_heads(call, made, outputs)
    operands = [as_value(call, x) for x in (q, k, v)]
    return call.emit("Attention", [*operands, *extra], {"heads": heads or None}, outputs=outputs)[0]


def split_heads(call: Call, x: Tensor, heads: int) -> Tensor:
    """(b, n, heads · d) -> (b, heads, n, d)."""
    batch, n, width = x.shape
    if heads < 1 or width % heads:
        raise ValueError(f"{width} channels do not divide into {heads} heads")
    return call.transpose(call.reshape(x, (batch, n, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(call: Call, x: Value, outputs: Sequence[str]) -> Value:
    """(b, heads, n, d) -> (b, n, heads · d)."""
    batch, heads, n, width = x.shape
    back = call.step("Transpose", [x], None, {"perm": (0, 2, 1, 3)})
    return call.emit("Reshape", [back], {"shape": (batch, n, heads * width)}, outputs=outputs)[0]


@handles("Attention")
def _attention(call: Call) -> None:
    """ONNX's own operator, with a cache of keys and values where the file has one."""
    q, k, v = (call.tensor(i) for i in range(3))
    mask, past = call.optional(3), [call.optional(4), call.optional(5)]
    heads, kv_heads = (int(call.attributes.get(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    flat = len(q.shape) == 3
    if flat and not (heads and kv_heads):
        raise KeyError("q_num_heads and kv_num_heads")
    extra = [mask] if mask is not None else []
    present = call.outputs[1:3]
    if not any(past) and not any(call.outputs[1:]):
        attention(call, q, k, v, extra, heads if flat else 0, kv_heads if flat else 0, call.outputs[:1])
        return
    if flat:
        q, k, v = split_heads(call, q, heads), split_heads(call, k, kv_heads), split_heads(call, v, kv_heads)
    q, (k, v) = as_value(call, q), cached(call, [k, v], past, present)
    if len(call.outputs) > 3 and call.outputs[3]:
        rank, shared = len(q.shape), k
        if k.shape[1] != q.shape[1]:  # every query head reads a copy of its group's keys
            k = call.step("Expand", [k], (k.shape[0], q.shape[1], *k.shape[2:]))
        call.emit(
            "MatMul",
            [q, call.transpose(k, (*range(rank - 2), rank - 1, rank - 2))],
            outputs=call.outputs[3:4],
            shape=(*q.shape[:-1], k.shape[-2]),
        )
        k = shared
    if flat:
        merge_heads(call, call.step("Attention", [q, k, v, *extra], (*q.shape[:-1], v.shape[-1])), call.outputs[:1])
    else:
        call.emit("Attention", [q, k, v, *extra], outputs=call.outputs[:1])


def cached(call: Call, pair: Sequence[Tensor], past: Sequence[Tensor | None], present: Sequence[str]) -> list[Value]:
    """Join keys and values with those of earlier steps, (b, heads, n, d); what is joined is what the file hands on."""
    made = []
    for i, (new, old) in enumerate(zip(pair, past, strict=True)):
        name = present[i] if i < len(present) else ""
        value = as_value(call, new)
        if old is not None and 0 not in old.shape:
            value = (
                call.emit("Concat", [old, value], {"axis": 2}, outputs=[name])[0]
                if name
                else call.step("Concat", [old, value], None, {"axis": 2})
            )
        elif name:
            call.reader.bind(name, value)
        made.append(value)
    return made


@handles("LinearAttention")
def _linear_attention(call: Call) -> None:
    attributes = {"q_heads": call.attributes["q_num_heads"], "kv_heads": call.attributes["kv_num_heads"]}
    operands = [as_value(call, call.tensor(i)) for i in range(3)]
    width = operands[2].shape[-1] // attributes["kv_heads"] * attributes["q_heads"]
    call.emit("LinearAttention", operands, attributes, shape=(*operands[0].shape[:-1], width))


@handles("ConvInteger")
def _conv_integer(call: Call) -> None:
    call.bits = 8
    write_convolution(call, call.tensor(0), call.reader.take_packed(call.tensor(1)), [], outputs=call.outputs, dtype="int32")


@handles("QLinearConv", "com.microsoft.QLinearConv")
def _quantised_convolution(call: Call) -> None:
    """x, scale, zero, w, scale, zero, y scale, y zero, bias."""
    call.bits = 8
    bias = call.optional(8)
    operands = [call.reader.take_packed(ref) for ref in ([bias] if bias is not None else [])]
    x = as_value(call, call.tensor(0))
    write_convolution(call, x, call.reader.take_packed(call.tensor(3)), operands, outputs=call.outputs, dtype=x.dtype)


@handles("MatMulInteger")
def _matmul_integer(call: Call) -> None:
    call.bits = 8
    product(call, call.reader.take_packed(call.tensor(0)), call.reader.take_packed(call.tensor(1)), dtype="int32")


@handles("QLinearMatMul", "com.microsoft.QLinearMatMul")
def _quantised_matmul(call: Call) -> None:
    call.bits = 8
    a, b = call.reader.take_packed(call.tensor(0)), call.reader.take_packed(call.tensor(3))
    product(call, a, b, dtype=a.dtype if isinstance(a, Value) else None)


def broadcast(*shapes: Sequence[int]) -> Shape:
    """Return numpy's common shape.

    Raises:
        GraphError: There is none.
    """
    try:
        return tuple(int(s) for s in np.broadcast_shapes(*map(tuple, shapes)))
    except ValueError:
        raise GraphError(f"shapes do not broadcast, got {[tuple(s) for s in shapes]}") from None
