"""A graph from a ``.tflite`` file: float, or quantised to eight or sixteen bits. Sizes are those that the file states.

The format has pictures channels-last. Here a value that convolutions, pools and resizes read stands channels-first, as everywhere in this
system; where a file's own order of axes matters (a reshape, a transpose, a product) a `Reshape` that costs nothing gives it back.
"""

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
_KEPT = 4096
_MOST_ELEMENTS, _MOST_OPERATORS, _MOST_MACS = 2**36, 100_000, 2**56
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # of a picture, channels-last -> channels-first
_LINEAR = {"conv", "matmul"}
_MALFORMED = (
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
_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "RELU": ("Relu", {}),
    "RELU6": ("Clip", {"min": 0.0, "max": 6.0}),
    "RELU_N1_TO_1": ("Clip", {"min": -1.0, "max": 1.0}),
    "TANH": ("Tanh", {}),
}
_UNARY: dict[str, tuple[str, dict[str, float]]] = {
    **_ACTIVATIONS,
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
_OPEN = {"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "WHERE", "UNIQUE", "WHILE", "IF", "CALL_ONCE"}
"""Operators whose sizes or steps depend on numbers."""


def read_tflite(path: str | Path, sizes: Sizes | None = None) -> Graph:
    """Read a file; numbers of weights are not looked at.

    Raises:
        UsageError: `sizes` ask for other shapes than the file's.
        GraphError: The file is missing, empty, truncated, not TensorFlow Lite, or malformed; one line says what to do.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise GraphError(f"{path}: not a TensorFlow Lite file, or a truncated one. Do this: convert or copy the model again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
                return _Reader(held, path, sizes or Sizes()).read()
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file.") from None
    except (OSError, BufferError, *_MALFORMED) as error:
        reason = plain(" ".join(str(error).split()) or type(error).__name__)
        raise GraphError(f"{path}: a damaged TensorFlow Lite file, got: {reason}. Do this: convert or copy the model again.") from None


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor that the file holds, its axes in the file's order; `array` where its numbers are few."""

    shape: Shape
    dtype: str
    buffer: int
    array: Array | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A value; `picture` where it stands channels-first though the file has it channels-last."""

    value: Value
    picture: bool = False

    @property
    def shape(self) -> Shape:
        """Shape as the file has it."""
        return tuple(self.value.shape[i] for i in _TO_NHWC) if self.picture else self.value.shape


class _Cut:
    """What follows from an operator before which the graph ends."""


_Ref = _Tensor | _Constant | _Cut


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


class _Reader:
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
        self.refs: dict[int, _Ref] = {}
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
        inputs = [self.graph.Inputs(i) for i in range(self.graph.InputsLength())]
        declared = {self.name(i): self.shape(i) for i in inputs}
        for name, shape in self.sizes.settle(str(self.path), declared).items():
            if shape != declared[name]:
                shown = "x".join(map(str, declared[name]))
                raise UsageError(f"input shape: a TensorFlow Lite file fixes its sizes, got another of {name}. Expected {shown}.")
        for i in inputs:
            shape = self.shape(i)
            picture = len(shape) == 4
            value = Value(self.name(i), tuple(shape[j] for j in _TO_NCHW) if picture else shape, self.dtype(i))
            self.refs[i] = _Tensor(value, picture)
        if self.graph.OperatorsLength() > _MOST_OPERATORS:
            raise GraphError(f"{self.path}: more than {_MOST_OPERATORS} operators. Do this: convert the model again.")
        for i in range(self.graph.OperatorsLength()):
            self._read_operator(self.graph.Operators(i))
        outputs = [self.graph.Outputs(i) for i in range(self.graph.OutputsLength())]
        leaving = [ref.value.name for i in outputs if isinstance(ref := self.refs.get(i), _Tensor)]
        if self._cut:
            read = {name for op in self.operators for name in op.inputs}
            leaving += [name for name in self._frontier if name not in read]
            self.notices.append(
                f"counted up to {self._cut[0]}: its sizes depend on numbers, or it is not known; {self._lost} operators from there on are left out"
            )
        entries = tuple(ref.value for i in inputs if isinstance(ref := self.refs[i], _Tensor))
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
        text = self._tensor(index).Name()
        return plain(text.decode(errors="replace") if text else "") or f"tensor{index}"

    def shape(self, index: int) -> Shape:
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

    def ref(self, index: int) -> _Ref | None:
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
            self.refs[index] = _Constant(shape, dtype, tensor.Buffer(), array)
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
        if any(isinstance(ref, _Cut) for ref in inputs) or self._is_open(name, outputs):
            self._end_before(name, inputs, outputs)
            return
        places = [op.Inputs(i) for i in range(op.InputsLength())]
        self.precision = self._precision_of(places)
        handler = _HANDLERS.get(name, _generic)
        call = _Call(self, name, op, inputs, places, outputs)
        if all(ref is None or isinstance(ref, _Constant) for ref in inputs) and inputs:
            source = next((ref for ref in inputs if isinstance(ref, _Constant)), None)
            for index in outputs:
                kind = self.kinds.get(self._tensor(index).Type(), "")
                shape = self.shape(index)
                known = source is not None and source.array is not None and name in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
                array = source.array.reshape(shape) if known and source is not None and source.array is not None else None
                self.refs[index] = _Constant(shape, _DTYPES.get(kind, "fp32"), source.buffer if source else -1, array)
            return
        try:
            handler(call)
        except GraphError as error:
            text = str(error)
            raise (
                error if text.startswith(str(self.path)) else GraphError(f"{self.path}: the operator {call.label!r} ({name}): {text}")
            ) from None
        except _MALFORMED as error:
            reason = plain(" ".join(str(error).split()) or type(error).__name__)
            raise GraphError(
                f"{self.path}: the operator {call.label!r} ({name}) does not fit its definition, got: {reason}. Do this: convert the model again."
            ) from None

    def _is_open(self, name: str, outputs: Sequence[int]) -> bool:
        return name in _OPEN or (name not in _HANDLERS and any(0 in self.shape(i) for i in outputs))

    def _end_before(self, name: str, inputs: Sequence[_Ref | None], outputs: Sequence[int]) -> None:
        self._lost += 1
        self._frontier |= dict.fromkeys(ref.value.name for ref in inputs if isinstance(ref, _Tensor))
        if not any(isinstance(ref, _Cut) for ref in inputs):
            self._cut.append(f"{name} {self.name(outputs[0])!r}")
        for index in outputs:
            self.refs[index] = _Cut()

    def _precision_of(self, places: Sequence[int]) -> str | None:
        bits = [self._quantised.get(i, 0) for i in places if i >= 0 and isinstance(self.refs.get(i), _Tensor)]
        return None if not bits or 0 in bits else "w8a16" if max(bits) == 16 else "w8a8"

    def emit(
        self, label: str, op: str, operands: Sequence[Value | _Constant], shape: Sequence[int], dtype: str, attributes: Mapping[str, Any]
    ) -> Value:
        """Write an operator of one output."""
        return self.emit_many(label, op, operands, [(tuple(shape), dtype)], attributes)[0]

    def emit_many(
        self, label: str, op: str, operands: Sequence[Value | _Constant], made: Sequence[tuple[Shape, str]], attributes: Mapping[str, Any]
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
        weights = tuple(self._weight(ref, op) for ref in operands if isinstance(ref, _Constant))
        self.operators.append(Operator(name, op, inputs, tuple(values), weights, freeze(attributes), self.precision))
        return values

    def _weight(self, ref: _Constant, op: str) -> Weight:
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
class _Call:
    """One operator of the file."""

    reader: _Reader
    name: str
    op: Any
    inputs: list[_Ref | None]
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

    def given(self, index: int) -> _Tensor | _Constant:
        """An operand that must be there."""
        ref = self.inputs[index]
        if ref is None or isinstance(ref, _Cut):
            raise ValueError(f"the operand {index} is left out")
        return ref

    def numbers(self, index: int) -> tuple[int, ...]:
        """Integers of a constant operand."""
        ref = self.given(index)
        if not isinstance(ref, _Constant) or ref.array is None:
            raise GraphError("sizes that are computed")
        return tuple(int(i) for i in ref.array.reshape(-1))

    def bias(self, index: int) -> list[_Constant]:
        """A constant operand that may be left out."""
        ref = self.inputs[index] if index < len(self.inputs) else None
        return [ref] if isinstance(ref, _Constant) else []

    def picture(self, index: int) -> Value:
        """An operand channels-first."""
        ref = self.given(index)
        if isinstance(ref, _Tensor) and ref.picture:
            return ref.value
        if len(ref.shape) != 4:
            raise ValueError(f"a tensor of shape {ref.shape} where a picture is expected")
        return self._relabelled(ref, tuple(ref.shape[i] for i in _TO_NCHW))

    def flat(self, index: int) -> Value:
        """An operand in the file's order of axes."""
        ref = self.given(index)
        if isinstance(ref, _Tensor) and not ref.picture:
            return ref.value
        return self._relabelled(ref, ref.shape)

    def _relabelled(self, ref: _Tensor | _Constant, shape: Shape) -> Value:
        reader = self.reader
        if isinstance(ref, _Constant):
            moved = _Constant(shape, ref.dtype, ref.buffer)
            return reader.emit(f"{self.label}.constant", "Constant", [moved], shape, ref.dtype, {})
        return reader.emit(f"{self.label}.order", "Reshape", [ref.value], shape, ref.value.dtype, {"shape": shape})

    def is_picture(self, *indices: int) -> bool:
        """Whether all operands that are values stand channels-first."""
        refs = [self.inputs[i] for i in indices]
        values = [ref for ref in refs if isinstance(ref, _Tensor)]
        return bool(values) and all(ref.picture for ref in values)

    def make(
        self, op: str, operands: Sequence[Value | _Constant], attributes: Mapping[str, Any], *, picture: bool, activation: int = 0
    ) -> None:
        """Write the operator that makes the first output, and the activation that the file fuses into it."""
        reader, shape = self.reader, self.shape()
        shape = tuple(shape[i] for i in _TO_NCHW) if picture else shape
        kind = reader.activations.get(activation, "?")
        made = reader.emit(self.label, op, operands, shape, self.dtype(), attributes)
        if kind != "NONE":
            if kind not in _ACTIVATIONS:
                raise ValueError(f"the fused activation {kind}")
            name, bounds = _ACTIVATIONS[kind]
            made = reader.emit(f"{self.label}.{name.lower()}", name, [made], shape, self.dtype(), bounds)
        reader.refs[self.outputs[0]] = _Tensor(made, picture)


_Handler = Callable[[_Call], None]
_HANDLERS: dict[str, _Handler] = {}


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _generic(call: _Call) -> None:
    """An operator outside the vocabulary keeps its name."""
    reader = call.reader
    operands = [call.flat(i) for i, ref in enumerate(call.inputs) if isinstance(ref, _Tensor)]
    made = [(call.shape(i), call.dtype(i)) for i in range(len(call.outputs))]
    name = call.name if "." in call.name else f"tflite.{call.name}"
    for index, value in zip(call.outputs, reader.emit_many(call.label, name, operands, made, {}), strict=True):
        reader.refs[index] = _Tensor(value)


@_handles("QUANTIZE", "DEQUANTIZE", "CAST")
def _convert(call: _Call) -> None:
    """Between floats and the integers that stand for them: part of what reads or makes them. Other casts are operators."""
    ref = call.given(0)
    assert isinstance(ref, _Tensor)
    dtype = call.dtype()
    if call.name != "CAST" and ref.value.dtype == dtype == "fp32":
        call.reader.refs[call.outputs[0]] = ref
        return
    shape = ref.value.shape
    made = call.reader.emit(call.label, "Cast" if call.name == "CAST" else "DequantizeLinear", [ref.value], shape, dtype, {"to": dtype})
    call.reader.refs[call.outputs[0]] = _Tensor(made, ref.picture)


def _window(call: _Call, options: Any, x: Shape, kernel: Shape, dilated: bool = True) -> dict[str, Any]:
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor()) if dilated else (1, 1)
    if min(*stride, *dilation, *kernel) < 1:
        raise ValueError(f"a window of kernel {kernel}, strides {stride}, dilations {dilation}")
    pads = (0, 0, 0, 0)
    if options.Padding() == call.reader.schema.Padding.SAME:
        total = [max(0, (-(-x[2 + i] // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[2 + i]) for i in (0, 1)]
        pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    return {"kernel": kernel, "stride": stride, "dilation": dilation, "pads": pads}


def _matrix(call: _Call, index: int) -> _Constant:
    ref = call.given(index)
    if not isinstance(ref, _Constant):
        raise GraphError("weights that are computed. Do this: convert the model with constant weights")
    return ref


@_handles("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(call: _Call) -> None:
    x, w, depthwise = call.picture(0), _matrix(call, 1), call.name != "CONV_2D"
    options = call.options("DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    if depthwise:
        _, high, wide, out = w.shape
        shape, groups = (out, 1, high, wide), x.shape[1]
    else:
        out, high, wide, inner = w.shape
        shape, groups = (out, inner, high, wide), x.shape[1] // inner
    weight = _Constant(shape, w.dtype, w.buffer)
    attributes = _window(call, options, x.shape, (high, wide)) | {"groups": groups}
    call.make("Conv", [x, weight, *call.bias(2)], attributes, picture=True, activation=options.FusedActivationFunction())


@_handles("TRANSPOSE_CONV")
def _transposed(call: _Call) -> None:
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
    weight = _Constant((inner, out, high, wide), w.dtype, w.buffer)
    call.make("ConvTranspose", [x, weight, *call.bias(3)], attributes, picture=True, activation=options.FusedActivationFunction())


@_handles("FULLY_CONNECTED")
def _dense(call: _Call) -> None:
    options, w = call.options("FullyConnectedOptions"), call.given(1)
    x, reader = call.flat(0), call.reader
    inner, shape = w.shape[1], call.shape()
    rows = (prod(x.shape) // inner, inner) if not options.KeepNumDims() else (*x.shape[:-1], inner)
    if x.shape != rows:
        x = reader.emit(f"{call.label}.rows", "Reshape", [x], rows, x.dtype, {"shape": rows})
    made = (*rows[:-1], w.shape[0])
    if isinstance(w, _Constant):
        operands: list[Value | _Constant] = [x, w, *call.bias(2)]
        op = "Gemm"
    else:
        turned = reader.emit(f"{call.label}.turned", "Transpose", [call.flat(1)], w.shape[::-1], x.dtype, {"perm": (1, 0)})
        operands, op = [x, turned], "MatMul"
    if made == shape:
        call.make(op, operands, {}, picture=False, activation=options.FusedActivationFunction())
        return
    product = reader.emit(f"{call.label}.product", op, operands, made, call.dtype(), {})
    call.make("Reshape", [product], {"shape": shape}, picture=False, activation=options.FusedActivationFunction())


@_handles("BATCH_MATMUL")
def _product(call: _Call) -> None:
    options, reader = call.options("BatchMatMulOptions"), call.reader
    a, b = call.flat(0), call.given(1)
    if options.AdjX():
        a = _swapped(call, a)
    if isinstance(b, _Constant) and len(b.shape) == 2:
        weight = b if options.AdjY() else _Constant(b.shape[::-1], b.dtype, b.buffer)
        call.make("Gemm", [a, weight], {}, picture=False)
        return
    right = call.flat(1)
    call.make("MatMul", [a, _swapped(call, right) if options.AdjY() else right], {}, picture=False)
    del reader


def _swapped(call: _Call, x: Value) -> Value:
    rank = len(x.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return call.reader.emit(f"{call.label}.turned", "Transpose", [x], [x.shape[i] for i in perm], x.dtype, {"perm": perm})


@_handles("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def _pool(call: _Call) -> None:
    x, options = call.picture(0), call.options("Pool2DOptions")
    attributes = _window(call, options, x.shape, (options.FilterHeight(), options.FilterWidth()), dilated=False)
    del attributes["dilation"]
    op = {"AVERAGE_POOL_2D": "AveragePool", "MAX_POOL_2D": "MaxPool"}.get(call.name, "LpPool")
    call.make(op, [x], attributes, picture=True, activation=options.FusedActivationFunction())


@_handles(*_UNARY, "PRELU")
def _unary(call: _Call) -> None:
    op, attributes = _UNARY.get(call.name, ("PRelu", {}))
    ref = call.given(0)
    assert isinstance(ref, _Tensor)
    slopes = [_channels_first(s, ref) for s in call.bias(1)] if call.name == "PRELU" else []
    call.make(op, [ref.value, *slopes], attributes, picture=ref.picture)


def _channels_first(constant: _Constant, beside: _Tensor) -> _Constant:
    """Return a constant in the order of axes of the value that it is combined with."""
    if not beside.picture or not constant.shape:
        return constant
    shape = (*(1 for _ in range(4 - len(constant.shape))), *constant.shape)
    return _Constant(tuple(shape[i] for i in _TO_NCHW), constant.dtype, constant.buffer, None)


@_handles(*_BINARY, "SQUARED_DIFFERENCE")
def _binary(call: _Call) -> None:
    reader, picture = call.reader, call.is_picture(0, 1) and len(call.shape()) == 4
    operands: list[Value | _Constant] = []
    attributes: dict[str, Any] = {}
    for i in (0, 1):
        ref = call.given(i)
        if isinstance(ref, _Tensor):
            operands.append(ref.value if picture else call.flat(i))
        elif prod(ref.shape) == 1 and len(ref.shape) <= len(call.shape()):
            if i == 0 and call.name in ("SUB", "DIV", "POW"):
                attributes["reversed"] = 1
            if ref.array is not None and ref.array.dtype.kind == "f":
                attributes["scalar"] = float(ref.array.reshape(-1)[0])
        elif picture:
            operands.append(_channels_first(ref, _Tensor(Value("", (1, 1, 1, 1)), True)))
        else:
            operands.append(ref)
    if call.name == "SQUARED_DIFFERENCE":
        shape = call.shape()
        shape = tuple(shape[i] for i in _TO_NCHW) if picture else shape
        difference = reader.emit(f"{call.label}.difference", "Sub", operands, shape, call.dtype(), attributes)
        call.make("Pow", [difference], {"scalar": 2.0}, picture=picture)
        return
    fused = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(call.name)
    activation = call.options(fused).FusedActivationFunction() if fused and call.op.BuiltinOptions() is not None else 0
    call.make(_BINARY[call.name], operands, attributes, picture=picture, activation=activation)


@_handles("SOFTMAX", "LOG_SOFTMAX")
def _softmax(call: _Call) -> None:
    ref = call.given(0)
    assert isinstance(ref, _Tensor)
    axis = 1 if ref.picture else -1
    call.make("Softmax" if call.name == "SOFTMAX" else "LogSoftmax", [ref.value], {"axis": axis}, picture=ref.picture)


@_handles(*_REDUCTIONS)
def _reduction(call: _Call) -> None:
    ref, axes, keep = call.given(0), call.numbers(1), bool(call.options("ReducerOptions").KeepDims())
    assert isinstance(ref, _Tensor)
    rank = len(ref.shape)
    axes = tuple(sorted({axis % rank for axis in axes}))
    picture = ref.picture and (keep or axes in ((1, 2), (0, 1, 2)))
    value = ref.value if picture else call.flat(0)
    places = tuple(sorted(_AXIS[axis] for axis in axes)) if picture else axes
    call.make(_REDUCTIONS[call.name], [value], {"axes": places, "keepdims": int(keep)}, picture=picture and keep)


@_handles("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(call: _Call) -> None:
    x = call.flat(0)
    if call.shape() == x.shape:
        call.reader.refs[call.outputs[0]] = _Tensor(x)
    else:
        call.make("Reshape", [x], {"shape": call.shape()}, picture=False)


@_handles("TRANSPOSE")
def _transpose(call: _Call) -> None:
    call.make("Transpose", [call.flat(0)], {"perm": call.numbers(1)}, picture=False)


@_handles("CONCATENATION")
def _concatenation(call: _Call) -> None:
    options, indices = call.options("ConcatenationOptions"), range(len(call.inputs))
    picture = call.is_picture(*indices) and len(call.shape()) == 4 and not any(isinstance(ref, _Constant) for ref in call.inputs)
    axis = options.Axis() % len(call.shape())
    parts: list[Value | _Constant] = [call.picture(i) if picture else call.flat(i) for i in indices]
    call.make("Concat", parts, {"axis": _AXIS[axis] if picture else axis}, picture=picture, activation=options.FusedActivationFunction())


@_handles("PACK")
def _pack(call: _Call) -> None:
    shape, axis = call.shape(), call.options("PackOptions").Axis() % len(call.shape())
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [
        call.reader.emit(f"{call.label}.part", "Reshape", [x], single, x.dtype, {"shape": single})
        for x in (call.flat(i) for i in range(len(call.inputs)))
    ]
    if len(parts) == 1:
        call.reader.refs[call.outputs[0]] = _Tensor(parts[0])
    else:
        call.make("Concat", parts, {"axis": axis}, picture=False)


@_handles("UNPACK", "SPLIT", "SPLIT_V")
def _split(call: _Call) -> None:
    reader, place = call.reader, 1 if call.name == "SPLIT" else 0
    ref = call.given(place)
    assert isinstance(ref, _Tensor)
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
        reader.refs[index] = _Tensor(value, picture)


@_handles("SLICE", "STRIDED_SLICE", "PAD", "PADV2", "MIRROR_PAD", "TILE", "BROADCAST_TO")
def _move(call: _Call) -> None:
    """What takes a part of a tensor, or puts it into a larger one; its cost follows from the sizes."""
    ref, shape = call.given(0), call.shape()
    assert isinstance(ref, _Tensor)
    picture = ref.picture and len(shape) == 4
    x = ref.value if picture else call.flat(0)
    out = tuple(shape[i] for i in _TO_NCHW) if picture else shape
    if out == x.shape:
        call.reader.refs[call.outputs[0]] = _Tensor(x, picture)
    elif "PAD" in call.name:
        flat = call.numbers(1)
        pairs = [(flat[2 * i], flat[2 * i + 1]) for i in range(len(shape))]
        pairs = [pairs[i] for i in _TO_NCHW] if picture else pairs
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


@_handles("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP")
def _gather(call: _Call) -> None:
    table, index = (1, 0) if call.name == "EMBEDDING_LOOKUP" else (0, 1)
    operands: list[Value | _Constant] = []
    for i in (table, index):
        ref = call.given(i)
        operands.append(call.flat(i) if isinstance(ref, _Tensor) else ref)
    axis = call.options("GatherOptions").Axis() if call.name == "GATHER" else 0
    call.make("GatherND" if call.name == "GATHER_ND" else "Gather", operands, {"axis": axis}, picture=False)


@_handles("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def _resize(call: _Call) -> None:
    op = {"DEPTH_TO_SPACE": "DepthToSpace", "SPACE_TO_DEPTH": "SpaceToDepth"}.get(call.name, "Resize")
    mode = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}.get(call.name)
    call.make(op, [call.picture(0)], {"mode": mode}, picture=True)


@_handles("ARG_MAX", "ARG_MIN", "CUMSUM", "ONE_HOT", "SELECT", "SELECT_V2", "ADD_N")
def _plain(call: _Call) -> None:
    op = {"ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin", "CUMSUM": "CumSum", "ONE_HOT": "OneHot", "ADD_N": "Sum"}.get(call.name, "Where")
    values = [call.flat(i) for i, ref in enumerate(call.inputs) if isinstance(ref, _Tensor)]
    if op == "Sum":
        total = values[0]
        for value in values[1:]:
            total = call.reader.emit(f"{call.label}.sum", "Add", [total, value], call.shape(), call.dtype(), {})
        call.reader.refs[call.outputs[0]] = _Tensor(total)
        return
    call.make(op, values, {}, picture=False)


@_handles("TOPK_V2")
def _top(call: _Call) -> None:
    made = [(call.shape(i), call.dtype(i)) for i in range(len(call.outputs))]
    for index, value in zip(call.outputs, call.reader.emit_many(call.label, "TopK", [call.flat(0)], made, {}), strict=True):
        call.reader.refs[index] = _Tensor(value)


@_handles("SHAPE", "RANK", "ZEROS_LIKE")
def _known(call: _Call) -> None:
    ref, shape = call.given(0), call.shape()
    array = np.array(ref.shape if call.name == "SHAPE" else len(ref.shape), dtype=np.int64) if call.name != "ZEROS_LIKE" else None
    call.reader.refs[call.outputs[0]] = _Constant(shape, call.dtype(), -1, array)
