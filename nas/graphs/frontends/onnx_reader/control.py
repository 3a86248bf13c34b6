"""Bodies (If, Loop, Scan, SequenceMap) written out, and sequences and optional values as what they hold."""

from __future__ import annotations

import numpy as np
import onnx

from nas.errors import GraphError
from nas.graphs.frontends.onnx_reader.products import as_value
from nas.graphs.frontends.onnx_reader.refs import Call, Constant, Cut, Items, OpenSizeError, Ref, handles
from nas.graphs.graph import Operator, Value
from nas.graphs.operators import Shape, spec_of

MOST_STEPS = 4096
"""Steps of a loop that are written out; a longer one ends the graph. Set by hand."""


def _body(call: Call, name: str) -> onnx.GraphProto:
    body = call.attributes[name]
    if not isinstance(body, onnx.GraphProto):
        raise TypeError(f"{name} is no body")
    return body


@handles("If")
def _branch(call: Call) -> None:
    """The branch that a constant chooses; else the one with more work, since a budget must hold for either."""
    condition = call.tensor(0)
    bodies = [_body(call, "then_branch"), _body(call, "else_branch")]
    if isinstance(condition, Constant) and condition.array is not None and condition.array.size == 1:
        chosen = bodies[0 if bool(condition.array.reshape(-1)[0]) else 1]
        results = call.reader.body(chosen, [], call.label)
        _bind_all(call, results)
        return
    reader, mark = call.reader, len(call.reader.operators)
    read: list[tuple[int, int, list[Operator], list[Ref]]] = []
    for i, body in enumerate(bodies):
        results = reader.body(body, [], f"{call.label}.{'then' if i == 0 else 'else'}")
        made = reader.operators[mark:]
        del reader.operators[mark:]
        macs = _macs(made, {ref.name: ref.shape for ref in reader.refs.values() if isinstance(ref, Value)})
        read.append((macs, len(made), made, results))
    dearest = max(read, key=lambda branch: branch[:2])
    reader.operators += dearest[2]
    if read[0][:2] != read[1][:2]:
        reader.notices.append(f"of the branches of {call.label!r} the dearer one is counted")
    _bind_all(call, dearest[3])


def _macs(operators: list[Operator], shapes: dict[str, Shape]) -> int:
    """Multiply-adds of operators whose inputs have these shapes."""
    total = 0
    for op in operators:
        if (count := spec_of(op.op).macs) is not None:
            total += count([shapes[name] for name in op.inputs], [w.shape for w in op.weights], op.outputs[0].shape, dict(op.attributes))
        shapes |= {value.name: value.shape for value in op.outputs}
    return total


def _bind_all(call: Call, results: list[Ref]) -> None:
    for i, (name, ref) in enumerate(zip(call.outputs, results, strict=False)):
        if name:
            call.alias(ref, i)


def _truth(ref: Ref | None) -> bool | None:
    """Return what a condition is known to be."""
    if ref is None:
        return True
    known = isinstance(ref, Constant) and ref.array is not None and ref.array.size == 1
    return bool(ref.array.reshape(-1)[0]) if known and isinstance(ref, Constant) and ref.array is not None else None


@handles("Loop")
def _loop(call: Call) -> None:
    """The body as often as the file says; where only its end depends on numbers, as often as it can run."""
    body, count = _body(call, "body"), call.optional(0)
    condition = call.operands[1] if len(call.operands) > 1 else None
    state: list[Ref] = [ref for ref in call.operands[2:] if ref is not None]
    if count is None or not isinstance(count, Constant) or count.array is None:
        raise OpenSizeError
    steps, going = int(count.array.reshape(-1)[0]), _truth(condition)
    if steps > MOST_STEPS:
        raise OpenSizeError
    stacked: list[list[Ref]] = [[] for _ in body.output[1 + len(state) :]]
    for step in range(steps):
        if going is False:
            break
        number = Constant((), "int64", (), np.array(step, dtype=np.int64))
        flag = Constant((), "bool", (), np.array(True))
        results = call.reader.body(body, [number, flag, *state], f"{call.label}.{step}")
        if any(isinstance(ref, Cut) for ref in results):
            raise OpenSizeError
        goes_on, state = _truth(results[0]), results[1 : 1 + len(state)]
        for column, ref in zip(stacked, results[1 + len(state) :], strict=True):
            column.append(ref)
        if goes_on is None and going is not None:
            call.reader.notices.append(f"of the loop {call.label!r} all {steps} steps are counted; it may end earlier")
        going = False if goes_on is False else None if goes_on is None else going
    for i, ref in enumerate(state):
        if i < len(call.outputs) and call.outputs[i]:
            call.alias(ref, i)
    for i, items in enumerate(stacked, len(state)):
        if i < len(call.outputs) and call.outputs[i]:
            _stack(call, items, i, 0)


def _stack(call: Call, items: list[Ref], index: int, axis: int) -> None:
    """Join the results of all steps along a new axis."""
    tensors = [ref for ref in items if isinstance(ref, Value | Constant)]
    if not tensors or len(tensors) < len(items):
        raise OpenSizeError
    if len({ref.shape for ref in tensors}) > 1:
        raise GraphError("the steps make tensors of different shapes")
    shape = tensors[0].shape
    axis %= len(shape) + 1
    widened = [call.reshape(ref, (*shape[:axis], 1, *shape[axis:])) for ref in tensors]
    if all(isinstance(ref, Constant) for ref in widened):
        call.alias(Constant((*shape[:axis], len(widened), *shape[axis:]), widened[0].dtype), index)
    elif len(widened) == 1:
        call.alias(widened[0], index)
    else:
        call.emit("Concat", widened, {"axis": axis}, outputs=[call.outputs[index]])


@handles("Scan")
def _scan(call: Call) -> None:
    """One step an element of the scanned axis."""
    body, scanned = _body(call, "body"), call.attributes["num_scan_inputs"]
    operands = call.tensors[1:] if call.reader.opset < 9 and len(call.node.input) == len(body.input) + 1 else call.tensors
    if not 0 < scanned <= len(operands):
        raise ValueError(f"{scanned} scanned inputs of {len(operands)}")
    states: list[Ref] = list(operands[: len(operands) - scanned])
    sequences = [as_value(call, ref) for ref in operands[len(operands) - scanned :]]
    axes = call.attributes.get("scan_input_axes", (0,) * scanned)
    if call.reader.opset < 9:
        raise OpenSizeError
    axes = [axis % len(x.shape) for axis, x in zip(axes, sequences, strict=True)]
    lengths = {x.shape[axis] for axis, x in zip(axes, sequences, strict=True)}
    if len(lengths) != 1:
        raise ValueError(f"scanned axes of different lengths, {sorted(lengths)}")
    steps = lengths.pop()
    if steps > MOST_STEPS:
        raise OpenSizeError
    stacked: list[list[Ref]] = [[] for _ in body.output[len(states) :]]
    for step in range(steps):
        parts = [
            call.step("Gather", [x], (*x.shape[:axis], *x.shape[axis + 1 :]), {"axis": axis, "index": step})
            for x, axis in zip(sequences, axes, strict=True)
        ]
        results = call.reader.body(body, [*states, *parts], f"{call.label}.{step}")
        if any(isinstance(ref, Cut) for ref in results):
            raise OpenSizeError
        states = results[: len(states)]
        for made, ref in zip(stacked, results[len(states) :], strict=True):
            made.append(ref)
    for i, ref in enumerate(states):
        if i < len(call.outputs) and call.outputs[i]:
            call.alias(ref, i)
    leaving = call.attributes.get("scan_output_axes", (0,) * len(stacked))
    for i, (items, axis) in enumerate(zip(stacked, leaving, strict=False), len(states)):
        if i < len(call.outputs) and call.outputs[i]:
            _stack(call, items, i, axis)


# --- sequences -----------------------------------------------------------------------------------------------------------


def _items(call: Call, index: int = 0) -> Items:
    ref = call.operands[index] if index < len(call.operands) else None
    if not isinstance(ref, Items):
        raise TypeError("a tensor where a sequence is expected")
    return ref


def _place(call: Call, index: int, length: int, default: int) -> int:
    ref = call.optional(index)
    if ref is None:
        return default
    if not isinstance(ref, Constant) or ref.array is None:
        raise OpenSizeError
    place = int(ref.array.reshape(-1)[0])
    if not -length <= place <= length:
        raise IndexError(f"the place {place} of a sequence of {length}")
    return place


@handles("SequenceEmpty")
def _no_items(call: Call) -> None:
    call.alias(Items(()))


@handles("SequenceConstruct")
def _sequence(call: Call) -> None:
    call.alias(Items(tuple(call.tensors)))


@handles("SequenceAt")
def _item(call: Call) -> None:
    items = _items(call).refs
    call.alias(items[_place(call, 1, len(items), 0)])


@handles("SequenceInsert")
def _insert(call: Call) -> None:
    items = list(_items(call).refs)
    items.insert(_place(call, 2, len(items), len(items)), call.tensor(1))
    call.alias(Items(tuple(items)))


@handles("SequenceErase")
def _erase(call: Call) -> None:
    items = list(_items(call).refs)
    del items[_place(call, 1, len(items), len(items) - 1)]
    call.alias(Items(tuple(items)))


@handles("SequenceLength")
def _length(call: Call) -> None:
    call.alias(Constant((), "int64", (), np.array(len(_items(call).refs), dtype=np.int64)))


@handles("ConcatFromSequence")
def _join(call: Call) -> None:
    items = list(_items(call).refs)
    if call.attributes.get("new_axis"):
        _stack(call, items, 0, call.attributes["axis"])
        return
    tensors = [ref for ref in items if isinstance(ref, Value | Constant)]
    if len(tensors) == 1:
        call.alias(tensors[0])
    else:
        call.emit("Concat", tensors, {"axis": call.attributes["axis"] % len(tensors[0].shape)})


@handles("SplitToSequence")
def _cut_up(call: Call) -> None:
    x, sizes = as_value(call, call.tensor(0)), call.integers(1, "split")
    axis = call.axis(0, len(x.shape))
    whole, keep = x.shape[axis], bool(call.attributes.get("keepdims", 1))
    scalar = call.optional(1) is not None and call.tensor(1).shape == ()
    if sizes is None:
        parts = [1] * whole
    elif scalar:
        parts = [*([sizes[0]] * (whole // sizes[0])), *([whole % sizes[0]] if whole % sizes[0] else [])]
    else:
        parts = list(sizes)
    if sum(parts) != whole or min(parts, default=0) < 1 or len(parts) > MOST_STEPS:
        raise ValueError(f"parts of {parts[:8]} of an axis of {whole}")
    names = [f"{call.outputs[0]}.{i}" for i in range(len(parts))]
    for name, size in zip(names, parts, strict=True):
        call.reader.types[name] = ((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    made: list[Ref] = list(call.emit("Split", [x], {"axis": axis, "sizes": tuple(parts)}, outputs=names))
    if sizes is None and not keep:
        made = [call.reshape(ref, (*x.shape[:axis], *x.shape[axis + 1 :])) for ref in made if isinstance(ref, Value)]
    call.alias(Items(tuple(made)))


@handles("SequenceMap")
def _each(call: Call) -> None:
    body, first = _body(call, "body"), _items(call)
    rest = call.operands[1:]
    results = [
        call.reader.body(
            body, [item, *(ref.refs[i] if isinstance(ref, Items) else ref for ref in rest if ref is not None)], f"{call.label}.{i}"
        )
        for i, item in enumerate(first.refs)
    ]
    for j in range(len(call.outputs)):
        call.alias(Items(tuple(made[j] for made in results)), j)


@handles("Optional", "OptionalGetElement")
def _optional(call: Call) -> None:
    call.alias(call.operands[0] if call.operands and call.operands[0] is not None else Items(()))


@handles("OptionalHasElement")
def _has(call: Call) -> None:
    present = bool(call.operands) and call.operands[0] is not None and call.operands[0] != Items(())
    call.alias(Constant((), "bool", (), np.array(present)))
