"""What a name in an ONNX file stands for, and one node of the file as a handler sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx
from onnx import TensorProto

from nas.graphs.frontends.onnx_reader.folding import Array
from nas.graphs.frontends.text import plain
from nas.graphs.graph import Attributes, Operator, Value
from nas.graphs.operators import OPS, Shape

Types = dict[str, tuple[Shape | None, str]]
"""Shape (None where it does not follow) and dtype by a value's name."""

DTYPES = {
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E4M3FNUZ: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
    TensorProto.FLOAT8E5M2FNUZ: "fp8",
    TensorProto.FLOAT4E2M1: "fp4",
    TensorProto.INT64: "int64",
    TensorProto.UINT64: "uint64",
    TensorProto.INT32: "int32",
    TensorProto.UINT32: "uint32",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "uint4",
    TensorProto.BOOL: "bool",
    TensorProto.COMPLEX64: "complex64",
    TensorProto.COMPLEX128: "complex128",
    TensorProto.STRING: "string",
}
_NEWER = {"FLOAT8E8M0": "fp8", "INT2": "int2", "UINT2": "uint2"}
DTYPES |= {code: _NEWER[name] for name, code in TensorProto.DataType.items() if name in _NEWER}
CODES = {dtype: code for code, dtype in reversed(DTYPES.items())}
FLOATS = {"fp64", "fp32", "fp16", "bf16"}
QUANTISED = {"int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2", "fp8", "fp4"}


class OpenSizeError(Exception):
    """The size of a value does not follow: the graph ends before the node that makes it."""


class EmptyTensorError(Exception):
    """An operator makes a tensor without elements: there is nothing to do, and nothing flows on."""

    def __init__(self, shape: Shape, dtype: str) -> None:
        super().__init__(shape)
        self.shape, self.dtype = shape, dtype


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant; `array` where its numbers are known, `sources` the initialisers behind it."""

    shape: Shape
    dtype: str
    sources: tuple[str, ...] = ()
    array: Array | None = None

    @property
    def scalar(self) -> float | None:
        """The one number in it, where that is known."""
        known = self.array is not None and self.array.size == 1 and self.array.dtype.kind in "fiub"
        return float(self.array.reshape(-1)[0]) if known and self.array is not None else None

    def reshaped(self, shape: Sequence[int]) -> Constant:
        """Return it under another shape, without its numbers."""
        return Constant(tuple(shape), self.dtype, self.sources)


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence of tensors, or an optional one."""

    refs: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What follows from an operator before which the graph ends."""


Ref = Value | Constant | Items | Cut
Tensor = Value | Constant


class Context(Protocol):
    """What a handler may ask of the reader whose node it handles; see `nas.graphs.frontends.onnx_reader.reader.Reader`."""

    graph: onnx.GraphProto
    types: Types
    opset: int
    refs: dict[str, Ref]
    operators: list[Operator]
    notices: list[str]

    def bind(self, name: str, ref: Ref, bits: int = 0) -> None:
        """Let a name be what `ref` is."""

    def bits_of(self, name: str) -> int:
        """Return the bits to which the value of a name is quantised, 0 where it is not."""

    def constant(self, tensor: TensorProto, source: str = "") -> Constant:
        """Return a tensor of the file."""

    def dtype(self, code: int, name: str) -> str:
        """Return the name of an element type."""

    def known(self, call: Call, name: str) -> tuple[Shape | None, str]:
        """Return (shape, dtype) of what a node makes; None and "" where open."""

    def body(self, graph: onnx.GraphProto, inputs: Sequence[Ref], label: str) -> list[Ref]:
        """Read a body with its inputs bound and return what its outputs are."""

    def emit(
        self,
        call: Call,
        op: str,
        operands: Sequence[Tensor],
        attributes: Mapping[str, Any],
        names: Sequence[str],
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
    ) -> list[Value]:
        """Write an operator."""

    def resize(self, source: str, count: int) -> None:
        """Let an initialiser count for `count` parameters."""

    def take_packed(self, ref: Tensor) -> Tensor:
        """Return a constant that holds integers instead of floats."""


@dataclass(slots=True)
class Call:
    """One node: its operands in order, None for one that is left out, and its attributes as Python values."""

    reader: Context
    node: onnx.NodeProto
    operands: list[Ref | None]
    attributes: Attributes
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    bits: int = 0
    stands_for: str = ""
    inferred: bool = False
    fresh: int = field(default=0)

    @property
    def op(self) -> str:
        """The operator's name without its domain; of one that stands for another, the other's."""
        return self.stands_for or str(self.node.op_type)

    @property
    def label(self) -> str:
        """What messages call the node."""
        return plain(self.node.name or (self.node.output[0] if self.node.output else "") or self.node.op_type)

    @property
    def tensors(self) -> list[Tensor]:
        """Operands that are there; a sequence among them does not fit."""
        for ref in self.operands:
            if isinstance(ref, Items):
                raise TypeError("a sequence where a tensor is expected")
        return [ref for ref in self.operands if isinstance(ref, Value | Constant)]

    def tensor(self, index: int) -> Tensor:
        """The operand at `index`, which must be a tensor."""
        ref = self.optional(index)
        if ref is None:
            raise IndexError(f"the operand {index} is left out")
        return ref

    def optional(self, index: int) -> Tensor | None:
        """The operand at `index`, None where it is left out."""
        ref = self.operands[index] if index < len(self.operands) else None
        if ref is not None and not isinstance(ref, Value | Constant):
            raise TypeError(f"a sequence where the operand {index} is a tensor")
        return ref

    def array(self, index: int) -> Array | None:
        """The numbers of a constant operand."""
        ref = self.operands[index] if index < len(self.operands) else None
        return ref.array if isinstance(ref, Constant) else None

    def integers(self, index: int, name: str) -> tuple[int, ...] | None:
        """Integers that are an attribute in old operator sets and an input in new ones; None also where they are computed.

        Raises:
            OpenSizeError: They are computed, and the file does not say what they make either.
        """
        if name in self.attributes:
            value = self.attributes[name]
            return tuple(value) if isinstance(value, tuple) else (int(value),)
        numbers = self.array(index)
        if numbers is None and index < len(self.operands) and self.operands[index] is not None:
            self.shape()
        return None if numbers is None else tuple(int(i) for i in numbers.reshape(-1))

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """An axis from 0."""
        axis = int(self.attributes.get(name, default))
        if not -rank <= axis < max(rank, 1):
            raise IndexError(f"the axis {axis} of a tensor of rank {rank}")
        return axis % rank if rank else 0

    def known_shape(self, index: int = 0) -> Shape | None:
        """Shape of an output as inferred or stated, None where it is open."""
        return self.reader.known(self, self.outputs[index])[0]

    def shape(self, index: int = 0) -> Shape:
        """Shape of an output as inferred.

        Raises:
            OpenSizeError: It does not follow.
        """
        shape = self.known_shape(index)
        if shape is None:
            raise OpenSizeError
        return shape

    def emit(
        self,
        op: str,
        operands: Sequence[Tensor],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
    ) -> list[Value]:
        """Write an operator that makes the node's outputs (or those of `outputs`); see `Reader.emit`."""
        names = [name for name in (self.outputs if outputs is None else outputs) if name]
        return self.reader.emit(self, op, operands, attributes or {}, names, shape, dtype)

    def step(
        self,
        op: str,
        operands: Sequence[Tensor],
        shape: Sequence[int] | None,
        attributes: Mapping[str, Any] | None = None,
        dtype: str | None = None,
    ) -> Value:
        """Write an operator within the node; `shape` None where it follows from the operands."""
        self.fresh += 1
        name = f"{self.outputs[0]}.{op.lower()}.{self.fresh}"
        return self.emit(op, operands, attributes, outputs=[name], shape=shape, dtype=dtype)[0]

    def move(self, op: str, operand: Tensor, shape: Sequence[int], attributes: Mapping[str, Any]) -> Tensor:
        """Reshape or transpose an operand; a constant moves at once."""
        if isinstance(operand, Constant):
            return operand.reshaped(shape)
        return operand if operand.shape == tuple(shape) and op == "Reshape" else self.step(op, [operand], shape, attributes)

    def reshape(self, operand: Tensor, shape: Sequence[int]) -> Tensor:
        """Give an operand another shape."""
        return self.move("Reshape", operand, shape, {"shape": tuple(shape)})

    def transpose(self, operand: Tensor, perm: Sequence[int]) -> Tensor:
        """Permute the axes of an operand."""
        return self.move("Transpose", operand, [operand.shape[i] for i in perm], {"perm": tuple(perm)})

    def alias(self, ref: Ref, index: int = 0, bits: int = 0) -> None:
        """Let an output be what `ref` is."""
        self.reader.bind(self.outputs[index], ref, bits)


Handler = Callable[[Call], None]
HANDLERS: dict[str, Handler] = {}
"""By operator; one of another domain bears the domain: ``com.microsoft.FusedConv``."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Return a decorator that files a handler under ONNX names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def type_of(info: onnx.ValueInfoProto) -> tuple[Shape | None, str]:
    """Return (static shape or None, dtype) of a tensor as a file or inference states it."""
    tensor = info.type.tensor_type
    dims = tensor.shape.dim
    static = tensor.HasField("shape") and all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims)
    return (tuple(d.dim_value for d in dims) if static else None), DTYPES.get(tensor.elem_type, "fp32")


def python_value(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute as numbers, strings, tuples, tensors or graphs."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list) or hasattr(value, "extend"):
        return tuple(item.decode(errors="replace") if isinstance(item, bytes) else item for item in value)
    return value


_AUTOMATIC = re.compile(r"onnx::\w+|_?val_\d+|\d+|.*_output_\d+|const(ant)?_.*|.*const_fold_opt.*|.*/Constant.*")
"""Names that exporters invent for what they work out: of these tensors none is a parameter by its name."""

_BUFFER = re.compile(r"(^|[._/])\w*(ind(ex|ices)|mask|coord|grid|anchor|running_|num_batches|inv_freq)", re.IGNORECASE)
"""Names that networks give to tables that they compute once: indices, masks, coordinates."""

_LINEAR = {"conv", "matmul", "recurrent", "norm"}


def trained_sources(ref: Constant, op: str) -> tuple[str, ...]:
    """Return the initialisers behind a constant that may have been trained: no table by its name, and none of an exporter's own beside named ones."""
    sources = tuple(source for source in ref.sources if not _BUFFER.search(source))
    if op in OPS and OPS[op].category in _LINEAR:
        return sources
    return tuple(source for source in sources if not _AUTOMATIC.fullmatch(source)) or sources


def is_parameter(ref: Constant, op: str, quantised: Collection[str]) -> bool:
    """Whether a constant was trained, as far as a file tells: by what reads it, and else by its name and form.

    A file has no mark for parameters. What convolutions, products and norms read is one. Of the rest, a tensor that bears a name of the
    network is one, and of those that an exporter has named a vector along one axis (a folded scale or bias), but no table or mask.
    `quantised` are the sources that hold integers instead of floats.
    """
    if ref.dtype not in FLOATS and not any(source in quantised for source in ref.sources):
        return False
    if op in OPS and OPS[op].category in _LINEAR:
        return True
    named = any(not _AUTOMATIC.fullmatch(source) for source in trained_sources(ref, op))
    axes = sum(size > 1 for size in ref.shape)
    return bool(trained_sources(ref, op)) and (named or axes == 1) and op not in ("Constant", "Where", "Resize", "Range")
