"""A model before its operators are read: functions inlined, nodes in order, inputs of fixed size."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from nas.errors import GraphError
from nas.graphs.frontends.onnx_reader.refs import Types, type_of
from nas.graphs.frontends.onnx_reader.wire import load_model
from nas.graphs.frontends.sizes import Size, Sizes

MOST_NODES = 200_000
"""Nodes after functions are inlined, or bodies repeated. Set by hand."""


def prepare(path: Path, sizes: Sizes) -> tuple[onnx.ModelProto, Types]:
    """Return (the model in a file, what it states of the shapes and types of its values).

    Raises:
        GraphError: The file cannot be read; see `nas.graphs.frontends.onnx_reader.wire.load_model`.
        UsageError: `sizes` name what the file does not have.
    """
    model = load_model(path)
    if model.functions:
        model = _inlined(model, path)
    _check_constants(model, path)
    check_text(path, *(name for node in model.graph.node for name in [*node.input, *node.output]))
    nodes = in_order(list(model.graph.node), str(path))
    if nodes is not None:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    inputs = _settle_inputs(model, path, sizes)
    stated = {info.name: type_of(info) for info in [*model.graph.value_info, *model.graph.output]} if inputs else {}
    return model, stated | {info.name: type_of(info) for info in model.graph.input}


def check_text(path: Path, *names: object) -> None:
    """Refuse names that are no text, which protobuf hands over as bytes.

    Raises:
        GraphError: One of them is.
    """
    if damaged := [name for name in names if not isinstance(name, str)]:
        raise GraphError(f"{path}: a name in it is no text, got {damaged[0]!r}. Do this: export or copy the model again.")


def _check_constants(model: onnx.ModelProto, path: Path) -> None:
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    check_text(path, *(entry.name for entry in [*infos, *model.graph.initializer]), *(opset.domain for opset in model.opset_import))
    for tensor in model.graph.initializer:
        if any(size < 0 for size in tensor.dims):
            raise GraphError(
                f"{path}: the constant {tensor.name!r} has a negative size, got {tuple(tensor.dims)}. Do this: export it again."
            )


def _inlined(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    from onnx.inliner import inline_local_functions

    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def expanded(nodes: Sequence[onnx.NodeProto], within: frozenset[tuple[str, str]]) -> int:
        count = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in within:
                raise GraphError(f"{path}: a function that calls itself, got {node.op_type!r}. Do this: export it again.")
            if key in bodies and key not in sizes:
                sizes[key] = expanded(bodies[key], within | {key})
            count += sizes.get(key, 1)
        return count

    if (count := expanded(model.graph.node, frozenset())) > MOST_NODES:
        raise GraphError(f"{path}: functions within functions make {count} operators. Expected at most {MOST_NODES}.")
    try:
        return inline_local_functions(model)
    except (RuntimeError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"{path}: its functions cannot be inlined, got: {reason}. Do this: export it again.") from None


def reads(node: onnx.NodeProto, depth: int = 0) -> Iterator[str]:
    """Yield the names that a node reads, those of its bodies included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if depth < 20:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())]:
                for inner in body.node:
                    yield from reads(inner, depth + 1)


def in_order(nodes: list[onnx.NodeProto], where: str) -> list[onnx.NodeProto] | None:
    """Return nodes such that what makes a value stands before what reads it; None where they already do.

    Raises:
        GraphError: A value is made twice, or nodes depend on each other in a circle.
    """
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.output:
            if name and makers.setdefault(name, i) != i:
                raise GraphError(f"{where}: a value is made twice, got {name!r}. Do this: export it again.")
    needs = [{makers[name] for name in reads(node) if name in makers} for node in nodes]
    if all(max(before, default=-1) < i for i, before in enumerate(needs)):
        return None
    readers: list[list[int]] = [[] for _ in nodes]
    for i, before in enumerate(needs):
        for maker in before:
            readers[maker].append(i)
    left = [len(before) for before in needs]
    ready = [i for i, count in enumerate(left) if count == 0]
    ordered = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append(nodes[i])
        for reader in readers[i]:
            left[reader] -= 1
            if left[reader] == 0:
                heapq.heappush(ready, reader)
    if len(ordered) < len(nodes):
        stuck = next(node for node, count in zip(nodes, left, strict=True) if count)
        raise GraphError(
            f"{where}: operators depend on each other in a circle, got {stuck.name or stuck.op_type!r}. Do this: export it again."
        )
    return ordered


def _settle_inputs(model: onnx.ModelProto, path: Path, sizes: Sizes) -> bool:
    """Give every input a fixed shape, in place; return whether the file's own sizes stay as they are."""
    constants = {tensor.name for tensor in model.graph.initializer} | {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = {info.name: info for info in model.graph.input if info.name not in constants and info.type.HasField("tensor_type")}
    declared = {name: _declared(info) for name, info in inputs.items()}
    settled = sizes.settle(str(path), declared)
    for name, shape in settled.items():
        tensor = inputs[name].type.tensor_type
        tensor.ClearField("shape")
        tensor.shape.SetInParent()
        for size in shape:
            tensor.shape.dim.add().dim_value = size
    return not any(
        isinstance(size, int) and size != wanted
        for name, shape in settled.items()
        for size, wanted in zip(declared[name] or (), shape, strict=False)
    )


def _declared(info: onnx.ValueInfoProto) -> tuple[Size, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else "" if d.dim_param == "?" else d.dim_param for d in tensor.shape.dim)
