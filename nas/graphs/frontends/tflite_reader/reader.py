"""Reads the operators of a TensorFlow Lite model one after the other; the handlers say what each is in the vocabulary."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import GraphError, UsageError
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.frontends.text import plain
from nas.graphs.graph import Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import OPS, Shape

Array = npt.NDArray[Any]
_KEPT = 4096  # by hand
_MOST_ELEMENTS, _MOST_OPERATORS, _MOST_MACS = 2**36, 100_000, 2**56  # by hand
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_LINEAR = {"conv", "matmul"}
MALFORMED = (
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    UnicodeDecodeError,
)
_DTYPES = {
    "FLOAT32": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "FLOAT64": "fp64",
    "INT32": "int32",
    "UINT32": "uint32",
    "INT64": "int64",
    "UINT64": "uint64",
    "INT16": "int16",
    "UINT16": "uint16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT4": "int4",
    "BOOL": "bool",
    "STRING": "string",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
}
_NUMPY = {"INT32": "<i4", "INT64": "<i8", "FLOAT32": "<f4", "INT8": "i1", "UINT8": "u1", "INT16": "<i2", "BOOL": "?"}
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "RELU": ("Relu", {}),
    "RELU6": ("Clip", {"min": 0.0, "max": 6.0}),
    "RELU_N1_TO_1": ("Clip", {"min": -1.0, "max": 1.0}),
    "TANH": ("Tanh", {}),
}
_OPEN = {"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "WHERE", "UNIQUE", "WHILE", "IF", "CALL_ONCE"}
"""Operators whose sizes or steps depend on numbers."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the file holds, its axes in the file's order; `array` where its numbers are few."""

    shape: Shape
    dtype: str
    buffer: int
    array: Array | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value; `picture` where it stands channels-first though the file has it channels-last."""

    value: Value
    picture: bool = False

    @property
    def shape(self) -> Shape:
        """Shape as the file has it."""
        return tuple(self.value.shape[i] for i in TO_NHWC) if self.picture else self.value.shape


class Cut:
    """What follows from an operator before which the graph ends."""


Ref = Tensor | Constant | Cut


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


class Reader:
    """The state of reading one model.

    Args:
        data: The file.
        path: Where it is, for messages.
        sizes: What the user said of its inputs.
    """

    def __init__(self, data: mmap.mmap, path: Path, sizes: Sizes) -> None:
        import tflite

        self.schema, self.path, self.sizes = tflite, path, sizes
        self.model = tflite.Model.GetRootAs(data, 0)
        if self.model.SubgraphsLength() < 1:
            raise GraphError(f"{path}: holds no graph. Do this: convert or copy the model again.")
        self.graph = self.model.Subgraphs(0)
        self.kinds = _names(tflite.TensorType)
        self.builtin = _names(tflite.BuiltinOperator)
        self.activations = _names(tflite.ActivationFunctionType)
        self.refs: dict[int, Ref] = {}
        self.operators: list[Operator] = []
        self.notices: list[str] = []
        self.precision: str | None = None
        self._taken: Counter[str] = Counter()
        self._used: set[int] = set()
        self._quantised: dict[int, int] = {}  # tensors whose integers stand for floats -> bits
        self._frontier: dict[str, None] = {}
        self._cut: list[str] = []
        self._lost = 0

    def read(self) -> Graph:
        """Return the graph.

        Raises:
            UsageError: Other sizes are asked for than the file has.
            GraphError: The file is malformed.
        """
        inputs = [self.graph.Inputs(i) for i in range(self.graph.InputsLength())]
        declared = {self.name(i): self.shape(i) for i in inputs}
        for name, shape in self.sizes.settle(str(self.path), declared).items():
            if shape != declared[name]:
                shown = "x".join(map(str, declared[name]))
                raise UsageError(f"input shape: a TensorFlow Lite file fixes its sizes, got another of {name}. Expected {shown}.")
        for i in inputs:
            shape = self.shape(i)
            picture = len(shape) == 4
            value = Value(self.name(i), tuple(shape[j] for j in TO_NCHW) if picture else shape, self.dtype(i))
            self.refs[i] = Tensor(value, picture)
        if self.graph.OperatorsLength() > _MOST_OPERATORS:
            raise GraphError(f"{self.path}: more than {_MOST_OPERATORS} operators. Do this: convert the model again.")
        for i in range(self.graph.OperatorsLength()):
            self._read_operator(self.graph.Operators(i))
        outputs = [self.graph.Outputs(i) for i in range(self.graph.OutputsLength())]
        leaving = [ref.value.name for i in outputs if isinstance(ref := self.refs.get(i), Tensor)]
        if self._cut:
            read = {name for op in self.operators for name in op.inputs}
            leaving += [name for name in self._frontier if name not in read]
            self.notices.append(
                f"counted up to {self._cut[0]}: its sizes depend on numbers, or it is not known; {self._lost} operators from there on are left out"
            )
        entries = tuple(ref.value for i in inputs if isinstance(ref := self.refs[i], Tensor))
        if not self.operators or not leaving or not entries:
            why = f" ({self.notices[0]})" if self.notices else ""
            raise GraphError(f"{self.path}: no operator leads from an input to an output{why}. Do this: convert the model again.")
        graph = Graph(entries, tuple(self.operators), tuple(dict.fromkeys(leaving)), plain(self.path.stem), tuple(self.notices))
        if graph.cost.macs > _MOST_MACS:
            raise GraphError(f"{self.path}: no network is that large, got {graph.cost.macs:.3g} MACs. Do this: convert the model again.")
        return graph

    # --- tensors -----------------------------------------------------------------------------------------------------

    def _tensor(self, index: int) -> Any:
        if not 0 <= index < self.graph.TensorsLength():
            raise IndexError(f"the tensor {index} of {self.graph.TensorsLength()}")
        return self.graph.Tensors(index)

    def name(self, index: int) -> str:
        """Return a tensor's name as it may be shown."""
        text = self._tensor(index).Name()
        return plain(text.decode(errors="replace") if text else "") or f"tensor{index}"

    def shape(self, index: int) -> Shape:
        """Return a tensor's shape in the file's order of axes."""
        tensor = self._tensor(index)
        if not 0 <= tensor.ShapeLength() <= 8:
            raise ValueError(f"a tensor of {tensor.ShapeLength()} axes")
        shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
        if min(shape, default=1) < 0 or prod(shape) > _MOST_ELEMENTS:
            raise ValueError(f"a tensor of shape {shape}")
        return shape

    def dtype(self, index: int) -> str:
        """The type of a value; integers that stand for floats are read as these, with the bits remembered."""
        tensor = self._tensor(index)
        kind, quantisation = self.kinds.get(tensor.Type(), ""), tensor.Quantization()
        if kind not in _DTYPES:
            raise ValueError(f"the tensor type {tensor.Type()}")
        if kind in ("INT8", "UINT8", "INT16") and quantisation is not None and quantisation.ScaleLength():
            self._quantised[index] = 16 if kind == "INT16" else 8
            return "fp32"
        return _DTYPES[kind]

    def ref(self, index: int) -> Ref | None:
        """Return what an operand is; None where it is left out."""
        if index < 0:
            return None
        if index not in self.refs:
            tensor = self._tensor(index)
            buffer = self.model.Buffers(tensor.Buffer()) if 0 <= tensor.Buffer() < self.model.BuffersLength() else None
            shape, kind = self.shape(index), self.kinds.get(tensor.Type(), "")
            external = buffer is not None and buffer.Size() > 1  # behind the flatbuffer, in files over 2 GB
            if buffer is None or not (buffer.DataLength() or external):
                raise GraphError(
                    f"{self.path}: an operator reads {self.name(index)!r}, which nothing makes. Do this: convert the model again."
                )
            array = None
            if prod(shape) <= _KEPT and kind in _NUMPY and not external:
                raw = bytes(buffer.DataAsNumpy().tobytes()) if buffer.DataLength() <= 8 * _KEPT else b""
                array = np.frombuffer(raw, dtype=_NUMPY[kind], count=prod(shape)).reshape(shape)
            elif not external and kind in _NUMPY and buffer.DataLength() != prod(shape) * np.dtype(_NUMPY[kind]).itemsize:
                raise ValueError(f"a constant of shape {shape} that holds {buffer.DataLength()} bytes")
            dtype = _DTYPES.get(kind, "")
            if not dtype:
                raise ValueError(f"the tensor type {tensor.Type()}")
            self.refs[index] = Constant(shape, dtype, tensor.Buffer(), array)
        return self.refs[index]

    # --- operators ---------------------------------------------------------------------------------------------------

    def _read_operator(self, op: Any) -> None:
        code = self.model.OperatorCodes(op.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = code.CustomCode()
        name = self.builtin.get(number, f"operator {number}")
        if name == "CUSTOM":
            name = f"tflite.{plain((custom or b'?').decode(errors='replace'))}"
        inputs = [self.ref(op.Inputs(i)) for i in range(op.InputsLength())]
        outputs = [op.Outputs(i) for i in range(op.OutputsLength())]
        if not outputs:
            return
        if any(isinstance(ref, Cut) for ref in inputs) or self._is_open(name, outputs):
            self._end_before(name, inputs, outputs)
            return
        places = [op.Inputs(i) for i in range(op.InputsLength())]
        self.precision = self._precision_of(places)
        handler = HANDLERS.get(name) or HANDLERS["*"]
        call = Call(self, name, op, inputs, places, outputs)
        if all(ref is None or isinstance(ref, Constant) for ref in inputs) and inputs:
            source = next((ref for ref in inputs if isinstance(ref, Constant)), None)
            for index in outputs:
                kind = self.kinds.get(self._tensor(index).Type(), "")
                shape = self.shape(index)
                known = source is not None and source.array is not None and name in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
                array = source.array.reshape(shape) if known and source is not None and source.array is not None else None
                self.refs[index] = Constant(shape, _DTYPES.get(kind, "fp32"), source.buffer if source else -1, array)
            return
        try:
            handler(call)
        except GraphError as error:
            text = str(error)
            raise (
                error if text.startswith(str(self.path)) else GraphError(f"{self.path}: the operator {call.label!r} ({name}): {text}")
            ) from None
        except MALFORMED as error:
            reason = plain(" ".join(str(error).split()) or type(error).__name__)
            raise GraphError(
                f"{self.path}: the operator {call.label!r} ({name}) does not fit its definition, got: {reason}. Do this: convert the model again."
            ) from None

    def _is_open(self, name: str, outputs: Sequence[int]) -> bool:
        return name in _OPEN or (name not in HANDLERS and any(0 in self.shape(i) for i in outputs))

    def _end_before(self, name: str, inputs: Sequence[Ref | None], outputs: Sequence[int]) -> None:
        self._lost += 1
        self._frontier |= dict.fromkeys(ref.value.name for ref in inputs if isinstance(ref, Tensor))
        if not any(isinstance(ref, Cut) for ref in inputs):
            self._cut.append(f"{name} {self.name(outputs[0])!r}")
        for index in outputs:
            self.refs[index] = Cut()

    def _precision_of(self, places: Sequence[int]) -> str | None:
        bits = [self._quantised.get(i, 0) for i in places if i >= 0 and isinstance(self.refs.get(i), Tensor)]
        return None if not bits or 0 in bits else "w8a16" if max(bits) == 16 else "w8a8"

    def emit(
        self, label: str, op: str, operands: Sequence[Value | Constant], shape: Sequence[int], dtype: str, attributes: Mapping[str, Any]
    ) -> Value:
        """Write an operator of one output."""
        return self.emit_many(label, op, operands, [(tuple(shape), dtype)], attributes)[0]

    def emit_many(
        self, label: str, op: str, operands: Sequence[Value | Constant], made: Sequence[tuple[Shape, str]], attributes: Mapping[str, Any]
    ) -> list[Value]:
        """Write an operator of several outputs."""
        if any(min(shape, default=1) < 1 for shape, _ in made):
            raise GraphError(f"makes a tensor without elements, got {made[0][0]}")
        name = label
        while self._taken[name]:
            self._taken[label] += 1
            name = f"{label}_{self._taken[label]}"
        self._taken[name] += 1
        values = [Value(f"{name}:out{i}" if i else f"{name}:out", shape, dtype) for i, (shape, dtype) in enumerate(made)]
        inputs = tuple(ref.name for ref in operands if isinstance(ref, Value))
        weights = tuple(self._weight(ref, op) for ref in operands if isinstance(ref, Constant))
        self.operators.append(Operator(name, op, inputs, tuple(values), weights, freeze(attributes), self.precision))
        return values

    def _weight(self, ref: Constant, op: str) -> Weight:
        trained = ref.dtype in ("fp32", "fp16", "bf16", "int8", "uint8", "int4", "int16") or (
            ref.dtype in ("int32", "int64") and len(ref.shape) == 1
        )
        linear = op in OPS and OPS[op].category in _LINEAR
        elementwise = op in OPS and OPS[op].category in ("elementwise", "activation", "norm") and sum(s > 1 for s in ref.shape) == 1
        if not trained or not (linear or elementwise):
            return Weight(ref.shape, ref.dtype, False)
        again = ref.buffer in self._used
        self._used.add(ref.buffer)
        return Weight(ref.shape, ref.dtype, True, 0 if again else None)


@dataclass(slots=True)
class Call:
    """One operator of the file."""

    reader: Reader
    name: str
    op: Any
    inputs: list[Ref | None]
    places: list[int]
    outputs: list[int]

    @property
    def label(self) -> str:
        """Where it stands in the network: the name of what it makes."""
        return self.reader.name(self.outputs[0])

    def options(self, name: str) -> Any:
        """Return the table of options of this operator."""
        table, options = self.op.BuiltinOptions(), getattr(self.reader.schema, name)()
        if table is None:
            raise ValueError(f"no {name}")
        options.Init(table.Bytes, table.Pos)
        return options

    def shape(self, index: int = 0) -> Shape:
        """Shape of an output in the file's order of axes."""
        return self.reader.shape(self.outputs[index])

    def dtype(self, index: int = 0) -> str:
        """Type of an output."""
        return self.reader.dtype(self.outputs[index])

    def optional(self, index: int) -> Tensor | Constant:
        """An operand that must be there."""
        ref = self.inputs[index]
        if ref is None or isinstance(ref, Cut):
            raise ValueError(f"the operand {index} is left out")
        return ref

    def numbers(self, index: int) -> tuple[int, ...]:
        """Integers of a constant operand."""
        ref = self.optional(index)
        if not isinstance(ref, Constant) or ref.array is None:
            raise GraphError("sizes that are computed")
        return tuple(int(i) for i in ref.array.reshape(-1))

    def bias(self, index: int) -> list[Constant]:
        """A constant operand that may be left out."""
        ref = self.inputs[index] if index < len(self.inputs) else None
        return [ref] if isinstance(ref, Constant) else []

    def picture(self, index: int) -> Value:
        """An operand channels-first."""
        ref = self.optional(index)
        if isinstance(ref, Tensor) and ref.picture:
            return ref.value
        if len(ref.shape) != 4:
            raise ValueError(f"a tensor of shape {ref.shape} where a picture is expected")
        return self._relabelled(ref, tuple(ref.shape[i] for i in TO_NCHW))

    def flat(self, index: int) -> Value:
        """An operand in the file's order of axes."""
        ref = self.optional(index)
        if isinstance(ref, Tensor) and not ref.picture:
            return ref.value
        return self._relabelled(ref, ref.shape)

    def _relabelled(self, ref: Tensor | Constant, shape: Shape) -> Value:
        reader = self.reader
        if isinstance(ref, Constant):
            moved = Constant(shape, ref.dtype, ref.buffer)
            return reader.emit(f"{self.label}.constant", "Constant", [moved], shape, ref.dtype, {})
        return reader.emit(f"{self.label}.order", "Reshape", [ref.value], shape, ref.value.dtype, {"shape": shape})

    def is_picture(self, *indices: int) -> bool:
        """Whether all operands that are values stand channels-first."""
        refs = [self.inputs[i] for i in indices]
        values = [ref for ref in refs if isinstance(ref, Tensor)]
        return bool(values) and all(ref.picture for ref in values)

    def make(
        self, op: str, operands: Sequence[Value | Constant], attributes: Mapping[str, Any], *, picture: bool, activation: int = 0
    ) -> None:
        """Write the operator that makes the first output, and the activation that the file fuses into it."""
        reader, shape = self.reader, self.shape()
        shape = tuple(shape[i] for i in TO_NCHW) if picture else shape
        kind = reader.activations.get(activation, "?")
        made = reader.emit(self.label, op, operands, shape, self.dtype(), attributes)
        if kind != "NONE":
            if kind not in ACTIVATIONS:
                raise ValueError(f"the fused activation {kind}")
            name, bounds = ACTIVATIONS[kind]
            made = reader.emit(f"{self.label}.{name.lower()}", name, [made], shape, self.dtype(), bounds)
        reader.refs[self.outputs[0]] = Tensor(made, picture)


Handler = Callable[[Call], None]
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Return a decorator that files a handler under names of the schema."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register
