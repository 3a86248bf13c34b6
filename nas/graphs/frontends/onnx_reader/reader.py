"""Reads the nodes of a prepared model one after the other; the handlers say what each is in the vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from nas.errors import GraphError
from nas.graphs.frontends.onnx_reader.folding import fold
from nas.graphs.frontends.onnx_reader.preparation import MOST_NODES, check_text, in_order
from nas.graphs.frontends.onnx_reader.refs import (
    CODES,
    DTYPES,
    FLOATS,
    HANDLERS,
    QUANTISED,
    Call,
    Constant,
    Cut,
    EmptyTensorError,
    Items,
    OpenSizeError,
    Ref,
    Tensor,
    Types,
    is_parameter,
    python_value,
    trained_sources,
    type_of,
)
from nas.graphs.frontends.onnx_reader.wire import KEPT_FLOATS, KEPT_INTEGERS, numbers_of
from nas.graphs.frontends.text import plain
from nas.graphs.graph import Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import DATA_DEPENDENT, OPS, Shape

MOST_ELEMENTS, MOST_MACS = 2**36, 2**56
"""Beyond these no device holds a tensor, and no network is counted. Set by hand."""

_MAIN = ("", "ai.onnx")
_FLAGS = {"Equal", "Less", "Greater", "And", "Or", "Xor", "Not", "IsNaN", "IsInf"}
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
_MALFORMED = (
    StopIteration,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    ZeroDivisionError,
    OverflowError,
    AttributeError,
    NotImplementedError,
)


class Reader:
    """The state of reading one model.

    Args:
        model: As `prepare` gives it.
        stated: What the file says of values, by name; inference is asked first, since a file may be out of date.
        path: The file, for messages and external data.
    """

    def __init__(self, model: onnx.ModelProto, stated: Types, path: Path) -> None:
        self.path, self.graph, self.stated = path, model.graph, stated
        self.types: Types = {}  # worked out
        self.versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
        self.opset = self.versions.setdefault("", 1)
        self.refs: dict[str, Ref] = {}
        self.operators: list[Operator] = []
        self.notices: list[str] = []
        self.scope: dict[str, str] = {}  # of a body: names in the file -> names here
        self.prefix = ""
        self._taken: Counter[str] = Counter()
        self._bits: dict[str, int] = {}  # activation bits by name: the same value may be read quantised and in float
        self._quantised: set[str] = set()  # initialisers that hold integers instead of floats
        self._sizes: dict[str, int] = {}  # initialisers and what they count for
        self._used: set[str] = set()
        self._frontier: dict[str, None] = {}  # values that the operators read at which the graph ends
        self._cut: list[tuple[str, str]] = []
        self._lost = 0
        self._read, self._depth = 0, 0

    def read(self) -> Graph:
        """Return the graph.

        Raises:
            GraphError: The file is malformed; one line names the operator.
        """
        self._add_initialisers(self.graph, own=True)
        inputs = []
        for info in self.graph.input:
            if info.name in self.refs:
                continue
            if not info.type.HasField("tensor_type"):
                self.refs[info.name] = Cut()
                self._cut.append(("an input that is no tensor", plain(info.name)))
                continue
            shape, dtype = self.stated[info.name]
            if shape is not None and 0 in shape and len(self.graph.input) > 1:
                self.refs[info.name] = Constant(shape, dtype)  # holds nothing, and is there for its type
                continue
            if shape is None or min(shape, default=1) < 1 or prod(shape) > MOST_ELEMENTS:
                raise GraphError(f"{self.path}: the input {info.name!r} has no usable size, got {shape}. Expected positive sizes.")
            inputs.append(Value(info.name, shape, dtype))
            self.refs[info.name] = inputs[-1]
        for node in self.graph.node:
            self.read_node(node)
        outputs = [name for info in self.graph.output for name in self._values_of(self.refs.get(info.name))]
        if self._cut:
            read = {name for op in self.operators for name in op.inputs}
            outputs += [name for name in self._frontier if name not in read]
            self.notices.append(self._shown_cut())
        if not self.operators and not self._cut:
            outputs = [name for info in self.graph.output for name in self._spelt_out(info.name)]
        if not inputs or not outputs or not self.operators:
            why = f" ({self.notices[-1]})" if self._cut else ""
            raise GraphError(
                f"{self.path}: no operator that is counted leads from an input to an output{why}. Do this: export the model again."
            )
        entries, leaving = tuple(inputs), tuple(dict.fromkeys(outputs))
        graph = Graph(entries, tuple(self.operators), leaving, plain(self.path.stem), tuple(dict.fromkeys(self.notices)))
        if graph.cost.macs > MOST_MACS:
            raise GraphError(f"{self.path}: no network is that large, got {graph.cost.macs:.3g} MACs. Do this: check its sizes.")
        return graph

    def _values_of(self, ref: Ref | None) -> list[str]:
        if isinstance(ref, Items):
            return [name for item in ref.refs for name in self._values_of(item)]
        return [ref.name] if isinstance(ref, Value) else []

    def _spelt_out(self, name: str) -> list[str]:
        """Write an operator for an output that is an input or a constant, in a graph that has no other operator."""
        ref = self.refs.get(name)
        if not isinstance(ref, Value | Constant) or min(ref.shape, default=1) < 1:
            return []
        made = Value(f"{name}.out", ref.shape, ref.dtype)
        entering = (ref.name,) if isinstance(ref, Value) else ()
        weights = () if isinstance(ref, Value) else (Weight(ref.shape, ref.dtype, False),)
        self.operators.append(Operator(self._label(plain(name)), "Identity" if entering else "Constant", entering, (made,), weights))
        return [made.name]

    def _shown_cut(self) -> str:
        op, name = self._cut[0]
        why = (
            "what it holds is not known"
            if " " in op
            else "that operator is not known"
            if "." in op
            else "its sizes depend on numbers that are computed"
        )
        more = f" ({len(self._cut)} such operators)" if len(self._cut) > 1 else ""
        return f"counted up to {op} {name!r}{more}: {why}; {self._lost} operators from there on are left out"

    # --- constants ---------------------------------------------------------------------------------------------------

    def _add_initialisers(self, graph: onnx.GraphProto, own: bool = False) -> None:
        for tensor in graph.initializer:
            name = tensor.name if own else self._define(tensor.name)
            self.refs[name] = self.constant(tensor, name)
            self._sizes[name] = prod(tensor.dims)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name if own else self._define(sparse.values.name)
            self.refs[name] = Constant(tuple(sparse.dims), self.dtype(sparse.values.data_type, name), (name,))
            self._sizes[name] = prod(sparse.values.dims)

    def constant(self, tensor: TensorProto, source: str = "") -> Constant:
        """Return what a tensor in the file is; its numbers where they are few.

        Raises:
            GraphError: Its numbers do not fill its shape, or it is of an unknown type.
        """
        dtype, shape = self.dtype(tensor.data_type, source), tuple(tensor.dims)
        count = prod(shape)
        if min(shape, default=1) < 0 or count > MOST_ELEMENTS:
            raise GraphError(f"{self.path}: the constant {source!r} has an impossible shape, got {shape}. Do this: export it again.")
        known = count <= (KEPT_FLOATS if dtype in FLOATS else KEPT_INTEGERS)
        array = numbers_of(tensor, source, self.path) if known and dtype != "string" else None
        return Constant(shape, dtype, (source,) if source else (), array)

    def dtype(self, code: int, name: str) -> str:
        """Return the name of a type.

        Raises:
            GraphError: An unknown one.
        """
        if code not in DTYPES:
            shown = TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else code
            raise GraphError(f"{self.path}: the value {name!r} has a type that is not supported, got {shown}. Do this: export it again.")
        return DTYPES[code]

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _define(self, name: str) -> str:
        """Return the name here of a value that a body makes."""
        self.scope[name] = f"{self.prefix}{name}" if name else ""
        return self.scope[name]

    def read_node(self, node: onnx.NodeProto) -> None:
        """Read one node; what it makes is in `refs` afterwards.

        Raises:
            GraphError: It is malformed.
        """
        self._read += 1
        if self._read > MOST_NODES:
            raise GraphError(
                f"{self.path}: bodies within bodies make more than {MOST_NODES} operators. Do this: export it without its loops."
            )
        check_text(self.path, node.op_type, node.domain, node.name, *node.input, *node.output)
        names = tuple(self.scope.get(name, name) for name in node.input)
        if missing := [name for name in names if name and name not in self.refs]:
            shown = plain(node.name or node.op_type)
            raise GraphError(f"{self.path}: the operator {shown!r} reads {missing[0]!r}, which nothing makes. Do this: export it again.")
        outputs = tuple(self._define(name) if self.prefix else name for name in node.output)
        operands = [self.refs[name] if name else None for name in names]
        if not any(outputs):
            return
        call = Call(self, node, operands, {}, names, outputs, self._bits_of(names))
        mark = len(self.operators)
        try:
            call.attributes = {a.name: python_value(a) for a in node.attribute}
            if any(isinstance(ref, Cut) for ref in operands):
                self._end_before(call, follows=True)
            elif not self._fold(call):
                self._dispatch(call)
                self._keep_constant(call, mark)
        except OpenSizeError:
            del self.operators[mark:]
            self._end_before(call)
        except EmptyTensorError as error:
            del self.operators[mark:]
            for name in outputs:
                shape, dtype = self.known(call, name)
                self.refs[name] = Constant(error.shape if shape is None else shape, dtype or error.dtype)
        except GraphError as error:
            text = str(error)
            raise (
                error if text.startswith(str(self.path)) else GraphError(f"{self.path}: the operator {call.label!r} ({call.op}): {text}")
            ) from None
        except _MALFORMED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise GraphError(
                f"{self.path}: the operator {call.label!r} ({plain(call.op)}) does not fit its definition, got: {plain(reason)}. Do this: export it again."
            ) from None

    def _dispatch(self, call: Call) -> None:
        node = call.node
        if node.domain in _MAIN and node.op_type in DATA_DEPENDENT:
            raise OpenSizeError
        main = node.domain in _MAIN
        handler = HANDLERS.get(node.op_type if main else f"{node.domain}.{node.op_type}") or HANDLERS["*"]
        handler(call)

    def _end_before(self, call: Call, follows: bool = False) -> None:
        """Let the graph end before a node: what it makes stands for nothing that is counted."""
        self._lost += 1
        self._frontier |= dict.fromkeys(name for ref in call.operands for name in self._values_of(ref))
        if not follows:
            domain = call.node.domain
            self._cut.append((plain(call.op if domain in _MAIN else f"{domain}.{call.op}"), call.label))
        for name in call.outputs:
            self.refs[name] = Cut()

    def bind(self, name: str, ref: Ref, bits: int = 0) -> None:
        """Let a name be what `ref` is, quantised to `bits` where these are given."""
        if name:
            self.refs[name] = ref
            if bits:
                self._bits[name] = bits

    def bits_of(self, name: str) -> int:
        """Return the bits to which the value of a name is quantised, 0 where it is not."""
        return self._bits.get(name, 0)

    def _bits_of(self, names: Sequence[str]) -> int:
        floats = [name for name in names if isinstance(ref := self.refs.get(name), Value) and ref.dtype in FLOATS]
        return max((self._bits.get(name, 0) for name in floats), default=0) if all(name in self._bits for name in floats) else 0

    def body(self, graph: onnx.GraphProto, inputs: Sequence[Ref], label: str) -> list[Ref]:
        """Read a body with its inputs bound and return what its outputs are.

        Raises:
            GraphError: Bodies are nested too deep, or the body is malformed.
        """
        if self._depth >= 8:
            raise GraphError(f"{self.path}: bodies within bodies within bodies, got {label!r}. Expected at most 8 levels.")
        outer = self.scope, self.prefix
        self._depth += 1
        self.scope, self.prefix = dict(self.scope), f"{self.prefix}{label}."
        try:
            self._add_initialisers(graph)
            for info, ref in zip(graph.input, inputs, strict=False):
                self.refs[self._define(info.name)] = ref
            for node in in_order(list(graph.node), str(self.path)) or graph.node:
                self.read_node(node)
            names = [self.scope.get(info.name, info.name) for info in graph.output]
            if missing := [name for name in names if name not in self.refs]:
                raise GraphError(
                    f"{self.path}: the body of {label!r} returns {missing[0]!r}, which nothing makes. Do this: export it again."
                )
            return [self.refs[name] for name in names]
        finally:
            self.scope, self.prefix = outer
            self._depth -= 1

    # --- what follows from constants ---------------------------------------------------------------------------------

    def _fold(self, call: Call) -> bool:
        """Work out an operator on constants (or on shapes) and remember the result."""
        node, operands = call.node, call.operands
        if node.domain not in (*_MAIN, "com.microsoft") or node.op_type in _RANDOM:
            return False
        if node.op_type in ("Shape", "Size") and isinstance(operands[0], Value | Constant):
            shape = operands[0].shape[call.attributes.get("start", 0) : call.attributes.get("end")] if node.op_type == "Shape" else ()
            made = np.array(shape if node.op_type == "Shape" else prod(operands[0].shape), dtype=np.int64)
            self.refs[call.outputs[0]] = Constant(made.shape, "int64", (), made)
            return True
        if not all(ref is None or isinstance(ref, Constant) for ref in operands) or any(
            isinstance(a, onnx.GraphProto) for a in call.attributes.values()
        ):
            return False
        constants = [ref for ref in operands if isinstance(ref, Constant)]
        if node.op_type in ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"):
            return node.op_type != "DynamicQuantizeLinear" and self._requantised(call, constants)
        if node.op_type == "Constant" or not constants:
            return False
        sources = tuple(dict.fromkeys(source for ref in constants if ref.dtype in FLOATS | QUANTISED for source in ref.sources))
        arrays = [ref.array if isinstance(ref, Constant) else None for ref in operands]
        if all(ref is None or array is not None for ref, array in zip(operands, arrays, strict=True)):
            made_all = fold(node.op_type, arrays, call.attributes)
            for name, array in zip(call.outputs, made_all or (), strict=False):
                code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                self.refs[name] = Constant(array.shape, DTYPES.get(code, "fp32"), sources, array)
            if made_all is not None:
                return True
        for name in filter(None, call.outputs):
            known, kind = self.known(call, name)
            if known is None and name != call.outputs[0]:
                self.refs[name] = Cut()  # statistics of a norm and the like, which nothing reads
                continue
            if known is None:
                return False
            if prod(known) > MOST_ELEMENTS:
                raise GraphError(f"{self.path}: the constant that {call.label!r} makes is larger than any memory, got {known}.")
            self.refs[name] = Constant(known, kind, sources)
        return True

    def _keep_constant(self, call: Call, mark: int) -> None:
        """What an operator makes of constants alone stays a constant, whatever its handler has written for it."""
        constants = [ref for ref in call.operands if isinstance(ref, Constant)]
        written = self.operators[mark:]
        if not written or not constants or len(constants) < sum(ref is not None for ref in call.operands) or call.op in _RANDOM:
            return
        made = {value.name for op in written for value in op.outputs}
        if any(name not in made for op in written for name in op.inputs):  # a body that reads a value from outside
            return
        sources = tuple(dict.fromkeys(source for ref in constants if ref.dtype in FLOATS | QUANTISED for source in ref.sources))
        for name in call.outputs:
            if isinstance(ref := self.refs.get(name), Value):
                self.refs[name] = Constant(ref.shape, ref.dtype, sources)
        del self.operators[mark:]

    def _requantised(self, call: Call, constants: Sequence[Constant]) -> bool:
        """A quantised constant stays packed; a small one that is unpacked keeps its numbers too."""
        x, scale = constants[0], constants[1].scalar
        zero = (constants[2].scalar or 0.0) if len(constants) > 2 else 0.0
        scale = scale if scale and x.array is not None and x.array.size == 1 else None
        if call.op == "QuantizeLinear":
            kind = constants[2].dtype if len(constants) > 2 else "uint8"
            packed = None if scale is None or x.array is None else np.rint(x.array / scale) + zero
            self.refs[call.outputs[0]] = Constant(x.shape, kind, x.sources, packed)
            return True
        self._quantised |= set(x.sources)
        array = None if scale is None or x.array is None else (x.array.astype(np.float32) - zero) * np.float32(scale)
        self.refs[call.outputs[0]] = Constant(x.shape, x.dtype, x.sources, array)
        return True

    def known(self, call: Call, name: str) -> tuple[Shape | None, str]:
        """Return (shape, dtype) of what a node makes: set by its handler, inferred by onnx, or stated in the file; None and "" where open."""
        if self.types.get(name, (None, ""))[0] is None and not call.inferred:
            call.inferred = True
            self._infer(call)
        shape, dtype = self.types.get(name, (None, ""))
        return (shape, dtype) if shape is not None else self.stated.get(name, (None, dtype))

    def _infer(self, call: Call) -> None:
        """Infer one operator, now that the constants that it reads are worked out."""
        node, domain = call.node, "" if call.node.domain in _MAIN else call.node.domain
        version = self.versions.get(domain, 1)
        if not onnx.defs.has(node.op_type, version, domain) or any(isinstance(ref, Items | Cut) for ref in call.operands):
            return
        types, data = {}, {}
        for name, ref in zip(node.input, call.operands, strict=True):
            if isinstance(ref, Value | Constant):
                packed = isinstance(ref, Constant) and ref.dtype in QUANTISED and any(s in self._quantised for s in ref.sources)
                types[name] = onnx.helper.make_tensor_type_proto(CODES["fp32" if packed else ref.dtype], ref.shape)
                if isinstance(ref, Constant) and ref.array is not None:
                    data[name] = numpy_helper.from_array(ref.array)
        schema = onnx.defs.get_schema(node.op_type, version, domain)
        opsets = [onnx.helper.make_opsetid(key, number) for key, number in self.versions.items()]
        try:
            inferred = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError, TypeError):
            return
        for name, inner in zip(node.output, call.outputs, strict=True):
            if name in inferred:
                shape, dtype = type_of(onnx.ValueInfoProto(name=name, type=inferred[name]))
                if shape is not None or inner not in self.types:
                    self.types[inner] = shape, dtype

    # --- operators ---------------------------------------------------------------------------------------------------

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
        """Write an operator; the first output's `shape` and `dtype` follow from inference or the vocabulary where they are not given.

        Raises:
            OpenSizeError: The size of an output does not follow.
            GraphError: The operands do not fit.
        """
        pairs = dict(freeze(attributes))
        inputs = [ref for ref in operands if isinstance(ref, Value)]
        weights = tuple(self._weight(ref, op) for ref in operands if isinstance(ref, Constant))
        made = []
        for i, name in enumerate(names):
            known, stated = self.types.get(name, (None, ""))
            if i == 0 and shape is not None:
                known = tuple(shape)
            if known is None and i == 0 and op in OPS and (infer := OPS[op].infer) is not None:
                known = infer([v.shape for v in inputs], [w.shape for w in weights], pairs)
                stated = stated or "bool" if op in _FLAGS else stated or (inputs[-1].dtype if op == "Where" and inputs else "")
            if known is None:
                known, stated = self.known(call, name)
            if known is None:
                raise OpenSizeError
            if min(known, default=1) < 1 or prod(known) > MOST_ELEMENTS:
                if 0 in known and min(known) == 0:
                    raise EmptyTensorError(known, dtype or stated or "fp32")
                raise GraphError(f"makes a tensor that no memory holds, got {known}")
            made.append(Value(name, known, self._made_dtype(call, inputs, (dtype if i == 0 else None) or stated)))
        bits = call.bits if not (weights and weights[0].dtype in FLOATS and len(weights[0].shape) > 1) else 0
        precision = None if not bits else "w8a8" if bits == 8 else "w8a16"
        label = self._label(call.label if list(names) == [n for n in call.outputs if n] else plain(names[0]))
        self.operators.append(Operator(label, op, tuple(v.name for v in inputs), tuple(made), weights, freeze(pairs), precision))
        for value in made:
            self.bind(value.name, value, bits)
        return made

    def _made_dtype(self, call: Call, inputs: Sequence[Value], dtype: str) -> str:
        first = inputs[0].dtype if inputs else ""
        if not dtype:
            return first or "fp32"
        quantised = dtype in QUANTISED and call.bits > 0
        return first if first in FLOATS and (dtype in FLOATS or quantised) and call.op != "Cast" else dtype

    def _label(self, label: str) -> str:
        """Return an operator's name; one that a file uses twice gets a number."""
        prefixed = f"{plain(self.prefix)}{label}" if self.prefix and not label.startswith(plain(self.prefix)) else label
        made = prefixed
        while self._taken[made]:
            self._taken[prefixed] += 1
            made = f"{prefixed}_{self._taken[prefixed]}"
        self._taken[made] += 1
        return made

    def _weight(self, ref: Constant, op: str) -> Weight:
        if not is_parameter(ref, op, self._quantised):
            return Weight(ref.shape, ref.dtype, False)
        sources = trained_sources(ref, op)
        sizes = [self._sizes.get(source, 0) for source in sources if source not in self._used]
        self._used |= set(sources)
        # a table that is gathered counts as it is stored; of what several make together (a standardised weight) none counts twice
        count = min(sum(sizes), max(prod(ref.shape), *sizes)) if sizes else 0 if ref.sources else prod(ref.shape)
        return Weight(ref.shape, ref.dtype, True, None if count == prod(ref.shape) else count)

    def resize(self, source: str, count: int) -> None:
        """Let an initialiser, which the file holds packed, count for `count` parameters."""
        self._sizes[source] = count

    def take_packed(self, ref: Tensor) -> Tensor:
        """Return a constant that holds integers instead of floats, and count it as a parameter."""
        if isinstance(ref, Constant):
            self._quantised |= set(ref.sources)
        return ref
