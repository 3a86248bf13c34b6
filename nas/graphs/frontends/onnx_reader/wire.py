"""An ONNX model from its bytes without its weights: a walk over the protobuf wire format that skips what a tensor holds.

A file of any size is never read whole: of a large tensor only the tags and lengths around its numbers are. What is left
(nodes, shapes, small constants) is parsed by onnx as usual, so that the limit of 2 GB of a protobuf message does not apply either.
"""

from __future__ import annotations

import os
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from nas.errors import GraphError

KEPT_INTEGERS, KEPT_FLOATS = 4096, 1024
"""Constants up to these sizes keep their numbers: shapes, axes and scalars are far smaller, weights far larger. Set by hand."""

BITS = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}
"""Bits an element; strings have none."""
BITS |= {
    code: bits
    for name, code in TensorProto.DataType.items()
    for newer, bits in (("FLOAT8E8M0", 8), ("UINT2", 2), ("INT2", 2))
    if name == newer
}

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.COMPLEX64, TensorProto.COMPLEX128}

# message -> field -> message, as onnx.proto numbers them; what is not listed is copied
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DROPPED = {"model": {20}, "graph": {10, 14}}  # training graphs, documentation, quantisation notes
_NUMBERS = {4, 5, 6, 7, 9, 10, 11}  # float, int32, string, int64, raw, double, uint64 data
_SMALL = 2048  # messages up to this many bytes are copied whole
_DEEPEST = 60  # by hand


class _DamagedError(Exception):
    """The bytes are no protobuf message of this kind."""


class _Bytes:
    """A file's bytes by place, read a page at a time. A memory map would count every page that it touches, and those around them."""

    _PAGE = 4096

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._begin, self._page = descriptor, 0, b""

    def __getitem__(self, at: int) -> int:
        if not 0 <= at - self._begin < len(self._page):
            self._begin, self._page = at, os.pread(self._descriptor, self._PAGE, at)
        if not self._page:
            raise _DamagedError("fewer bytes than before")
        return self._page[at - self._begin]

    def read(self, begin: int, end: int) -> bytes:
        if begin >= self._begin and end <= self._begin + len(self._page):
            return self._page[begin - self._begin : end - self._begin]
        return os.pread(self._descriptor, end - begin, begin)


def load_model(path: Path) -> onnx.ModelProto:
    """Return the model in a file without the numbers of its large tensors.

    Raises:
        GraphError: Missing, empty, truncated, not ONNX, or a tensor whose numbers do not fill its shape; one line says what to do.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise GraphError(f"{path}: the file is empty. Do this: export the model again.")
            light = b"".join(_walk(_Bytes(file.fileno()), 0, size, "model", 0))
        model = onnx.ModelProto.FromString(light)
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file.") from None
    except (_DamagedError, DecodeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GraphError(f"{path}: not an ONNX file, or a truncated one, got: {reason}. Do this: export or copy the model again.") from None
    if not model.graph.node or not model.opset_import:
        raise GraphError(f"{path}: holds no operator, so it is no ONNX model, or a truncated one. Do this: export or copy it again.")
    return model


def _varint(data: _Bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise _DamagedError("a number that does not end")


def _field(data: _Bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Return (number, wire type, where the content begins, where it ends) of the field at `at`."""
    tag, at = _varint(data, at, end)
    number, wire = tag >> 3, tag & 7
    if number == 0:
        raise _DamagedError("a field without a number")
    if wire == 0:
        _, stop = _varint(data, at, end)
    elif wire == 1:
        stop = at + 8
    elif wire == 5:
        stop = at + 4
    elif wire == 2:
        length, at = _varint(data, at, end)
        stop = at + length
    else:
        raise _DamagedError(f"wire type {wire}")
    if stop > end:
        raise _DamagedError("a field that runs past the end")
    return number, wire, at, stop


def _walk(data: _Bytes, at: int, end: int, kind: str, depth: int) -> list[bytes]:
    """Return a message in pieces, large tensors in it without their numbers."""
    if depth > _DEEPEST:
        raise _DamagedError("messages nested too deep")
    if kind == "tensor":
        return _tensor(data, at, end)
    parts, inner, dropped = [], _MESSAGES[kind], _DROPPED.get(kind, ())
    run = at  # what has been seen and not yet copied begins here
    while at < end:
        number, wire, begin, stop = _field(data, at, end)
        if wire == 2 and number in dropped:
            parts.append(data.read(run, at))
            run = stop
        elif wire == 2 and number in inner and stop - begin > _SMALL:
            parts.append(data.read(run, at))
            light = _walk(data, begin, stop, inner[number], depth + 1)
            parts += [_head(number, sum(map(len, light))), *light]
            run = stop
        at = stop
    parts.append(data.read(run, end))
    return parts


def _head(number: int, length: int) -> bytes:
    return _encoded(number << 3 | 2) + _encoded(length)


def _encoded(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _tensor(data: _Bytes, at: int, end: int) -> list[bytes]:
    """Return a tensor; of a large one without numbers, once these are known to fill its shape."""
    parts: list[bytes] = []
    dims: list[int] = []
    begin, kind, length, elements = at, 0, 0, 0
    while at < end:
        number, wire, start, stop = _field(data, at, end)
        if number in _NUMBERS:
            size = stop - start
            length, elements = (length + size, elements) if number == 9 else (length, elements + _elements(number, wire, size))
        else:
            parts.append(data.read(at, stop))
            if number == 1:
                dims += _integers(data, wire, start, stop)
            elif number == 2 and wire == 0:
                kind = _varint(data, start, stop)[0]
        at = stop
    count = prod(dims)
    if count <= (KEPT_FLOATS if kind in _FLOATS else KEPT_INTEGERS) and end - begin <= 16 * KEPT_INTEGERS:
        return [data.read(begin, end)]
    bits = BITS.get(kind)
    if bits and length and length != -(-count * bits // 8):
        raise _DamagedError(f"a tensor of shape {tuple(dims)} that holds {length} bytes and needs {-(-count * bits // 8)}")
    if elements and not length and elements < count and bits and bits >= 8 and kind not in (TensorProto.INT64, TensorProto.INT32):
        raise _DamagedError(f"a tensor of shape {tuple(dims)} that holds {elements} numbers")
    return parts


def _elements(number: int, wire: int, size: int) -> int:
    """How many numbers a typed field holds; of packed integers at most so many, since each takes a byte or more."""
    width = {4: 4, 10: 8}.get(number, 1)
    return size // width if wire == 2 and number != 6 else 1


def _integers(data: _Bytes, wire: int, at: int, end: int) -> list[int]:
    if wire == 0:
        return [_signed(_varint(data, at, end)[0])]
    numbers: list[int] = []
    while at < end and len(numbers) < 64:
        number, at = _varint(data, at, end)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return int(struct.unpack("<q", struct.pack("<Q", number & (1 << 64) - 1))[0])


def numbers_of(tensor: TensorProto, name: str, path: Path) -> npt.NDArray[Any] | None:
    """Return the numbers of a small constant, from the file beside the model where it lies there; None of what numpy has no type for.

    Raises:
        GraphError: They do not fill its shape, or the file cannot be read.
    """
    try:
        array = numpy_helper.to_array(_loaded(tensor, path) if tensor.data_location == TensorProto.EXTERNAL else tensor)
    except (OSError, KeyError, ValueError, TypeError, OverflowError, NotImplementedError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"{path}: the numbers of the constant {name!r} cannot be read, got: {reason}. Do this: export it again.") from None
    return array if array.dtype.kind in "biuf" else None


def _loaded(tensor: TensorProto, path: Path) -> TensorProto:
    place = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.resolve().parent
    file = (folder / place["location"]).resolve()
    if not file.is_relative_to(folder):
        raise ValueError(f"the file {place['location']!r} lies outside the model's folder")
    with file.open("rb") as data:
        data.seek(int(place.get("offset", 0)))
        raw = data.read(-(-prod(tensor.dims) * BITS[tensor.data_type] // 8))
    return TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
