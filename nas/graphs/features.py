"""The part of a classifier that a detector or a segmenter takes: its maps at strides 4 to 32."""

from __future__ import annotations

from dataclasses import replace

from nas.errors import GraphError, UsageError
from nas.graphs.graph import Graph, Operator, Value
from nas.graphs.operators import Shape, spec_of

STRIDES = (4, 8, 16, 32)
"""Levels C2 to C5 of feature pyramids (Lin et al., arXiv 1612.03144)."""

SIZES = (512, 640)
"""Sides in pixels of the pictures of segmenters and detectors at which backbones are compared. Set by hand."""


def backbone(graph: Graph) -> Graph:
    """Return a network without its head, whose outputs ``stride4`` to ``stride32`` are the maps that its stages hand on; see `stage_maps`.

    Shape:
        Input (n, c, h, w); output ``strideS`` (n, channels, ⌈h / S⌉, ⌈w / S⌉) or the same rounded down.

    Raises:
        UsageError: It has several inputs or no picture as input, or lacks a stride.
    """
    return _ancestors(graph, stage_maps(graph))


def stage_maps(graph: Graph) -> dict[str, str]:
    """Return the names of the maps that a network's stages hand on, each with its name ``strideS`` as an output, the finest first.

    A stage hands on the last map of its stride through which every path goes. A convolution of one pixel that only widens that map for what
    follows (the expansion before a strided depthwise convolution, the one before pooling) belongs to what follows.

    Raises:
        UsageError: It has several inputs or no picture as input, or lacks a stride.
    """
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise UsageError(f"features of {graph.name}: expected one picture as input, got {[value.shape for value in graph.inputs]}.")
    last = {stride: value for value in _cuts(graph) if (stride := _stride(value, graph.inputs[0])) in STRIDES}
    if lacking := [str(stride) for stride in STRIDES if stride not in last]:
        raise UsageError(
            f"features of {graph.name}: no map of stride {', '.join(lacking)} through which every path goes. "
            "Expected a pyramid of strides 4, 8, 16 and 32."
        )
    return {_before_widening(graph, last[stride]): f"stride{stride}" for stride in STRIDES}


def _cuts(graph: Graph) -> list[Value]:
    """Return the values through which every path from input to output goes, in order."""
    left = {name: len(users) for name, users in graph.consumers().items()}
    alive, cuts = {value.name for value in graph.inputs}, list[Value]()
    for op in graph.operators:
        for name in dict.fromkeys(op.inputs):
            left[name] -= 1
            if not left[name]:
                alive.discard(name)
        alive |= {value.name for value in op.outputs if left[value.name]}
        if len(alive) == 1 and op.outputs[0].name in alive:
            cuts.append(op.outputs[0])
    return cuts


def _stride(value: Value, picture: Value) -> int:
    """Return by how much a map is smaller than the picture; 0 where it is no such map."""
    if len(value.shape) != 4:
        return 0
    return next(
        (s for s in STRIDES if all(m in (side // s, -(-side // s)) for m, side in zip(value.shape[2:], picture.shape[2:], strict=True))), 0
    )


def _before_widening(graph: Graph, value: Value) -> str:
    """Return the name of the map that a convolution of one pixel, and what keeps its shape, made `value` of; else that of `value`."""
    producer = graph.producer()
    name, through = value.name, producer.get(value.name)
    while through is not None and len(through.inputs) == 1 and graph.values[through.inputs[0]].shape == graph.values[name].shape:
        name, through = through.inputs[0], producer.get(through.inputs[0])
    if through is None or through.op != "Conv" or tuple(through.attribute("kernel")) != (1, 1) or through.attribute("groups", 1) != 1:
        return value.name
    before = graph.values[through.inputs[0]]
    widens = before.shape[1] < value.shape[1] and before.shape[2:] == value.shape[2:]
    return before.name if widens else value.name


def _ancestors(graph: Graph, names: dict[str, str]) -> Graph:
    """Return what makes the values that `names` lists, under their new names."""
    needed, operators = set(names), list[Operator]()
    for op in reversed(graph.operators):
        if any(value.name in needed for value in op.outputs):
            needed.update(op.inputs)
            operators.append(op)
    renamed = [
        replace(
            op,
            inputs=tuple(names.get(name, name) for name in op.inputs),
            outputs=tuple(replace(value, name=names.get(value.name, value.name)) for value in op.outputs),
        )
        for op in reversed(operators)
    ]
    return Graph(graph.inputs, tuple(renamed), tuple(names.values()), graph.name, graph.notices)


def _shape(op: Operator, inputs: list[Shape]) -> Shape:
    infer, attributes = spec_of(op.op).infer, dict(op.attributes)
    if op.op == "Pad" and "pads" in attributes and len(inputs[0]) * 2 == len(attributes["pads"]):
        pads = attributes["pads"]
        return tuple(side + pads[i] + pads[i + len(inputs[0])] for i, side in enumerate(inputs[0]))
    if infer is None or len(op.outputs) != 1 or "shape" in attributes:
        raise GraphError("its shape is written down")
    return infer(inputs, [w.shape for w in op.weights], attributes)


def resized(graph: Graph, size: tuple[int, int]) -> Graph:
    """Return a network on pictures of another size: every shape follows from the input's as the operators say.

    Args:
        graph: Of one picture as input.
        size: (height, width) in pixels.

    Raises:
        UsageError: A shape is written down in the network, as those of windows, tokens and tables of positions are.
    """
    picture = graph.inputs[0]
    values = {picture.name: replace(picture, shape=(*picture.shape[:2], *size))}
    operators = list[Operator]()
    for op in graph.operators:
        try:
            shape = _shape(op, [values[name].shape for name in op.inputs])
        except (GraphError, IndexError) as error:
            raise UsageError(
                f"features of {graph.name}: {op.name} ({op.op}) cannot be had at {size[0]}x{size[1]} ({error}). "
                "Do this: a file of that size, or its own size with --resolution."
            ) from None
        values[op.outputs[0].name] = replace(op.outputs[0], shape=shape)
        operators.append(replace(op, outputs=(values[op.outputs[0].name],)))
    return Graph((values[picture.name],), tuple(operators), graph.outputs, graph.name, graph.notices)
