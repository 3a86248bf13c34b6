"""A graph from a ``.pt2`` archive of `torch.export`: its program is run on tensors without numbers, as `torch_module` runs a module.

Only ``models/model.json`` is read, which says every operator, shape and type. Weights are not looked at, and what the archive holds as
pickles (its sample inputs) is never opened.
"""

from __future__ import annotations

import json
import operator
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor, prod
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from nas.errors import GraphError
from nas.graphs.frontends.sizes import Size, Sizes
from nas.graphs.frontends.text import plain
from nas.graphs.frontends.torch_module import Recording
from nas.graphs.graph import Graph

_MEMBERS = ("models/model.json", "serialized_exported_program.json")
_MOST_BYTES, _MOST_NODES, _MOST_ELEMENTS, _MOST_MACS = 2**28, 100_000, 2**36, 2**56  # by hand
_DTYPES = {  # torch._export.serde.schema.ScalarType
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    12: torch.bool,
    13: torch.bfloat16,
}
_PLAIN: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
    },
    "math.ceil": ceil,
    "math.floor": floor,
    "math.trunc": int,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
    "torch.sym_int": int,
    "torch.sym_float": float,
}
"""Arithmetic on sizes."""

_Tagged = Mapping[str, Any]
"""One of the schema's alternatives: a single key says which, its value is of the shape that belongs to it."""


class _Argument(TypedDict):
    name: str
    arg: _Tagged
    kind: NotRequired[int]


class _Node(TypedDict):
    target: str
    inputs: list[_Argument]
    outputs: list[_Tagged]
    name: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, str] | None]


class _TensorMeta(TypedDict):
    dtype: int
    sizes: list[_Tagged]


class _Graph(TypedDict):
    nodes: list[_Node]
    outputs: list[_Tagged]
    tensor_values: Mapping[str, _TensorMeta]


class _Signature(TypedDict):
    input_specs: list[_Tagged]


class _GraphModule(TypedDict):
    graph: _Graph
    signature: _Signature


class _Program(TypedDict):
    """What is read of ``model.json`` (torch._export.serde.schema); a file that lacks it is malformed."""

    graph_module: _GraphModule


_MALFORMED = (
    StopIteration,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    AssertionError,
    NotImplementedError,
    OverflowError,
    ZeroDivisionError,
)


class _EndError(Exception):
    """The program goes on with what depends on numbers, or with what is not read."""


def read_pt2(path: str | Path, sizes: Sizes | None = None) -> Graph:
    """Read an archive.

    Raises:
        UsageError: `sizes` name what the file does not have.
        GraphError: The file is missing, empty, truncated, no such archive, dynamic, or malformed; one line says what to do.
    """
    path = Path(path)
    program = _program(path)
    try:
        return _Reader(program, path).read(sizes or Sizes())
    except RecursionError:
        raise GraphError(f"{path}: its program is nested too deep. Do this: export it again.") from None
    except _MALFORMED as error:
        reason = plain(" ".join(str(error).split()) or type(error).__name__)
        raise GraphError(f"{path}: its program does not fit its definition, got: {reason}. Do this: export it again.") from None


def _program(path: Path) -> _Program:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(_MEMBERS)]
            if not members:
                raise GraphError(f"{path}: no archive of torch.export: it has no {_MEMBERS[0]}. Do this: save it with torch.export.save.")
            with archive.open(members[0]) as file:
                text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise GraphError(f"{path}: its program has more than {_MOST_BYTES // 2**20} MB. Do this: export it again.")
        program = json.loads(text)
        if not isinstance(program, dict):
            raise ValueError("no object")
        return cast(_Program, program)
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file.") from None
    except (
        OSError,
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        zipfile.LargeZipFile,
        zlib.error,
    ) as error:
        reason = plain(" ".join(str(error).split()) or type(error).__name__)
        raise GraphError(
            f"{path}: not an archive of torch.export, or a truncated one, got: {reason}. Do this: export or copy it again."
        ) from None


class _Reader:
    def __init__(self, program: _Program, path: Path) -> None:
        self.path = path
        self.graph, self.signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        self.values: dict[str, Any] = {}
        self.symbols: dict[str, int] = {}

    def read(self, sizes: Sizes) -> Graph:
        specs = self.signature["input_specs"]
        inputs = [
            spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "as_tensor" in spec.get("user_input", {}).get("arg", {})
        ]
        declared = {name: [self._size(size) for size in self._meta(name)["sizes"]] for name in inputs}
        settled = sizes.settle(str(self.path), declared)
        for name, shape in settled.items():
            self.symbols |= {size: number for size, number in zip(declared[name], shape, strict=True) if isinstance(size, str)}
            if prod(shape) > _MOST_ELEMENTS or min(shape, default=1) < 1:
                raise GraphError(f"{self.path}: the input {name!r} has no usable size, got {shape}. Expected positive sizes.")
        recording = Recording(plain(self.path.stem))
        with recording:
            for name, parameter in self._constants(specs):
                self.values[name] = recording.constant(name, self._shape(name), self._dtype(name), parameter)
            for name in inputs:
                self.values[name] = recording.input(name, settled[name], self._dtype(name))
            recording.start()
            made, notices = self._run(recording)
        graph = recording.graph(made, notices)
        if graph.cost.macs > _MOST_MACS:
            raise GraphError(f"{self.path}: no network is that large, got {graph.cost.macs:.3g} MACs. Do this: export it again.")
        return graph

    def _run(self, recording: Recording) -> tuple[list[Any], tuple[str, ...]]:
        nodes = self.graph["nodes"]
        if len(nodes) > _MOST_NODES:
            raise GraphError(f"{self.path}: more than {_MOST_NODES} operators. Do this: export it again.")
        for i, node in enumerate(nodes):
            recording.enter(_scope(node))
            try:
                result = self._call(node)
            except _EndError as reason:
                where = plain(str(node.get("name") or node["target"]))
                notice = f"counted up to {plain(node['target'])} {where!r}: {reason}; {len(nodes) - i} operators from there on are left out"
                return recording.unread(), (notice,)
            self._bind(node["outputs"], result)
        names = [out["as_tensor"]["name"] for out in self.graph["outputs"] if "as_tensor" in out]
        return [self.values[name] for name in names], ()

    def _call(self, node: _Node) -> Any:
        target = node["target"]
        positional = [self._value(entry["arg"]) for entry in node["inputs"] if entry.get("kind", 1) != 2]
        keywords = {entry["name"]: self._value(entry["arg"]) for entry in node["inputs"] if entry.get("kind", 1) == 2}
        if target in _PLAIN:
            return _PLAIN[target](*positional, **keywords)
        words = target.split(".")
        if words[:2] == ["torch", "ops"] and len(words) == 5 and words[2] == "quantized_decomposed":
            return positional[0]  # numbers in fewer bits; what a runtime takes from it is the precision that is asked for
        if words[:3] != ["torch", "ops", "aten"] or len(words) != 5:
            raise _EndError("that operator is not known")
        if words[3] == "sym_size":
            return positional[0].shape[positional[1]]
        if words[3] in (
            "_assert_scalar",
            "_assert_async",
            "sym_constrain_range_for_size",
            "sym_constrain_range",
            "_assert_tensor_metadata",
        ):
            return None
        function = getattr(getattr(torch.ops.aten, words[3]), words[4])
        try:
            result = function(*positional, **keywords)
        except RuntimeError as error:
            if type(error).__name__ in ("DataDependentOutputException", "DynamicOutputShapeException"):
                raise _EndError("its sizes depend on numbers that are computed") from None
            raise
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and (tensor.numel() > _MOST_ELEMENTS or tensor.numel() < 1):
                raise GraphError(
                    f"{self.path}: the operator {plain(str(node.get('name')))!r} makes a tensor that no memory holds, got {tuple(tensor.shape)}."
                )
        return result

    def _bind(self, outputs: Sequence[_Tagged], result: Any) -> None:
        results = list(result) if isinstance(result, list | tuple) else [result]
        if len(outputs) == 1 and "as_tensors" in outputs[0]:
            self.values |= {entry["name"]: value for entry, value in zip(outputs[0]["as_tensors"], results, strict=True)}
            return
        for entry, value in zip(outputs, results, strict=False):
            kind, what = next(iter(entry.items()))
            if kind == "as_tensor":
                self.values[what["name"]] = value
            elif kind.startswith("as_sym") and "as_name" in what:
                self.values[what["as_name"]] = value

    def _constants(self, specs: Sequence[_Tagged]) -> Iterator[tuple[str, bool]]:
        for spec in specs:
            kind, what = next(iter(spec.items()))
            if kind in ("parameter", "buffer", "tensor_constant"):
                yield what["arg"]["name"], kind == "parameter"

    def _meta(self, name: str) -> _TensorMeta:
        meta = self.graph["tensor_values"][name]
        if not isinstance(meta, dict):
            raise TypeError(f"no description of {name!r}")
        return meta

    def _dtype(self, name: str) -> torch.dtype:
        return _DTYPES[self._meta(name)["dtype"]]

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._number(self._size(size)) for size in self._meta(name)["sizes"])
        if min(shape, default=1) < 0 or prod(shape) > _MOST_ELEMENTS:
            raise GraphError(f"{self.path}: the constant {name!r} has an impossible shape, got {shape}. Do this: export it again.")
        return shape

    def _size(self, size: _Tagged) -> Size:
        kind, value = next(iter(size.items()))
        if kind == "as_int":
            return int(value)
        symbol = re.fullmatch(r"Symbol\('(\w+)'.*\)", str(value["expr_str"]))
        return symbol[1] if symbol else str(value["expr_str"])

    def _number(self, size: Size) -> int:
        return self.symbols[size] if isinstance(size, str) else size

    def _value(self, argument: _Tagged) -> Any:
        """Return an argument as Python has it."""
        kind, value = next(iter(argument.items()))
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self.values[value["name"]]
            case "as_tensors":
                return [self.values[entry["name"]] for entry in value]
            case "as_optional_tensors":
                return [self.values[entry["as_tensor"]["name"]] if "as_tensor" in entry else None for entry in value]
            case "as_sym_int" | "as_sym_bool" | "as_sym_float":
                return self.values[value["as_name"]] if "as_name" in value else next(iter(value.values()))
            case "as_sym_ints" | "as_sym_bools" | "as_sym_floats":
                return [self.values[entry["as_name"]] if "as_name" in entry else next(iter(entry.values())) for entry in value]
            case "as_scalar_type":
                return _DTYPES[value]
            case "as_memory_format":
                return {2: torch.contiguous_format, 3: torch.channels_last, 4: torch.channels_last_3d}.get(value, torch.preserve_format)
            case "as_layout":
                return torch.strided
            case "as_device":
                return torch.device("cpu")
            case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string" | "as_strings":
                return value
            case "as_graph":
                raise _EndError("its body is chosen or repeated by numbers that are computed")
            case _:
                raise TypeError(f"an argument of the kind {kind}")


def _scope(node: _Node) -> str:
    """Return where in the module an operator stands: the last path of ``L__self__,,Net;L__self__0,0,Conv2d``."""
    stack = str((node.get("metadata") or {}).get("nn_module_stack") or "")
    return plain(stack.rsplit(";", 1)[-1].split(",")[1]) if stack.count(",") >= 2 else ""
