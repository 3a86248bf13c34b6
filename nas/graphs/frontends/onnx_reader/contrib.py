"""ONNX Runtime's own operators (``com.microsoft``): what its optimiser fuses and what its quantiser writes.

Each is written out as the operators that it stands for. Operands are those of ONNX Runtime's ``ContribOperators.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from nas.graphs.frontends.onnx_reader.products import (
    as_value,
    attention,
    broadcast,
    cached,
    merge_heads,
    product,
    split_heads,
    swapped,
    write_convolution,
    write_gemm,
)
from nas.graphs.frontends.onnx_reader.refs import FLOATS, HANDLERS, QUANTISED, Call, Constant, Tensor, handles
from nas.graphs.frontends.onnx_reader.tensors import write_binary
from nas.graphs.graph import Value
from nas.graphs.operators import OPS, Shape

_MS = "com.microsoft"


def _ms(*names: str) -> list[str]:
    return [f"{_MS}.{name}" for name in names]


def _finish(call: Call, made: Tensor, activation: str, outputs: Sequence[str]) -> None:
    """Write the activation that a fused operator names behind what has been made."""
    if activation in OPS and OPS[activation].category in ("activation", "elementwise"):
        call.emit(activation, [made], outputs=outputs)
    else:
        raise KeyError(f"the activation {activation!r} is not known")


def _added(call: Call, x: Tensor, *others: Tensor | None) -> Tensor:
    """Add operands that are there."""
    for i, other in enumerate(others):
        if other is not None:
            x = write_binary(call, "Add", [x, other], [f"{call.outputs[0]}.sum{i}.{call.fresh}"])
    return x


# --- fused by the optimiser ----------------------------------------------------------------------------------------------


@handles(*_ms("FusedConv", "NhwcFusedConv"), "com.microsoft.nchwc.Conv")
def _fused_convolution(call: Call) -> None:
    """A convolution, the sum with a shortcut (operand 3), an activation."""
    x, weight, bias, shortcut = call.tensor(0), call.tensor(1), call.optional(2), call.optional(3)
    activation, groups = call.attributes.get("activation", ""), call.attributes.get("group", 1)
    if call.op == "NhwcFusedConv":
        x = call.transpose(x, (0, 3, 1, 2))
    if call.node.domain.endswith("nchwc"):
        weight, groups = _blocked(x, weight, groups)
        call.attributes["group"] = groups
    last = not activation and shortcut is None and call.op != "NhwcFusedConv"
    made: Tensor = write_convolution(
        call, x, weight, [bias] if bias is not None else [], outputs=call.outputs if last else [f"{call.outputs[0]}.conv"]
    )
    if call.op == "NhwcFusedConv":
        shortcut = call.transpose(shortcut, (0, 3, 1, 2)) if shortcut is not None else None
        made = _added(call, made, shortcut)
        if activation:
            made = call.step(activation, [made], made.shape)
        call.emit("Transpose", [made], {"perm": (0, 2, 3, 1)})
        return
    if shortcut is not None:
        made = write_binary(call, "Add", [made, shortcut], [f"{call.outputs[0]}.sum"] if activation else call.outputs)
    if activation:
        _finish(call, made, activation, call.outputs)


def _blocked(x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, int]:
    """Weights in blocks: channels of the input may be padded beyond what the file says of the weights."""
    if isinstance(weight, Constant) and x.shape[1] != weight.shape[1] * groups:
        if groups > 1:
            return weight.reshaped((weight.shape[0], 1, *weight.shape[2:])), x.shape[1]
        return weight.reshaped((weight.shape[0], x.shape[1], *weight.shape[2:])), 1
    return weight, groups


@handles("com.microsoft.nchwc.ReorderInput")
def _into_blocks(call: Call) -> None:
    """Channels into blocks of eight or sixteen, whichever all blocked weights of the file are multiples of."""
    x = as_value(call, call.tensor(0))
    if call.attributes.get("channels_last"):
        x = as_value(call, call.transpose(x, (0, 3, 1, 2)))
    kernels = [node.input[1] for node in call.reader.graph.node if node.domain.endswith("nchwc") and node.op_type == "Conv"]
    widths = [ref.shape[0] for name in kernels if isinstance(ref := call.reader.refs.get(name), Constant)]
    block = 16 if all(width % 16 == 0 for width in widths) else 8
    padded = -(-x.shape[1] // block) * block
    if padded == x.shape[1]:
        call.alias(x)
    else:
        pads = tuple(padded - x.shape[1] if i == len(x.shape) + 1 else 0 for i in range(2 * len(x.shape)))
        call.emit("Pad", [x], {"pads": pads}, shape=(x.shape[0], padded, *x.shape[2:]))


@handles("com.microsoft.nchwc.ReorderOutput")
def _out_of_blocks(call: Call) -> None:
    x, channels = as_value(call, call.tensor(0)), call.attributes["channels"]
    last = bool(call.attributes.get("channels_last"))
    if channels != x.shape[1]:
        shape = (x.shape[0], channels, *x.shape[2:])
        cut = {"axis": 1, "start": 0, "size": channels, "step": 1}
        x = call.step("Slice", [x], shape, cut) if last else call.emit("Slice", [x], cut, shape=shape)[0]
    elif not last:
        call.alias(x)
    if last:
        call.emit("Transpose", [x], {"perm": (0, 2, 3, 1)})


@handles(*(f"com.microsoft.nchwc.{op}" for op in ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Upsample")))
def _blocked_pool(call: Call) -> None:
    HANDLERS[call.op](call)


@handles(*_ms("FusedMatMul", "TransposeMatMul"))
def _fused_matmul(call: Call) -> None:
    a, b = call.tensor(0), call.tensor(1)
    a = _batch_moved(call, a) if call.attributes.get("transBatchA") else a
    b = _batch_moved(call, b) if call.attributes.get("transBatchB") else b
    a = swapped(call, a) if call.attributes.get("transA") else a
    b = swapped(call, b) if call.attributes.get("transB") else b
    product(call, a, b)


def _batch_moved(call: Call, x: Tensor) -> Tensor:
    rank = len(x.shape)
    return call.transpose(x, (*range(1, rank - 1), 0, rank - 1))


@handles(*_ms("FusedGemm"))
def _fused_gemm(call: Call) -> None:
    activation = call.attributes.get("activation", "")
    outputs = [f"{call.outputs[0]}.gemm"] if activation else call.outputs
    made = write_gemm(call, call.tensor(0), call.tensor(1), call.optional(2), outputs)
    if activation:
        _finish(call, made, activation, call.outputs)


@handles(*_ms("Gelu", "FastGelu", "BiasGelu", "QuickGelu"))
def _gelu(call: Call) -> None:
    form = {"FastGelu": "tanh", "QuickGelu": "sigmoid"}.get(call.op, "none")
    x = _added(call, call.tensor(0), call.optional(1))
    call.emit("Gelu", [as_value(call, x)], {"approximate": form})


@handles(*_ms("BiasSplitGelu"))
def _gated_gelu(call: Call) -> None:
    """Half of the channels times the GELU of the other half."""
    x = as_value(call, _added(call, call.tensor(0), call.optional(1)))
    half = (*x.shape[:-1], x.shape[-1] // 2)
    left, right = _parts(call, x, len(half) - 1, (half[-1], half[-1]))
    call.emit("Mul", [left, call.step("Gelu", [right], half)])


def _parts(call: Call, x: Tensor, axis: int, sizes: Sequence[int]) -> list[Value]:
    x = as_value(call, x)
    if sum(sizes) != x.shape[axis] or min(sizes) < 1:
        raise ValueError(f"parts of {tuple(sizes)} of an axis of {x.shape[axis]}")
    names = [f"{call.outputs[0]}.part{i}.{call.fresh}" for i in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        call.reader.types[name] = ((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    return call.emit("Split", [x], {"axis": axis, "sizes": tuple(sizes)}, outputs=names)


@handles(*_ms("BiasAdd"))
def _bias_add(call: Call) -> None:
    x = _added(call, call.tensor(0), call.tensor(1))
    write_binary(call, "Add", [x, call.tensor(2)], call.outputs)


@handles(*_ms("BiasSoftmax"))
def _bias_softmax(call: Call) -> None:
    x = as_value(call, _added(call, call.tensor(0), call.optional(1)))
    call.emit("Softmax", [x], {"axis": -1})


@handles(*_ms("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"))
def _skip_norm(call: Call) -> None:
    """Input and shortcut added, a constant bias on top, and the norm; the sum may be an output too (the fourth)."""
    rms = "Simplified" in call.op
    x, skip, *rest = call.tensor(0), call.tensor(1), *(call.optional(i) for i in (range(2, 4) if rms else range(2, 5)))
    scale, shift, bias = (rest[0], None, rest[1]) if rms else (rest[0], rest[1], rest[2])
    total = _added(call, x, skip, bias)
    if len(call.outputs) > 3 and call.outputs[3]:
        call.alias(total, 3)
    operands = [as_value(call, total), *(ref for ref in (scale, shift) if ref is not None)]
    epsilon = call.attributes.get("epsilon", 1e-12)
    call.emit("RMSNormalization" if rms else "LayerNormalization", operands, {"axis": -1, "epsilon": epsilon}, outputs=call.outputs[:1])


@handles(*_ms("EmbedLayerNormalization"))
def _embedding(call: Call) -> None:
    """Rows of three tables (words, places, segments) added up and normed."""
    ids, segments, tables = call.tensor(0), call.optional(1), [call.optional(i) for i in (2, 3, 4)]
    total: Tensor | None = None
    for table, index in zip(tables, (ids, ids, segments), strict=True):
        if table is not None and index is not None:
            rows = call.step("Gather", [table, index], (*ids.shape, table.shape[1]), {"axis": 0}, table.dtype)
            total = rows if total is None else _added(call, total, rows)
    if total is None:
        raise IndexError("no table of words")
    operands = [total, *(ref for i in (5, 6) if (ref := call.optional(i)) is not None)]
    call.emit("LayerNormalization", operands, {"axis": -1}, outputs=call.outputs[:1])
    for i, name in enumerate(call.outputs[1:], 1):
        call.alias(total if i == 2 else Constant((ids.shape[0],), "int32"), i) if name else None


@handles(*_ms("GroupNorm", "SkipGroupNorm"))
def _group_norm(call: Call) -> None:
    x = _added(call, call.tensor(0), *((call.optional(3), call.optional(4)) if call.op == "SkipGroupNorm" else ()))
    if len(call.outputs) > 1 and call.outputs[1]:
        call.alias(x, 1)
    last, swish = bool(call.attributes.get("channels_last", 1)), bool(call.attributes.get("activation"))
    inner = call.transpose(x, (0, 3, 1, 2)) if last else x
    made = call.step(
        "GroupNormalization", [as_value(call, inner), call.tensor(1), call.tensor(2)], None, {"groups": call.attributes["groups"]}
    )
    if swish:
        made = call.step("Swish", [made], made.shape)
    call.emit("Transpose" if last else "Identity", [made], {"perm": (0, 2, 3, 1)} if last else {}, outputs=call.outputs[:1])


# --- attention -----------------------------------------------------------------------------------------------------------


@handles(*_ms("Attention", "QAttention", "PackedAttention"))
def _projected_attention(call: Call) -> None:
    """The projection of q, k and v, and the attention."""
    packed, quantised = call.op == "PackedAttention", call.op == "QAttention"
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    if quantised:
        call.bits = 8
        weight = call.reader.take_packed(weight)
    sizes = call.attributes.get("qkv_hidden_sizes") or (weight.shape[1] // 3,) * 3
    if isinstance(weight, Constant) and (bias is None or isinstance(bias, Constant)):
        operands: list[Tensor] = [as_value(call, x), weight.reshaped(weight.shape[::-1]), *([bias] if bias is not None else [])]
        made = call.step("Gemm", operands, None)
    else:
        made = product(call, x, weight, [f"{call.outputs[0]}.qkv"])
        made = as_value(call, _added(call, made, bias))
    rows = as_value(call, _unpacked(call, made, 3) if packed else made)
    q, k, v = _parts(call, rows, 2, sizes)
    place = 5 if packed else 4
    past, extra = (None if packed else call.optional(8 if quantised else place)), ([] if quantised else [call.optional(5)])
    _heads_of(call, q, k, v, [ref for ref in extra if ref is not None], past, packed=packed)


def _heads_of(call: Call, q: Tensor, k: Tensor, v: Tensor, extra: Sequence[Tensor], past: Tensor | None, *, packed: bool) -> None:
    heads = call.attributes["num_heads"]
    if past is not None and 0 not in past.shape:  # (2, b, heads, earlier, d)
        parts = [as_value(call, split_heads(call, x, heads)) for x in (q, k, v)]
        past_shape = (*past.shape[1:3], past.shape[3], past.shape[4])
        old = [call.step("Gather", [past], past_shape, {"axis": 0, "index": i}) for i in (0, 1)]
        keys, values = cached(call, parts[1:], old, ())
        made = call.step("Attention", [parts[0], keys, values, *extra], (*parts[0].shape[:-1], values.shape[-1]))
        merge_heads(call, made, call.outputs[:1])
        if len(call.outputs) > 1 and call.outputs[1]:
            pair = [as_value(call, call.reshape(x, (1, *x.shape))) for x in (keys, values)]
            call.emit("Concat", pair, {"axis": 0}, outputs=call.outputs[1:2])
        return
    if packed:
        made = attention(call, q, k, v, extra, heads, heads, [f"{call.outputs[0]}.rows"])
        call.emit("Reshape", [made], {"shape": (prod(made.shape[:-1]), made.shape[-1])}, outputs=call.outputs[:1])
        return
    attention(call, q, k, v, extra, heads, heads, call.outputs[:1])
    if len(call.outputs) > 1 and call.outputs[1]:
        pair = [as_value(call, call.reshape(y := split_heads(call, x, heads), (1, *y.shape))) for x in (k, v)]
        call.emit("Concat", pair, {"axis": 0}, outputs=call.outputs[1:2])


def _unpacked(call: Call, x: Tensor, offset: int) -> Tensor:
    """(tokens, c) -> (b, n, c): by the table of places where no token is padded, else as one sequence."""
    table = call.optional(offset)
    tokens, width = x.shape[0], prod(x.shape[1:])
    batch = table.shape[0] if table is not None and len(table.shape) == 2 and prod(table.shape) == tokens else 1
    return call.reshape(x, (batch, tokens // batch, width))


@handles(*_ms("MultiHeadAttention", "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention"))
def _multi_head(call: Call) -> None:
    """Operands of three forms: three projections, one (…, heads, 3, d), or keys and values that are split into heads already."""
    packed = call.op.startswith("Packed")
    heads, bias = call.attributes["num_heads"], call.optional(3)
    q, k, v = (None if ref is None else _flat(call, ref) for ref in (call.tensor(0), call.optional(1), call.optional(2)))
    if packed:
        q, k, v = (None if ref is None else _unpacked(call, ref, 4) for ref in (q, k, v))
    if q is None:
        raise IndexError("no queries")
    if k is None:
        q, k, v = _parts(call, q, 2, (q.shape[2] // 3,) * 3)
    elif v is None:
        k, v = _parts(call, k, 2, (k.shape[2] // 2,) * 2)
    if isinstance(bias, Constant) and len(bias.shape) == 1:
        widths = [q.shape[-1], k.shape[-1] if len(k.shape) == 3 else q.shape[-1], v.shape[-1] if len(v.shape) == 3 else q.shape[-1]]
        share = [bias.reshaped((width,)) for width in widths]
        q, k, v = (_added(call, x, b) if len(x.shape) == 3 else x for x, b in zip((q, k, v), share, strict=True))
    extra = [ref for ref in (call.optional(5 if not packed else 6),) if ref is not None]
    past = [] if packed else [call.optional(6), call.optional(7)]
    four = [len(x.shape) == 4 for x in (k, v)]
    if any(four) or any(ref is not None for ref in past) or any(call.outputs[1:3]):
        parts = [as_value(call, x if len(x.shape) == 4 else split_heads(call, x, heads)) for x in (q, k, v)]
        keys, values = cached(call, parts[1:], past or [None, None], call.outputs[1:3])
        made = call.step("Attention", [parts[0], keys, values, *extra], (*parts[0].shape[:-1], values.shape[-1]))
        merge_heads(call, made, call.outputs[:1])
    elif packed:
        made = attention(call, q, k, v, extra, heads, heads, [f"{call.outputs[0]}.rows"])
        call.emit("Reshape", [made], {"shape": (prod(made.shape[:-1]), made.shape[-1])}, outputs=call.outputs[:1])
    else:
        attention(call, q, k, v, extra, heads, heads, call.outputs[:1])


def _flat(call: Call, x: Tensor) -> Tensor:
    """Join the axes behind the tokens where there are several: heads, parts and channels of one head."""
    keep = {5: 2, 4: 1 if call.op.startswith("Packed") else 4, 3: 3 if not call.op.startswith("Packed") else 1}.get(
        len(x.shape), len(x.shape)
    )
    return x if keep >= len(x.shape) else call.reshape(x, (*x.shape[:keep], prod(x.shape[keep:])))


@handles(*_ms("GroupQueryAttention"))
def _grouped_queries(call: Call) -> None:
    """Several query heads share a head of keys and values; keys and values of earlier steps are held in a cache."""
    q, k, v = call.tensor(0), call.optional(1), call.optional(2)
    heads, shared = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    if k is None or v is None:
        width = q.shape[-1] // (heads + 2 * shared)
        q, k, v = _parts(call, q, 2, (heads * width, shared * width, shared * width))
    parts = [as_value(call, split_heads(call, x, n)) for x, n in ((q, heads), (k, shared), (v, shared))]
    if call.attributes.get("do_rotary"):
        parts[:2] = [call.step("RotaryEmbedding", [x], x.shape) for x in parts[:2]]
    keys, values = cached(call, parts[1:], [call.optional(3), call.optional(4)], call.outputs[1:3])
    made = call.step("Attention", [parts[0], keys, values], (*parts[0].shape[:-1], values.shape[-1]))
    merge_heads(call, made, call.outputs[:1])


# --- quantised operators -------------------------------------------------------------------------------------------------


@handles(*_ms("QLinearAdd", "QLinearMul"))
def _quantised_binary(call: Call) -> None:
    call.bits = 8
    operands = [_unpacked_scalar(call, 0), _unpacked_scalar(call, 3)]
    operands.sort(key=lambda ref: isinstance(ref, Constant))
    if isinstance(operands[0], Constant):
        operands[0] = as_value(call, operands[0])
    write_binary(call, call.op.removeprefix("QLinear"), operands, call.outputs, operands[0].dtype)


def _unpacked_scalar(call: Call, index: int) -> Tensor:
    """An operand with its scale and zero point behind it; of a constant scalar the number that it stands for."""
    ref, scale, zero = call.tensor(index), call.optional(index + 1), call.optional(index + 2)
    if not isinstance(ref, Constant) or ref.array is None or ref.array.size != 1:
        return ref
    if not isinstance(scale, Constant) or scale.scalar is None:
        return ref
    offset = zero.scalar if isinstance(zero, Constant) and zero.scalar is not None else 0.0
    number = (float(ref.array.reshape(-1)[0]) - offset) * scale.scalar
    return Constant(ref.shape, ref.dtype, ref.sources, np.full(ref.shape, number, dtype=np.float32))


@handles(
    *_ms("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearReduceMean")
)
def _quantised_unary(call: Call) -> None:
    call.bits = 8
    x, op = as_value(call, call.tensor(0)), call.op.removeprefix("QLinear")
    last = bool(call.attributes.get("channels_last"))
    if op in ("GlobalAveragePool", "AveragePool") and last:
        x = as_value(call, call.transpose(x, (0, 3, 1, 2)))
    if op in ("Sigmoid", "LeakyRelu"):
        call.emit(op, [x], dtype=x.dtype)
    elif op == "Softmax":
        call.emit(op, [x], {"axis": call.attributes.get("axis", -1)}, dtype=x.dtype)
    elif last:
        inner = replace(call, stands_for=op, operands=[x], outputs=(f"{call.outputs[0]}.pooled",))
        HANDLERS[op](inner)
        made = call.reader.refs[inner.outputs[0]]
        assert isinstance(made, Value)
        call.emit("Transpose", [made], {"perm": (0, 2, 3, 1)})
    else:
        HANDLERS[op](replace(call, stands_for=op, operands=[x]))


@handles(*_ms("QLinearConcat"))
def _quantised_concat(call: Call) -> None:
    call.bits = 8
    parts = [call.tensor(i) for i in range(2, len(call.operands), 3)]
    first = as_value(call, parts[0])
    parts[0] = first
    call.emit("Concat", parts, {"axis": call.axis(0, len(first.shape))}, dtype=first.dtype)


@handles(*_ms("QLinearWhere"))
def _quantised_where(call: Call) -> None:
    call.bits = 8
    operands = [call.tensor(i) for i in (0, 1, 4)]
    call.emit("Where", operands, shape=broadcast(*(x.shape for x in operands)), dtype=operands[1].dtype)


@handles(*_ms("QGemm"))
def _quantised_gemm(call: Call) -> None:
    call.bits = 8
    a, b = call.tensor(0), call.reader.take_packed(call.tensor(3))
    bias = call.optional(6)
    write_gemm(call, a, b, call.reader.take_packed(bias) if bias is not None else None, call.outputs)


@handles(*_ms("DynamicQuantizeMatMul", "MatMulIntegerToFloat"))
def _integer_product(call: Call) -> None:
    """Eight-bit operands, a float result."""
    call.bits = 8
    a, b = call.tensor(0), call.reader.take_packed(call.tensor(1))
    bias = call.optional(4 if call.op == "DynamicQuantizeMatMul" else 6)
    dtype = a.dtype if a.dtype in FLOATS else "fp32"
    if isinstance(b, Constant) and len(b.shape) == 2 and (bias is None or isinstance(bias, Constant)):
        operands: list[Tensor] = [as_value(call, a), b.reshaped(b.shape[::-1]), *([bias] if bias is not None else [])]
        call.emit("Gemm", operands, outputs=call.outputs[:1], dtype=dtype)
        return
    made = product(call, a, b, call.outputs if bias is None else [f"{call.outputs[0]}.product"], dtype)
    if bias is not None:
        call.emit("Add", [made, bias])


@handles(*_ms("DynamicQuantizeLSTM"))
def _integer_lstm(call: Call) -> None:
    """An LSTM whose matrices are held in eight bits and transposed: (directions, inner, gates · hidden)."""
    x, (w, r) = as_value(call, call.tensor(0)), (swapped(call, call.reader.take_packed(call.tensor(i))) for i in (1, 2))
    call.bits = 8
    HANDLERS["LSTM"](replace(call, stands_for="LSTM", operands=[x, w, r, *call.operands[3:4]]))


@handles(*_ms("MatMulNBits", "MatMulBnb4"))
def _packed_product(call: Call) -> None:
    """Weights of a few bits, unpacked as they are read."""
    n, k = call.attributes["N"], call.attributes["K"]
    packed, bits = call.tensor(1), call.attributes.get("bits", 4)
    if n < 1 or k < 1 or n * k * bits > 8 * 2 * max(1, prod(packed.shape)) * (4 if packed.dtype not in QUANTISED else 1):
        raise ValueError(f"{n} x {k} weights of {bits} bits in a tensor of shape {packed.shape}")
    source = packed.sources if isinstance(packed, Constant) else ()
    for name in source:
        call.reader.resize(name, n * k)
    weight = Constant((n, k), "int4" if bits <= 4 else "int8", source)
    call.reader.take_packed(weight)
    bias = call.optional(5) if call.op == "MatMulNBits" else None
    operands: list[Tensor] = [as_value(call, call.tensor(0)), weight, *([bias] if isinstance(bias, Constant) else [])]
    call.emit("Gemm", operands)


@handles(*_ms("NhwcMaxPool"))
def _channels_last_pool(call: Call) -> None:
    x = as_value(call, call.transpose(call.tensor(0), (0, 3, 1, 2)))
    inner = replace(call, stands_for="MaxPool", operands=[x], outputs=(f"{call.outputs[0]}.pooled",))
    HANDLERS["MaxPool"](inner)
    made = call.reader.refs[inner.outputs[0]]
    assert isinstance(made, Value)
    call.emit("Transpose", [made], {"perm": (0, 2, 3, 1)})


@handles(*_ms("Pad", "Trilu", "GatherND", "GridSample"))
def _as_onnx(call: Call) -> None:
    """The same operator as ONNX's, from before it was there."""
    if call.op == "GridSample":
        x, grid = call.tensor(0), call.tensor(1)
        call.emit("GridSample", [as_value(call, x), grid], shape=(*x.shape[:2], *grid.shape[1:-1]))
        return
    if call.op == "Trilu":
        call.emit("Trilu", [as_value(call, call.tensor(0))])
        return
    if call.op == "GatherND":
        x, index = call.tensor(0), call.tensor(1)
        shape: Shape = (*index.shape[:-1], *x.shape[index.shape[-1] :])
        call.emit("GatherND", [x, index], shape=shape, dtype=x.dtype)
        return
    HANDLERS[call.op](call)
