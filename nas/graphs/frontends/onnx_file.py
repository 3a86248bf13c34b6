"""A graph from an ``.onnx`` file: fp32, fp16, or quantised with QuantizeLinear / DequantizeLinear pairs; static shapes.

Weights are read as shapes and types alone, and what follows from constants (a shape that a file computes) is folded. An
operator outside the vocabulary keeps its name and is reported as unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from nas.errors import GraphError
from nas.graphs.frontends.sizes import Size, Sizes
from nas.graphs.graph import Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import OPS, Shape

Array = npt.NDArray[Any]

DTYPES = {
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
    TensorProto.COMPLEX64: "complex64",
}
_CODES = {name: code for code, name in DTYPES.items()}
_FLOATS = {"fp64", "fp32", "fp16", "bf16"}
_KEPT_ELEMENTS = 4096
"""Constants up to this size keep their numbers: shapes, axes and scalars are far smaller, weights far larger."""


def read_onnx(path: str | Path, sizes: Sizes | None = None) -> Graph:
    """Read a file; numbers of weights, inside or in external files, are not looked at.

    Args:
        path: The file.
        sizes: What the user said of sizes that the file leaves open, or that are to be replaced.

    Raises:
        UsageError: `sizes` name what the file does not have.
        GraphError: The file is missing, empty, truncated, not ONNX, dynamic, or has values without a shape; one line says what to do.
    """
    path = Path(path)
    model = _checked_model(path, sizes or Sizes())
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return _Reader(model, path).read()


def _checked_model(path: Path, sizes: Sizes) -> onnx.ModelProto:
    try:
        empty = path.stat().st_size == 0
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file.") from None
    if empty:
        raise GraphError(f"{path}: the file is empty. Do this: export the model again.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(f"{path}: not an ONNX file, or a truncated one, got: {reason}. Do this: export or copy the model again.") from None
    if not model.graph.node or not model.opset_import:
        raise GraphError(f"{path}: holds no operator, so it is no ONNX model, or a truncated one. Do this: export or copy it again.")
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _KEPT_ELEMENTS:
            for numbers in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(numbers)
    _settle_inputs(model, path, sizes)
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, DecodeError) as error:
        raise GraphError(
            f"{path}: its shapes contradict each other, got: {str(error).strip().splitlines()[0]}. Do this: export it again."
        ) from None


def _settle_inputs(model: onnx.ModelProto, path: Path, sizes: Sizes) -> None:
    """Give every input a fixed shape, in place; shapes that the file states of other values are dropped where an input's changes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {info.name: info for info in model.graph.input if info.name not in constants}
    declared = {name: _declared(info) for name, info in inputs.items()}
    settled = sizes.settle(str(path), declared)
    if all(shape == declared[name] for name, shape in settled.items()):
        return
    for name, shape in settled.items():
        tensor = inputs[name].type.tensor_type
        tensor.ClearField("shape")
        for size in shape:
            tensor.shape.dim.add().dim_value = size
    for info in [*model.graph.value_info, *model.graph.output]:
        info.type.tensor_type.ClearField("shape")


def _declared(info: onnx.ValueInfoProto) -> tuple[Size, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant; `array` where its numbers are known, `source` the initialiser behind it."""

    shape: Shape
    dtype: str
    source: str = ""
    array: Array | None = None

    @property
    def scalar(self) -> float | None:
        """The one number in it, where that is known."""
        return (
            float(self.array.reshape(-1)[0]) if self.array is not None and self.array.size == 1 and self.array.dtype.kind in "fiu" else None
        )


_Ref = Value | _Constant


class _Reader:
    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.path, self.graph = path, model.graph
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.refs: dict[str, _Ref] = {}
        self.operators: list[Operator] = []
        self._types: dict[str, tuple[Shape | None, str]] = {}
        self._taken: Counter[str] = Counter()
        self._bits: dict[str, int] = {}  # activation bits by the file's names: the same value may be read quantised and in float
        self._quantised: set[str] = set()  # initialisers that a DequantizeLinear unpacks
        self._used: set[str] = set()
        for info in [*self.graph.value_info, *self.graph.output, *self.graph.input]:
            self._types[info.name] = _type_of(info)

    def read(self) -> Graph:
        for tensor in self.graph.initializer:
            self._add_constant(tensor.name, tensor, tensor.name)
        inputs = []
        for info in self.graph.input:
            if info.name in self.refs:
                continue
            shape, dtype = self._types[info.name]
            assert shape is not None  # settled before inference
            inputs.append(Value(info.name, shape, dtype))
            self.refs[info.name] = inputs[-1]
        for node in self.graph.node:
            self._read_node(node)
        outputs = []
        for info in self.graph.output:
            ref = self.refs.get(info.name)
            if isinstance(ref, Value):
                outputs.append(ref.name)
        if not outputs or not inputs:
            raise GraphError(f"{self.path}: no output depends on an input. Do this: export the model again.")
        return Graph(tuple(inputs), tuple(self.operators), tuple(dict.fromkeys(outputs)), self.path.stem)

    def _add_constant(self, name: str, tensor: TensorProto, source: str) -> None:
        external = tensor.data_location == TensorProto.EXTERNAL
        known = not external and prod(tensor.dims) <= _KEPT_ELEMENTS
        array = numpy_helper.to_array(tensor) if known else None
        self.refs[name] = _Constant(tuple(tensor.dims), self._dtype(tensor.data_type, name), source, array)

    def _dtype(self, code: int, name: str) -> str:
        if code not in DTYPES:
            shown = TensorProto.DataType.Name(code)
            raise GraphError(
                f"{self.path}: the value {name!r} has a type that is not supported, got {shown}. Expected one of {', '.join(DTYPES.values())}."
            )
        return DTYPES[code]

    def _read_node(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self._constant_node(node, attributes)
            return
        operands: list[_Ref | None] = []
        for name in node.input:
            if name and name not in self.refs:
                raise GraphError(
                    f"{self.path}: the operator {node.name or node.op_type!r} reads {name!r}, which nothing makes. Do this: export it again."
                )
            operands.append(self.refs[name] if name else None)
        if self._fold(node, operands, attributes):
            return
        call = _Call(self, node, operands, attributes)
        if any(name and self._types.get(name, (None, ""))[0] is None for name in node.output):
            self._infer(node, operands)
        handler = _HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
        (handler or _generic)(call)

    def _constant_node(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
        if "value" in attributes:
            self._add_constant(node.output[0], attributes["value"], node.output[0])
            return
        given = next((v for k, v in attributes.items() if k.startswith("value_")), None)
        array = np.asarray(given, dtype=np.float32 if any("float" in k for k in attributes) else np.int64)
        self.refs[node.output[0]] = _Constant(array.shape, "fp32" if array.dtype.kind == "f" else "int64", node.output[0], array)

    def _fold(self, node: onnx.NodeProto, operands: Sequence[_Ref | None], attributes: Mapping[str, Any]) -> bool:
        """Work out an operator on constants (or on shapes) and remember the result."""
        if node.op_type == "Shape" and operands[0] is not None:
            shape = operands[0].shape[attributes.get("start", 0) : attributes.get("end")]
            self.refs[node.output[0]] = _Constant((len(shape),), "int64", "", np.array(shape, dtype=np.int64))
            return True
        constants = [ref for ref in operands if isinstance(ref, _Constant)]
        if any(isinstance(ref, Value) for ref in operands) or any(a for a in attributes.values() if isinstance(a, onnx.GraphProto)):
            return False
        if node.op_type == "DequantizeLinear":
            packed = constants[0]
            self._quantised.add(packed.source)
            self.refs[node.output[0]] = _Constant(packed.shape, packed.dtype, packed.source)
            return True
        if all(ref.array is not None for ref in constants):
            arrays = [None if ref is None else ref.array for ref in operands if not isinstance(ref, Value)]
            for name, array in zip(node.output, self._computed(node, arrays), strict=False):
                dtype = "bool" if array.dtype == np.bool_ else DTYPES.get(onnx.helper.np_dtype_to_tensor_dtype(array.dtype), "fp32")
                source = next((c.source for c in constants if c.source and c.dtype in _FLOATS), "")
                self.refs[name] = _Constant(array.shape, dtype, source, array if array.size <= _KEPT_ELEMENTS else None)
            return True
        source = next((c.source for c in constants if c.source and c.array is None), "")
        for name in node.output:
            if self._types.get(name, (None, ""))[0] is None:
                self._infer(node, operands)
            inferred, dtype = self._types.get(name, (None, "fp32"))
            if inferred is None:
                return False
            self.refs[name] = _Constant(inferred, dtype, source)
        return True

    def _infer(self, node: onnx.NodeProto, operands: Sequence[_Ref | None]) -> None:
        """Infer one operator again, now that the constants that it reads are worked out."""
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, self.opset, ""):
            return
        types, data = {}, {}
        for name, ref in zip(node.input, operands, strict=True):
            if ref is not None:
                types[name] = onnx.helper.make_tensor_type_proto(_CODES[ref.dtype], ref.shape)
                if isinstance(ref, _Constant) and ref.array is not None:
                    data[name] = numpy_helper.from_array(ref.array)
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        versions = [onnx.helper.make_opsetid("", self.opset)]
        try:
            found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=versions)
        except onnx.shape_inference.InferenceError:
            return
        for name, kind in found.items():
            self._types[name] = _type_of(onnx.ValueInfoProto(name=name, type=kind))

    def _computed(self, node: onnx.NodeProto, arrays: Sequence[Array | None]) -> list[Array]:
        from onnx.reference import ReferenceEvaluator

        feeds = {name: array for name, array in zip(node.input, arrays, strict=False) if name and array is not None}
        evaluator = ReferenceEvaluator(node, opsets={"": self.opset})
        try:
            return [np.asarray(array) for array in evaluator.run(None, feeds)]
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
            raise GraphError(f"{self.path}: cannot work out the constant operator {node.name or node.op_type!r}, got: {error}.") from None

    def shape_of(
        self, name: str, op: str, inputs: Sequence[Shape], weights: Sequence[Shape], attributes: Mapping[str, Any]
    ) -> tuple[Shape, str]:
        """Return the inferred shape and type of an output; where inference gave none, by the vocabulary."""
        known, dtype = self._types.get(name, (None, "fp32"))
        if known is not None:
            return known, dtype
        spec = OPS.get(op)
        if spec is None or spec.infer is None:
            raise GraphError(
                f"{self.path}: the value {name!r} (made by {op}) has no static shape. Do this: export with fixed input shapes, or run "
                f"python -m onnxruntime.tools.symbolic_shape_infer --input {self.path} --output fixed.onnx."
            )
        return spec.infer(inputs, weights, attributes), dtype

    def emit(
        self,
        call: _Call,
        op: str,
        operands: Sequence[_Ref],
        attributes: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        """Write an operator whose outputs are those of the node."""
        names = [name for name in (outputs or call.node.output) if name]
        plain = dict(freeze(attributes or {}))
        inputs = [ref for ref in operands if isinstance(ref, Value)]
        weights = tuple(self._weight(ref, op) for ref in operands if isinstance(ref, _Constant))
        made = []
        for name in names:
            shape, dtype = self.shape_of(name, op, [v.shape for v in inputs], [w.shape for w in weights], plain)
            made.append(Value(name, shape, inputs[0].dtype if dtype in _FLOATS and inputs and inputs[0].dtype in _FLOATS else dtype))
        precision, bits = self._precision(call.node, weights)
        self._taken[label := call.node.name or names[0]] += 1
        if self._taken[label] > 1:
            label = f"{label}_{self._taken[label]}"
        self.operators.append(Operator(label, op, tuple(v.name for v in inputs), tuple(made), weights, freeze(plain), precision))
        for value in made:
            self.refs[value.name] = value
            if bits:
                self._bits[value.name] = bits

    def insert(self, call: _Call, op: str, operand: _Ref, shape: Shape, attributes: Mapping[str, Any]) -> _Ref:
        """Write a moving operator of one operand before the node; a constant moves at once."""
        if isinstance(operand, _Constant):
            return _Constant(shape, operand.dtype, operand.source)
        name = f"{call.node.name or call.node.output[0]}.{op.lower()}.{len(self.operators)}"
        value = Value(name, shape, operand.dtype)
        self.operators.append(Operator(name, op, (operand.name,), (value,), (), freeze(attributes)))
        self.refs[name] = value
        return value

    def _weight(self, ref: _Constant, op: str) -> Weight:
        parameter = ref.dtype in _FLOATS or ref.source in self._quantised
        again = parameter and ref.source in self._used and bool(ref.source) and op != "Constant"
        self._used.add(ref.source)
        return Weight(ref.shape, ref.dtype, parameter, 0 if again else None)

    def _precision(self, node: onnx.NodeProto, weights: Sequence[Weight]) -> tuple[str | None, int]:
        """Return the precision that the file fixes, and the bits of the activations, which go on to the outputs."""
        floats = [name for name in node.input if isinstance(ref := self.refs.get(name), Value) and ref.dtype in _FLOATS]
        if not floats or any(name not in self._bits for name in floats):
            return None, 0
        if weights and weights[0].dtype in _FLOATS and len(weights[0].shape) > 1:
            return None, 0
        bits = max(self._bits[name] for name in floats)
        return ("w8a8" if bits == 8 else "w8a16"), bits

    def alias(self, name: str, of: str, bits: int = 0) -> None:
        """Let the file's `name` be the value `of`, quantised to `bits` (default: as `of` is)."""
        self.refs[name] = self.refs[of]
        if bits or of in self._bits:
            self._bits[name] = bits or self._bits[of]


@dataclass(slots=True)
class _Call:
    reader: _Reader
    node: onnx.NodeProto
    operands: list[_Ref | None]
    attributes: dict[str, Any]

    @property
    def given(self) -> list[_Ref]:
        """Operands that are there."""
        return [ref for ref in self.operands if ref is not None]

    def array(self, index: int) -> Array | None:
        """The numbers of a constant operand."""
        ref = self.operands[index] if index < len(self.operands) else None
        return ref.array if isinstance(ref, _Constant) else None

    def integers(self, index: int, name: str) -> tuple[int, ...] | None:
        """Integers that are an attribute in old operator sets and an input in new ones."""
        if name in self.attributes:
            return tuple(self.attributes[name])
        found = self.array(index)
        return None if found is None else tuple(int(i) for i in found.reshape(-1))

    def out_shape(self, infer_from: Shape | None = None) -> Shape:
        """Shape of the first output."""
        shape = self.reader._types.get(self.node.output[0], (None, ""))[0]
        if shape is None and infer_from is not None:
            return infer_from
        return shape if shape is not None else self.reader.shape_of(self.node.output[0], self.node.op_type, [], [], {})[0]


def _type_of(info: onnx.ValueInfoProto) -> tuple[Shape | None, str]:
    tensor = info.type.tensor_type
    dims = tensor.shape.dim
    dtype = DTYPES.get(tensor.elem_type, "fp32")
    static = tensor.HasField("shape") and all(d.HasField("dim_value") and d.dim_value > 0 for d in dims)
    return (tuple(d.dim_value for d in dims) if static else None), dtype


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(value) if isinstance(value, list) or hasattr(value, "extend") else value


# --- ONNX -> the vocabulary ---------------------------------------------------------------------------------------------

_Handler = Callable[[_Call], None]
_HANDLERS: dict[str, _Handler] = {}


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _generic(call: _Call) -> None:
    """An operator as it is; one of another domain keeps the domain in its name."""
    domain = call.node.domain
    name = call.node.op_type if domain in ("", "ai.onnx") else f"{domain}.{call.node.op_type}"
    kept = {key: value for key, value in call.attributes.items() if isinstance(value, int | float | str)}
    call.reader.emit(call, name, call.given, kept)


@_handles("Identity", "Dropout")
def _alias(call: _Call) -> None:
    call.reader.alias(call.node.output[0], call.node.input[0])


@_handles("QuantizeLinear")
def _quantise(call: _Call) -> None:
    zero = call.operands[2] if len(call.operands) > 2 else None
    wide = zero is not None and zero.dtype in {"int16", "uint16"}
    call.reader.alias(call.node.output[0], call.node.input[0], 16 if wide else 8)


@_handles("DequantizeLinear")
def _dequantise(call: _Call) -> None:
    call.reader.alias(call.node.output[0], call.node.input[0])


@_handles("Conv", "ConvTranspose")
def _conv(call: _Call) -> None:
    x, weight, *bias = call.given
    rank = len(weight.shape) - 2
    kernel = weight.shape[2:]
    stride = tuple(call.attributes.get("strides", (1,) * rank))
    dilation = tuple(call.attributes.get("dilations", (1,) * rank))
    attributes: dict[str, Any] = {"kernel": kernel, "stride": stride, "dilation": dilation, "groups": call.attributes.get("group", 1)}
    if isinstance(weight, Value):
        call.reader.emit(call, "DynamicConv", [x, weight, *bias], attributes | {"pads": tuple(call.attributes.get("pads", ()))})
        return
    if call.node.op_type == "Conv":
        attributes["pads"] = _pads(call, x.shape, kernel, stride, dilation)
    else:
        extra = tuple(call.attributes.get("output_padding", (0,) * rank))
        attributes |= {"pads": tuple(call.attributes.get("pads", (0,) * 2 * rank)), "output_padding": extra}
    call.reader.emit(call, call.node.op_type, [x, weight, *bias], attributes)


def _pads(call: _Call, x: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    rank, mode = len(kernel), call.attributes.get("auto_pad", "NOTSET")
    if mode in {"NOTSET", ""}:
        return tuple(call.attributes.get("pads", (0,) * 2 * rank))
    if mode == "VALID":
        return (0,) * 2 * rank
    total = [max(0, (-(-x[2 + i] // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[2 + i]) for i in range(rank)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return tuple(small + large if mode == "SAME_UPPER" else large + small)


@_handles("AveragePool", "MaxPool")
def _pool(call: _Call) -> None:
    kernel = tuple(call.attributes["kernel_shape"])
    stride = tuple(call.attributes.get("strides", (1,) * len(kernel)))
    dilation = tuple(call.attributes.get("dilations", (1,) * len(kernel)))
    attributes = {
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation if set(dilation) != {1} else None,
        "pads": _pads(call, call.given[0].shape, kernel, stride, dilation),
        "ceil": call.attributes.get("ceil_mode") or None,
    }
    call.reader.emit(call, call.node.op_type, call.given[:1], attributes)


def _swapped(call: _Call, ref: _Ref) -> _Ref:
    rank = len(ref.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return call.reader.insert(call, "Transpose", ref, tuple(ref.shape[i] for i in perm), {"perm": perm})


@_handles("Gemm")
def _gemm(call: _Call) -> None:
    x, weight, *bias = call.given
    x = _swapped(call, x) if call.attributes.get("transA") else x
    transposed = bool(call.attributes.get("transB"))
    if isinstance(weight, _Constant):
        if not transposed:
            weight = _Constant(weight.shape[::-1], weight.dtype, weight.source)
        if not bias or isinstance(bias[0], _Constant):
            call.reader.emit(call, "Gemm", [x, weight, *bias])
            return
    weight = _swapped(call, weight) if transposed else weight
    call.reader.emit(call, "MatMul", [x, weight])
    if bias:
        raise GraphError(
            f"{call.reader.path}: a Gemm adds a computed bias ({call.node.name!r}). Do this: simplify the file with onnxslim first."
        )


@_handles("MatMul")
def _matmul(call: _Call) -> None:
    a, b = call.given
    if isinstance(b, _Constant) and len(b.shape) == 2:
        call.reader.emit(call, "Gemm", [a, _Constant(b.shape[::-1], b.dtype, b.source)])
    elif isinstance(a, _Constant) and isinstance(b, Value) and len(a.shape) >= 2:
        out = call.out_shape()
        back = (*out[:-2], out[-1], out[-2])
        right, left = _swapped(call, b), _swapped(call, a)
        flipped = f"{call.node.output[0]}.flipped"
        call.reader._types[flipped] = (back, b.dtype)
        if len(a.shape) == 2:
            call.reader.emit(call, "Gemm", [right, _Constant(a.shape, a.dtype, a.source)], outputs=[flipped])
        else:
            call.reader.emit(call, "MatMul", [right, left], outputs=[flipped])
        rank = len(back)
        call.reader.emit(call, "Transpose", [call.reader.refs[flipped]], {"perm": (*range(rank - 2), rank - 1, rank - 2)})
    elif len(a.shape) == 1 or len(b.shape) == 1:
        if len(a.shape) == 1:
            a = call.reader.insert(call, "Reshape", a, (1, *a.shape), {"shape": (1, *a.shape)})
        if len(b.shape) == 1:
            b = call.reader.insert(call, "Reshape", b, (*b.shape, 1), {"shape": (*b.shape, 1)})
        whole = f"{call.node.output[0]}.whole"
        call.reader._types[whole] = ((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.dtype)
        call.reader.emit(call, "MatMul", [a, b], outputs=[whole])
        call.reader.emit(call, "Reshape", [call.reader.refs[whole]], {"shape": call.out_shape()})
    else:
        call.reader.emit(call, "MatMul", [a, b])


@_handles("Einsum")
def _einsum(call: _Call) -> None:
    call.reader.emit(call, "Einsum", call.given, {"equation": str(call.attributes["equation"]).replace(" ", "")})


@_handles("Attention", "MultiHeadAttention")
def _attention(call: _Call) -> None:
    q, k, v = call.given[:3]
    heads = call.attributes.get("q_num_heads") or call.attributes.get("num_heads")
    extra = [ref for ref in call.given[3:] if ref.dtype in _FLOATS or ref.dtype == "bool"]
    call.reader.emit(call, "Attention", [q, k, v, *extra], {"heads": heads if len(q.shape) == 3 else None}, outputs=call.node.output[:1])


@_handles("LSTM")
def _lstm(call: _Call) -> None:
    x, w, r, *rest = call.given
    constants = [ref for ref in (w, r) if isinstance(ref, _Constant)]
    bias = [_Constant((prod(ref.shape),), ref.dtype, ref.source) for ref in rest[:1] if isinstance(ref, _Constant) and len(ref.shape) == 2]
    attributes = {"bidirectional": int(call.attributes.get("direction") == "bidirectional"), "hidden": call.attributes.get("hidden_size")}
    call.reader.emit(call, "LSTM", [x, *constants, *bias], attributes)


@_handles("BatchNormalization")
def _batch_norm(call: _Call) -> None:
    x, scale, shift, mean, variance = call.given
    reader = call.reader
    reader.emit(
        call,
        "BatchNormalization",
        [x, scale, shift, mean, variance],
        {"epsilon": call.attributes.get("epsilon", 1e-5)},
        call.node.output[:1],
    )
    made = reader.operators[-1]
    statistics = tuple(Weight(w.shape, w.dtype, False) for w in made.weights[2:])
    reader.operators[-1] = Operator(
        made.name, made.op, made.inputs, made.outputs, made.weights[:2] + statistics, made.attributes, made.precision
    )


@_handles("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(call: _Call) -> None:
    rank = len(call.given[0].shape)
    axis = call.attributes.get("axis", -1) % rank - rank
    op = "LayerNormalization" if call.node.op_type == "LayerNormalization" else "RMSNormalization"
    call.reader.emit(call, op, call.given, {"axis": axis, "epsilon": call.attributes.get("epsilon", 1e-5)}, call.node.output[:1])


@_handles("GroupNormalization")
def _group_norm(call: _Call) -> None:
    call.reader.emit(call, "GroupNormalization", call.given, {"groups": call.attributes.get("num_groups")})


@_handles("Clip")
def _clip(call: _Call) -> None:
    bounds = {}
    for i, key in enumerate(("min", "max"), 1):
        ref = call.operands[i] if i < len(call.operands) else None
        bounds[key] = call.attributes.get(key, ref.scalar if isinstance(ref, _Constant) else None)
    call.reader.emit(call, "Clip", call.given[:1], bounds)


@_handles("Softmax", "LogSoftmax")
def _softmax(call: _Call) -> None:
    call.reader.emit(call, call.node.op_type, call.given, {"axis": call.attributes.get("axis", -1 if call.reader.opset >= 13 else 1)})


@_handles("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or")
def _binary(call: _Call) -> None:
    op = call.node.op_type.removesuffix("OrEqual")
    operands, attributes = list(call.given), {}
    if len(operands) == 2:
        constant = next((i for i, ref in enumerate(operands) if isinstance(ref, _Constant)), None)
        ref = operands[constant] if constant is not None else None
        if isinstance(ref, _Constant):
            if constant == 0 and op in {"Sub", "Div", "Pow", "Less", "Greater"}:
                attributes["reversed"] = 1
            other = operands[1 - (constant or 0)]
            if ref.scalar is not None and len(ref.shape) <= len(other.shape):
                attributes["scalar"] = ref.scalar  # type: ignore[assignment]
                operands = [other]
    call.reader.emit(call, op, operands, attributes)


def _reducing(op: str) -> _Handler:
    def handler(call: _Call) -> None:
        rank = len(call.given[0].shape)
        axes = call.integers(1, "axes") or tuple(range(rank))
        call.reader.emit(call, op, call.given[:1], {"axes": tuple(a % rank for a in axes), "keepdims": call.attributes.get("keepdims", 1)})

    return handler


_HANDLERS |= {name: _reducing(name) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")}


@_handles("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(call: _Call) -> None:
    x = call.given[0]
    target = call.array(1)
    worked_out = None
    if target is not None and call.node.op_type == "Reshape":
        sizes = [int(s) if s else x.shape[i] for i, s in enumerate(target.reshape(-1))]
        if -1 in sizes:
            sizes[sizes.index(-1)] = prod(x.shape) // -prod(sizes)
        worked_out = tuple(sizes)
    shape = call.out_shape(worked_out)
    if shape == x.shape:
        call.reader.alias(call.node.output[0], call.node.input[0])
    else:
        call.reader.emit(call, "Reshape", [x], {"shape": shape})


@_handles("Transpose")
def _transpose(call: _Call) -> None:
    rank = len(call.given[0].shape)
    call.reader.emit(call, "Transpose", call.given, {"perm": tuple(call.attributes.get("perm", range(rank)[::-1]))})


@_handles("Concat")
def _concat(call: _Call) -> None:
    call.reader.emit(call, "Concat", call.given, {"axis": call.attributes["axis"] % len(call.given[0].shape)})


@_handles("Split")
def _split(call: _Call) -> None:
    axis = call.attributes.get("axis", 0) % len(call.given[0].shape)
    call.reader.emit(call, "Split", call.given[:1], {"axis": axis})
    reader = call.reader
    made = reader.operators[-1]
    sizes = tuple(value.shape[axis] for value in made.outputs)
    reader.operators[-1] = Operator(
        made.name, made.op, made.inputs, made.outputs, (), freeze({"axis": axis, "sizes": sizes}), made.precision
    )


@_handles("Slice")
def _slice(call: _Call) -> None:
    x, shape = call.given[0], call.out_shape()
    starts, axes, steps = call.integers(1, "starts") or (), call.integers(3, "axes"), call.integers(4, "steps")
    axes = tuple(a % len(x.shape) for a in (axes or range(len(starts))))
    cut = [i for i in range(len(starts)) if shape[axes[i]] != x.shape[axes[i]] or (steps is not None and steps[i] < 0)]
    if not cut:
        call.reader.alias(call.node.output[0], call.node.input[0])
        return
    if len(cut) == 1:
        i = cut[0]
        axis = axes[i]
        start = starts[i] + x.shape[axis] if starts[i] < 0 else starts[i]
        attributes: dict[str, Any] = {"axis": axis, "start": start, "size": shape[axis], "step": steps[i] if steps else 1}
    else:
        attributes = {"axes": tuple(axes[i] for i in cut)}
    call.reader.emit(call, "Slice", [x], attributes)


@_handles("Gather")
def _gather(call: _Call) -> None:
    x, index = call.given
    axis = call.attributes.get("axis", 0) % len(x.shape)
    if isinstance(index, _Constant) and index.scalar is not None and not index.shape and isinstance(x, Value):
        if x.shape[axis] == 1:
            call.reader.emit(call, "Reshape", [x], {"shape": call.out_shape()})
        else:
            call.reader.emit(call, "Gather", [x], {"axis": axis, "index": int(index.scalar) % x.shape[axis]})
        return
    call.reader.emit(call, "Gather", [x, index], {"axis": axis})


@_handles("Pad")
def _pad(call: _Call) -> None:
    x = call.given[0]
    pads, axes, rank = call.integers(1, "pads"), call.integers(3, "axes"), len(x.shape)
    if pads is None:
        call.reader.emit(call, "Pad", [x])
        return
    if axes is not None:
        begin, end = [0] * rank, [0] * rank
        for i, axis in enumerate(axes):
            begin[axis], end[axis] = pads[i], pads[len(axes) + i]
        pads = (*begin, *end)
    mode = call.attributes.get("mode", "constant")
    value = call.array(2)
    if mode == "constant" and value is not None and value.size == 1 and value.reshape(-1)[0] != 0:
        mode = "value"
    if any(pads):
        call.reader.emit(call, "Pad", [x], {"pads": pads, "mode": mode if mode != "constant" else None})
    else:
        call.reader.alias(call.node.output[0], call.node.input[0])


@_handles("Resize", "Upsample")
def _resize(call: _Call) -> None:
    call.reader.emit(call, "Resize", call.given[:1], {"mode": call.attributes.get("mode", "nearest")})


@_handles("Expand", "Tile")
def _expand(call: _Call) -> None:
    x, shape = call.given[0], call.out_shape()
    if x.shape == shape:
        call.reader.alias(call.node.output[0], call.node.input[0])
    else:
        call.reader.emit(
            call, call.node.op_type, [x], {"shape": shape} if call.node.op_type == "Expand" else {"repeats": call.integers(1, "repeats")}
        )


@_handles("Cast")
def _cast(call: _Call) -> None:
    call.reader.emit(call, "Cast", call.given, {"to": DTYPES.get(call.attributes["to"], "fp32")})
    reader = call.reader
    made = reader.operators[-1]
    dtype = DTYPES.get(call.attributes["to"], "fp32")
    value = Value(made.outputs[0].name, made.outputs[0].shape, dtype)
    reader.operators[-1] = Operator(made.name, made.op, made.inputs, (value,), made.weights, made.attributes, made.precision)
    reader.refs[value.name] = value
