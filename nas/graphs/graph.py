"""The phenotype: immutable operators with shapes and dtypes, in topological order, verified when made.

A `Graph` says what a device runs. It is lowered from an architecture, traced from a module or read from an ``.onnx``
file, and predictors see nothing else. Weights are part of their operator (shape and dtype, no numbers).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ArtifactError, GraphError
from nas.graphs.operators import Category, Shape, spec_of
from nas.units import Precision

if TYPE_CHECKING:
    import networkx

FORMAT_VERSION = 1

Attributes = dict[str, Any]
"""What an operator is told beside its tensors, by name; which there are differs by kind (see `nas.graphs.operators`)."""
DTYPE_BYTES: Mapping[str, float] = {
    "fp64": 8,
    "fp32": 4,
    "fp16": 2,
    "bf16": 2,
    "fp8": 1,
    "fp4": 0.5,
    "int64": 8,
    "uint64": 8,
    "int32": 4,
    "uint32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "int4": 0.5,
    "uint4": 0.5,
    "int2": 0.25,
    "uint2": 0.25,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
    "string": 16,
}
"""Bytes an element; of a string the pointer and length that runtimes keep."""

_FLOATS = {"fp64": 1, "fp32": 1, "fp16": 1, "bf16": 1, "complex64": 2, "complex128": 2}
"""Numbers that a precision replaces, by how many of them an element holds."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that flows between operators.

    Attributes:
        name: Unique in its graph.
        shape: Sizes, batch first; every size is a positive integer.
        dtype: A key of `DTYPE_BYTES`.
    """

    name: str
    shape: Shape
    dtype: str = "fp32"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant of an operator.

    Attributes:
        shape: Sizes; convolutions (c_out, c_in / groups, *kernel), `Gemm` (n, k), vectors (c,).
        dtype: A key of `DTYPE_BYTES`.
        parameter: Whether it counts as a parameter (false for running statistics, index tables, baked constants).
        trainable: Trainable parameters behind it where that is not its number of elements: a position table that is
            gathered when the network is built, a second use of a shared weight (0).
    """

    shape: Shape
    dtype: str = "fp32"
    parameter: bool = True
    trainable: int | None = None

    @property
    def params(self) -> int:
        """Trainable parameters that it counts for."""
        return 0 if not self.parameter else self.elements if self.trainable is None else self.trainable

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of a graph.

    Attributes:
        name: Unique in its graph; where it stands in the network (``stages.2.blocks.0.mixer``).
        op: A name of `nas.graphs.operators.OPS`, or a foreign name, which is then reported as unknown.
        inputs: Names of the values that it reads.
        outputs: The values that it makes.
        weights: Its constants; the main weight first, then bias or scale.
        attributes: Sorted pairs. Windows have ``kernel stride pads dilation groups``; ``activation`` names an
            activation that a pass has fused into the operator.
        precision: One of `nas.units.Precision` where the network fixes it, None where the run decides.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    weights: tuple[Weight, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    precision: str | None = None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default`."""
        for key, value in self.attributes:
            if key == name:
                return value
        return default

    @property
    def category(self) -> Category:
        """The class under which predictors price it."""
        return spec_of(self.op).category

    @property
    def priced_as(self) -> str:
        """The name by which predictors tell it from others of its category: its own, or that of a better-known operator of the same work."""
        return spec_of(self.op).priced_as or self.op


@dataclass(frozen=True, slots=True)
class Cost:
    """What a graph costs by arithmetic alone: counted, neither estimated nor measured.

    Attributes:
        macs: Multiply-adds of convolutions and matrix products.
        params: Trainable parameters.
        activation_elements: Elements of all outputs of operators that compute (layout operators move, they do not count).
        bytes_moved: Bytes read and written if no operator is fused with another, weights once.
        operators: Number of operators.
    """

    macs: int
    params: int
    activation_elements: int
    bytes_moved: float
    operators: int


@dataclass(frozen=True, eq=False)
class Graph:
    """An immutable network, verified on construction.

    Args:
        inputs: The values that enter.
        operators: In topological order.
        outputs: Names of the values that leave.
        name: For messages and files.
        notices: What a frontend left out or took for granted, one sentence each, for whoever reads a number of this graph. They do not
            enter equality or the key.

    Raises:
        GraphError: It breaks the specification; the message names the operator.
    """

    inputs: tuple[Value, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[str, ...]
    name: str = ""
    notices: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _verified_values(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and (self.inputs, self.operators, self.outputs) == (other.inputs, other.operators, other.outputs)

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """A 16-hex-digit content address; names do not enter, structure does."""
        order = {value.name: i for i, value in enumerate(self.values.values())}
        plain = [
            [
                op.op,
                [order[name] for name in op.inputs],
                [(v.shape, v.dtype) for v in op.outputs],
                [(w.shape, w.dtype) for w in op.weights],
                op.attributes,
                op.precision,
            ]
            for op in self.operators
        ]
        head = [[(v.shape, v.dtype) for v in self.inputs], [order[name] for name in self.outputs]]
        return hashlib.sha256(json.dumps([head, plain], separators=(",", ":")).encode()).hexdigest()[:16]

    def macs_of(self, operator: Operator) -> int:
        """Multiply-adds of one operator."""
        count = spec_of(operator.op).macs
        if count is None:
            return 0
        return count(
            [self.values[name].shape for name in operator.inputs],
            [w.shape for w in operator.weights],
            operator.outputs[0].shape,
            dict(operator.attributes),
        )

    @cached_property
    def cost(self) -> Cost:
        """Count MACs, parameters, elements, bytes and operators."""
        moved, elements = 0.0, 0
        for op in self.operators:
            moved += sum(_bytes(self.values[name]) for name in op.inputs) + sum(map(_bytes, op.outputs)) + sum(map(_bytes, op.weights))
            if op.category != "layout":
                elements += sum(value.elements for value in op.outputs)
        return Cost(
            macs=sum(map(self.macs_of, self.operators)),
            params=sum(w.params for op in self.operators for w in op.weights),
            activation_elements=elements,
            bytes_moved=moved,
            operators=len(self.operators),
        )

    def size_bytes(self, precision: str) -> float:
        """Bytes of the weights in a file at `precision` (the container adds a few kilobytes)."""
        width = {p: Precision(p or precision).weight_bytes for p in self.precisions}
        return sum(w.elements * _at_precision(w.dtype, width[op.precision]) for op in self.operators for w in op.weights)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of the operators, and of the activations that are fused into them: what a device must be able to run."""
        fused = {str(activation) for op in self.operators if (activation := op.attribute("activation"))}
        return frozenset(fused | {op.op for op in self.operators})

    @cached_property
    def precisions(self) -> frozenset[str | None]:
        """Precisions that operators fix; it holds None where one leaves it to the run."""
        return frozenset(op.precision for op in self.operators)

    def peak_memory_bytes(self, precision: str) -> float:
        """Largest sum of activations that are alive at once when the operators run in order; `precision` where none is fixed."""
        last = {name: i for i, op in enumerate(self.operators) for name in op.inputs}
        last |= {name: len(self.operators) for name in self.outputs}
        fixed = {value.name: op.precision for op in self.operators for value in op.outputs}
        width = {p: Precision(p or precision).activation_bytes for p in {*self.precisions, None}}
        size = {v.name: v.elements * _at_precision(v.dtype, width[fixed.get(v.name)]) for v in self.values.values()}
        alive = {value.name: size[value.name] for value in self.inputs}
        peak = sum(alive.values())
        for i, op in enumerate(self.operators):
            alive |= {value.name: size[value.name] for value in op.outputs}
            peak = max(peak, sum(alive.values()))
            for name in [n for n in alive if last.get(n, -1) <= i]:
                del alive[name]
        return peak

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the operator kinds that the vocabulary lacks, sorted."""
        return tuple(sorted({op.op for op in self.operators if op.category == "unknown"}))

    def producer(self) -> Mapping[str, Operator]:
        """Map each value's name to the operator that makes it; graph inputs are absent."""
        return {value.name: op for op in self.operators for value in op.outputs}

    def consumers(self) -> Mapping[str, list[Operator]]:
        """Map each value's name to the operators that read it, in order."""
        readers: dict[str, list[Operator]] = {name: [] for name in self.values}
        for op in self.operators:
            for name in dict.fromkeys(op.inputs):
                readers[name].append(op)
        return readers

    def to_networkx(self) -> networkx.DiGraph:
        """Return a view with one node an operator (attribute ``operator``) and one edge a value (``value``)."""
        import networkx

        view = networkx.DiGraph(name=self.name)
        made = self.producer()
        for op in self.operators:
            view.add_node(op.name, operator=op)
            for name in op.inputs:
                if name in made:
                    view.add_edge(made[name].name, op.name, value=self.values[name])
        return view

    def to_json(self) -> dict[str, object]:
        """Return plain data; `from_json` reads it back."""
        return {
            "version": FORMAT_VERSION,
            "name": self.name,
            "inputs": [[v.name, v.shape, v.dtype] for v in self.inputs],
            "outputs": list(self.outputs),
            "operators": [
                [
                    op.name,
                    op.op,
                    list(op.inputs),
                    [[v.name, v.shape, v.dtype] for v in op.outputs],
                    [[w.shape, w.dtype, int(w.parameter), *([] if w.trainable is None else [w.trainable])] for w in op.weights],
                    dict(op.attributes),
                    op.precision,
                ]
                for op in self.operators
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Graph:
        """Read what `to_json` gave.

        Raises:
            ArtifactError: The data is of another version or damaged.
        """
        if data.get("version") != FORMAT_VERSION:
            raise ArtifactError(f"graph: another format version, got {data.get('version')!r}. Expected {FORMAT_VERSION}.")
        try:
            operators = tuple(
                Operator(
                    name,
                    op,
                    tuple(inputs),
                    tuple(_value(v) for v in outputs),
                    tuple(Weight(tuple(s), d, bool(p), *t) for s, d, p, *t in weights),
                    freeze(attributes),
                    precision,
                )
                for name, op, inputs, outputs, weights, attributes, precision in data["operators"]
            )
            return cls(tuple(_value(v) for v in data["inputs"]), operators, tuple(data["outputs"]), data["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"graph: damaged data ({error}).") from None

    def save(self, path: Path) -> None:
        """Write gzipped JSON whose bytes depend on the content alone."""
        text = json.dumps(self.to_json(), separators=(",", ":")).encode()
        path.write_bytes(gzip.compress(text, mtime=0))

    @classmethod
    def load(cls, path: Path) -> Graph:
        """Read what `save` wrote.

        Raises:
            ArtifactError: No such file, or not such a file.
        """
        try:
            return cls.from_json(json.loads(gzip.decompress(path.read_bytes())))
        except FileNotFoundError:
            raise ArtifactError(f"graph: no such file, got {str(path)!r}.") from None
        except (gzip.BadGzipFile, EOFError, json.JSONDecodeError) as error:
            raise ArtifactError(f"graph: damaged file {str(path)!r} ({error}).") from None


def _value(data: Sequence[Any]) -> Value:
    name, shape, dtype = data
    return Value(name, tuple(shape), dtype)


def _at_precision(dtype: str, number_bytes: float) -> float:
    """Return the bytes of an element where numbers take `number_bytes` each; indices and flags keep theirs."""
    return number_bytes * _FLOATS[dtype] if dtype in _FLOATS else DTYPE_BYTES[dtype]


def _bytes(tensor: Value | Weight) -> float:
    return tensor.elements * DTYPE_BYTES[tensor.dtype]


def freeze(attributes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return attributes as sorted pairs with lists made tuples, so that they can be hashed; None drops out."""
    return tuple(
        (key, _tuple_of(value) if isinstance(value, list) else value) for key, value in sorted(attributes.items()) if value is not None
    )


def _tuple_of(values: list[Any]) -> tuple[Any, ...]:
    return tuple([_tuple_of(value) if isinstance(value, list) else value for value in values])


def _verified_values(graph: Graph) -> dict[str, Value]:
    values: dict[str, Value] = {}
    names: set[str] = set()
    for value in graph.inputs:
        _check_value("input", value, values)
    for op in graph.operators:
        if op.name in names:
            raise GraphError(f"{_where(graph, op)}: the name is taken twice.")
        names.add(op.name)
        try:
            shapes = [values[name].shape for name in op.inputs]
        except KeyError as error:
            raise GraphError(f"{_where(graph, op)}: reads a value that nothing before it makes, got {error}.") from None
        if not op.outputs:
            raise GraphError(f"{_where(graph, op)}: makes no value.")
        spec = spec_of(op.op)
        attributes = dict(op.attributes)
        for name in spec.required:
            if name not in attributes:
                raise GraphError(f"{_where(graph, op)}: lacks the attribute {name!r}.")
        if spec.infer is not None:
            try:
                expected = spec.infer(shapes, [w.shape for w in op.weights], attributes)
            except (GraphError, IndexError) as error:
                raise GraphError(f"{_where(graph, op)}: {error}.") from None
            if op.outputs[0].shape != expected:
                raise GraphError(f"{_where(graph, op)}: wrong output shape, got {op.outputs[0].shape}. Expected {expected}.")
        for value in op.outputs:
            if value.name in values or value.dtype not in DTYPE_BYTES or min(value.shape, default=1) < 1:
                _check_value(_where(graph, op), value, values)
            values[value.name] = value
    if missing := [name for name in graph.outputs if name not in values]:
        raise GraphError(f"graph {graph.name or '?'}: an output that nothing makes, got {missing[0]!r}.")
    return values


def _where(graph: Graph, op: Operator) -> str:
    return f"graph {graph.name or '?'}, operator {op.name!r} ({op.op})"


def _check_value(where: str, value: Value, values: dict[str, Value]) -> None:
    if value.name in values:
        raise GraphError(f"{where}: a value is made twice, got {value.name!r}.")
    if value.dtype not in DTYPE_BYTES:
        raise GraphError(f"{where}: unknown dtype, got {value.dtype!r}. Expected one of {', '.join(DTYPE_BYTES)}.")
    if min(value.shape, default=1) < 1:
        raise GraphError(f"{where}: {value.name!r} has a size below one, got {value.shape}.")
    values[value.name] = value


class GraphBuilder:
    """Writes a graph operator by operator; shapes follow from the vocabulary.

    Methods take and return value names. `scope` prefixes operator names, so that a breakdown reads like the network.

    Example:
        >>> b = GraphBuilder("tiny")
        >>> x = b.input((1, 3, 32, 32))
        >>> x = b.conv(x, 16, kernel=3, stride=2, activation="Relu")
        >>> graph = b.build(b.gemm(b.flatten(b.global_pool(x)), 10))
        >>> graph.cost.params
        618
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._inputs: list[Value] = []
        self._operators: list[Operator] = []
        self._values: dict[str, Value] = {}
        self._scope: list[str] = []

    def scope(self, name: str) -> _Scope:
        """Return a context in which operator names begin with `name` and a dot."""
        return _Scope(self._scope, name)

    def shape(self, value: str) -> Shape:
        """Return the shape of a value."""
        return self._values[value].shape

    def input(self, shape: Sequence[int], dtype: str = "fp32", name: str = "input") -> str:
        """Add a graph input."""
        value = Value(name, tuple(shape), dtype)
        self._inputs.append(value)
        self._values[name] = value
        return name

    def add_operator(
        self,
        op: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        weights: Sequence[Weight] = (),
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
        name: str | None = None,
    ) -> str:
        """Add any operator of the vocabulary with one output; `shape` is needed where it does not follow.

        Raises:
            GraphError: The shape does not follow and is not given, or the inputs disagree.
        """
        spec = spec_of(op)
        plain = dict(freeze(attributes or {}))
        if shape is None:
            if spec.infer is None:
                raise GraphError(f"{op}: its output shape does not follow from its input; give shape=.")
            shape = spec.infer([self._values[i].shape for i in inputs], [w.shape for w in weights], plain)
        label = ".".join([*self._scope, name or f"{op.lower()}"])
        label = label if label not in self._values else f"{label}_{len(self._operators)}"
        value = Value(label, tuple(shape), dtype or (self._values[inputs[0]].dtype if inputs else "fp32"))
        self._operators.append(Operator(label, op, tuple(inputs), (value,), tuple(weights), freeze(plain)))
        self._values[label] = value
        return label

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int | Sequence[int] = 1,
        *,
        stride: int | Sequence[int] = 1,
        pads: Sequence[int] | None = None,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        name: str | None = None,
    ) -> str:
        """Add a convolution, "same" padding by default ((kernel − 1)·dilation // 2 a side). (n, c, h, w) -> (n, channels, h', w')."""
        rank = len(self.shape(x)) - 2
        k, s, d = (_tuple(v, rank) for v in (kernel, stride, dilation))
        half = tuple((k[i] - 1) * d[i] // 2 for i in range(rank))
        weights = [Weight((channels, self.shape(x)[1] // groups, *k))] + [Weight((channels,))] * bias
        padding = tuple(pads) if pads is not None else half + half
        window = {"kernel": k, "stride": s, "pads": padding, "dilation": d, "groups": groups, "activation": activation}
        return self.add_operator("Conv", [x], window, weights=weights, name=name)

    def depthwise(
        self,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        activation: str | None = None,
        name: str | None = None,
    ) -> str:
        """Add a depthwise convolution with "same" padding."""
        c = self.shape(x)[1]
        return self.conv(x, c, kernel, stride=stride, dilation=dilation, groups=c, bias=bias, activation=activation, name=name)

    def gemm(self, x: str, features: int, *, bias: bool = True, activation: str | None = None, name: str | None = None) -> str:
        """Add a linear layer on the last axis: (…, k) -> (…, features)."""
        weights = [Weight((features, self.shape(x)[-1]))] + [Weight((features,))] * bias
        return self.add_operator("Gemm", [x], {"activation": activation}, weights=weights, name=name)

    def matmul(self, a: str, b: str, name: str | None = None) -> str:
        """Add a product of two activations: (…, m, k) · (…, k, n)."""
        return self.add_operator("MatMul", [a, b], name=name)

    def unary(self, op: str, x: str, name: str | None = None, **attributes: Any) -> str:
        """Add an activation or another operator that keeps the shape."""
        return self.add_operator(op, [x], attributes, name=name)

    def binary(self, op: str, a: str, b: str, name: str | None = None) -> str:
        """Add an elementwise operator of two activations."""
        return self.add_operator(op, [a, b], name=name)

    def scale(self, x: str, shape: Sequence[int], *, op: str = "Mul", parameter: bool = True, name: str | None = None) -> str:
        """Add an elementwise operator with a constant of `shape` (layer scale, position table)."""
        return self.add_operator(op, [x], weights=[Weight(tuple(shape), parameter=parameter)], name=name)

    def norm(self, op: str, x: str, channels: int, *, bias: bool = True, name: str | None = None, **attributes: Any) -> str:
        """Add a normalisation with a scale and, by default, a shift of `channels` each."""
        weights = [Weight((channels,))] * (2 if bias else 1)
        if op == "BatchNormalization":
            weights += [Weight((channels,), parameter=False)] * 2
        return self.add_operator(op, [x], attributes, weights=weights, name=name)

    def batch_norm(self, x: str, name: str | None = None) -> str:
        """Add a batch norm in its deploy form.

        It becomes part of the convolution that makes `x` (which then has a bias) where nothing else reads `x` and no
        activation was fused; otherwise, its statistics being fixed, it is a scale and a shift: two plain operators.
        """
        position = next((i for i, op in enumerate(self._operators) if op.outputs[0].name == x), None)
        maker = None if position is None else self._operators[position]
        if position is None or maker is None or maker.op != "Conv" or maker.attribute("activation") or self._is_read(x):
            shape = (self.shape(x)[1], *(1,) * (len(self.shape(x)) - 2))
            return self.scale(self.scale(x, shape, name=name and f"{name}.scale"), shape, op="Add", name=name and f"{name}.shift")
        if len(maker.weights) == 1:
            self._operators[position] = replace(maker, weights=(*maker.weights, Weight((self.shape(x)[1],))))
        return x

    def _is_read(self, value: str) -> bool:
        return any(value in op.inputs for op in self._operators)

    def pool(
        self,
        op: str,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add ``AveragePool`` or ``MaxPool``; stride defaults to the kernel, padding to none."""
        rank = len(self.shape(x)) - 2
        k = _tuple(kernel, rank)
        window = {"kernel": k, "stride": _tuple(kernel if stride is None else stride, rank), "pads": tuple(pads or (0,) * 2 * rank)}
        return self.add_operator(op, [x], window | attributes, name=name)

    def global_pool(self, x: str, name: str | None = None) -> str:
        """Add a mean over all spatial positions: (n, c, h, w) -> (n, c, 1, 1)."""
        return self.add_operator("GlobalAveragePool", [x], name=name)

    def reduce(self, op: str, x: str, axes: Sequence[int], *, keepdims: bool = True, name: str | None = None) -> str:
        """Add a reduction over `axes`."""
        return self.add_operator(op, [x], {"axes": tuple(axes), "keepdims": int(keepdims)}, name=name)

    def concat(self, values: Sequence[str], axis: int = 1, name: str | None = None) -> str:
        """Join values along `axis`."""
        return self.add_operator("Concat", list(values), {"axis": axis}, name=name)

    def split(self, x: str, sizes: Sequence[int], axis: int = 1, name: str | None = None) -> tuple[str, ...]:
        """Cut a value along `axis` into parts of `sizes`.

        Raises:
            GraphError: The sizes do not add up.
        """
        whole = self._values[x]
        axis %= len(whole.shape)
        if sum(sizes) != whole.shape[axis]:
            raise GraphError(f"Split: sizes {tuple(sizes)} do not add up to {whole.shape[axis]}.")
        first_shape = (*whole.shape[:axis], sizes[0], *whole.shape[axis + 1 :])
        first = self.add_operator("Split", [x], {"axis": axis, "sizes": tuple(sizes)}, shape=first_shape, name=name)
        operator = self._operators.pop()
        rest = tuple(
            Value(f"{first}:{i}", (*whole.shape[:axis], size, *whole.shape[axis + 1 :]), whole.dtype) for i, size in enumerate(sizes[1:], 1)
        )
        self._operators.append(replace(operator, outputs=(*operator.outputs, *rest)))
        self._values |= {value.name: value for value in rest}
        return (first, *(value.name for value in rest))

    def narrow(self, x: str, axis: int, start: int, size: int, name: str | None = None) -> str:
        """Take `size` positions of an axis, from `start` on; the value itself where that is all of them.

        Raises:
            GraphError: The axis is shorter.
        """
        shape = list(self.shape(x))
        if not 0 <= start <= start + size <= shape[axis]:
            raise GraphError(f"Slice: {size} positions from {start} do not fit into {shape[axis]}.")
        if size == shape[axis]:
            return x
        shape[axis] = size
        return self.add_operator("Slice", [x], {"axis": axis, "start": start, "size": size, "step": 1}, shape=shape, name=name)

    def reshape(self, x: str, shape: Sequence[int], name: str | None = None) -> str:
        """Give a value another shape of as many elements; one −1 is worked out."""
        sizes = list(shape)
        if -1 in sizes:
            sizes[sizes.index(-1)] = prod(self.shape(x)) // -prod(sizes)
        return self.add_operator("Reshape", [x], {"shape": tuple(sizes)}, name=name)

    def flatten(self, x: str, name: str | None = None) -> str:
        """Reshape to (n, everything else)."""
        return self.reshape(x, (self.shape(x)[0], -1), name=name)

    def transpose(self, x: str, perm: Sequence[int], name: str | None = None) -> str:
        """Permute axes."""
        return self.add_operator("Transpose", [x], {"perm": tuple(perm)}, name=name)

    def attention(self, q: str, k: str, v: str, name: str | None = None) -> str:
        """Add softmax(q·kᵀ / √d)·v as one operator: (…, n, d), (…, m, d), (…, m, e) -> (…, n, e)."""
        return self.add_operator("Attention", [q, k, v], name=name)

    def inline(self, graph: Graph, x: str) -> str:
        """Write the operators of a graph of one input and one output, and return the output's name.

        Raises:
            GraphError: The graph does not take what `x` is.
        """
        (entry,), (exit_name,) = graph.inputs, graph.outputs
        if entry.shape != self.shape(x):
            raise GraphError(f"graph {graph.name or '?'}: takes {entry.shape}, got {self.shape(x)}.")
        prefix = ".".join(self._scope)
        renamed = {name: f"{prefix}.{name}" if prefix else name for name in graph.values} | {entry.name: x}
        for op in graph.operators:
            made = tuple(replace(value, name=renamed[value.name]) for value in op.outputs)
            name = f"{prefix}.{op.name}" if prefix else op.name
            self._operators.append(replace(op, name=name, inputs=tuple(renamed[i] for i in op.inputs), outputs=made))
            self._values |= {value.name: value for value in made}
        return renamed[exit_name]

    def build(self, *outputs: str) -> Graph:
        """Return the verified graph.

        Raises:
            GraphError: It breaks the specification.
        """
        return Graph(tuple(self._inputs), tuple(self._operators), outputs, self._name)


class _Scope:
    def __init__(self, stack: list[str], name: str) -> None:
        self._stack, self._name = stack, name

    def __enter__(self) -> None:
        self._stack.append(self._name)

    def __exit__(self, *_: object) -> None:
        self._stack.pop()


def _tuple(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def join(segments: Sequence[tuple[str, Graph]], name: str = "") -> Graph:
    """Chain named graphs of one input and one output each: the output of one is the input of the next.

    Raises:
        GraphError: A segment has several inputs or outputs, or does not take what the one before it gives.
    """
    flow: Value | None = None
    operators: list[Operator] = []
    for label, segment in segments:
        if len(segment.inputs) != 1 or len(segment.outputs) != 1:
            raise GraphError(
                f"join: segment {label!r} has {len(segment.inputs)} inputs and {len(segment.outputs)} outputs. Expected one each."
            )
        entry = segment.inputs[0]
        flow = flow or entry
        if (flow.shape, flow.dtype) != (entry.shape, entry.dtype):
            raise GraphError(f"join: segment {label!r} takes {entry.shape} {entry.dtype}, got {flow.shape} {flow.dtype}.")
        renamed = {value: f"{label}.{value}" for value in segment.values} | {entry.name: flow.name}
        for op in segment.operators:
            made = tuple(replace(value, name=renamed[value.name]) for value in op.outputs)
            operators.append(replace(op, name=f"{label}.{op.name}", inputs=tuple(renamed[i] for i in op.inputs), outputs=made))
        exit_value = segment.values[segment.outputs[0]]
        flow = replace(exit_value, name=renamed[exit_value.name])
    if flow is None:
        raise GraphError("join: no segment.")
    return Graph((segments[0][1].inputs[0],), tuple(operators), (flow.name,), name)
