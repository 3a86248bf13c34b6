"""Recognise slices that cut a value into parts as one split, and a split whose parts are joined in swapped order as a roll."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft, Node


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place."""
    for node in draft.nodes("Slice", "Gather"):
        if node.inputs:
            _split(draft, node)
    for node in draft.nodes("Concat"):
        _roll(draft, node)
    for node in draft.nodes("Roll"):
        before = draft.producer(node.inputs[0])
        if before is not None and before.op == "Roll" and draft.only_user(before.out) is node:
            shifts = (*before.attributes["shifts"], *node.attributes["shifts"])
            draft.become(node, "Roll", before.inputs, shifts=shifts, axes=(*before.attributes["axes"], *node.attributes["axes"]))


def _part(node: Node) -> tuple[int, int, int] | None:
    """Return (axis, start, size) of what a slice or a gather of one index takes."""
    attributes = node.attributes
    if node.op == "Slice" and attributes.get("step", 1) == 1 and "start" in attributes:
        return attributes["axis"], attributes["start"], attributes["size"]
    if node.op == "Gather" and "index" in attributes:
        return attributes["axis"], attributes["index"], 1
    return None


def _split(draft: Draft, first: Node) -> None:
    value = first.inputs[0]
    users = list(draft.users(value))
    parts = [_part(user) for user in users]
    present = [part for part in parts if part is not None]
    if len(users) < 2 or len(present) < len(users) or value in draft.outputs or len({axis for axis, _, _ in present}) > 1:
        return
    whole, axis, at = draft.shape(value), present[0][0], 0
    order = sorted(range(len(users)), key=lambda i: present[i][1])
    for i in order:
        if present[i][1] != at:
            return
        at += present[i][2]
    if at != whole[axis]:
        return
    sizes = tuple(present[i][2] for i in order)
    shapes = [(*whole[:axis], size, *whole[axis + 1 :]) for size in sizes]
    split = draft.insert_before(first, "Split", [value], shapes[0], axis=axis, sizes=sizes)
    outputs = draft.add_outputs(split, shapes[1:])
    for i, name in zip(order, outputs, strict=True):
        user = users[i]
        if user.op == "Slice":
            draft.bypass(user, name)
        else:
            draft.become(user, "Reshape", [name], shape=user.shape)


def _roll(draft: Draft, concat: Node) -> None:
    if len(concat.inputs) != 2 or concat.weights:
        return
    split = draft.producer(concat.inputs[0])
    if split is None or split.op != "Split" or [v.name for v in split.outputs] != concat.inputs[::-1]:
        return
    axis = concat.attributes["axis"]
    if split.attributes["axis"] == axis and all(draft.only_user(value.name) is concat for value in split.outputs):
        draft.become(concat, "Roll", split.inputs, shifts=(split.outputs[1].shape[axis],), axes=(axis,))
