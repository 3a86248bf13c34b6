"""Remove operators that change nothing: identities, broadcasts that the next operator does by itself, layout round trips."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft, Node

_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Less", "Greater", "And", "Or"}


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place."""
    for node in draft.nodes("Identity", "Cast", "Expand", "Reshape", "Transpose", "Slice", "Resize", "Clip", "Mul", "Add", "Div"):
        if not node.inputs:
            continue
        if node.op in {"Reshape", "Transpose"}:
            _collapse(draft, node)
        elif _changes_nothing(draft, node):
            draft.bypass(node)


def _changes_nothing(draft: Draft, node: Node) -> bool:
    before, attributes = draft.value(node.inputs[0]), node.attributes
    match node.op:
        case "Identity":
            return True
        case "Cast":
            return before.dtype == node.outputs[0].dtype
        case "Expand":
            return before.shape == node.shape or _only_broadcast(draft, node)
        case "Slice":
            return before.shape == node.shape and "axes" not in attributes
        case "Resize":
            return before.shape == node.shape
        case "Clip":
            return len(node.inputs) == 1 and attributes.keys().isdisjoint({"min", "max"})
        case _:
            neutral = 0.0 if node.op == "Add" else 1.0
            return len(node.inputs) == 1 and not node.weights and attributes.get("scalar") == neutral and "reversed" not in attributes


def _only_broadcast(draft: Draft, node: Node) -> bool:
    """Whether every reader would broadcast the short form to the same result."""
    before = draft.shape(node.inputs[0])
    for user in draft.users(node.out):
        if user.op not in _BROADCASTING:
            return False
        others = [draft.shape(name) for name in user.inputs if name != node.out] + [w.shape for w in user.weights]
        if not any(
            shape[-len(node.shape) :] == node.shape[-len(shape) :] and len(shape) >= len(before) and len(shape) >= len(node.shape)
            for shape in others
        ):
            return False
    return node.out not in draft.outputs


def _collapse(draft: Draft, node: Node) -> None:
    """Merge a chain of reshapes or of transposes into one, or into none."""
    maker = draft.producer(node.inputs[0])
    if maker is not None and maker.op == node.op:
        source = maker.inputs[0] if maker.inputs else None
        if source is not None:
            if node.op == "Transpose":
                first = maker.attributes["perm"]
                node.attributes["perm"] = tuple(first[i] for i in node.attributes["perm"])
            draft.set_inputs(node, [source])
            draft.prune(maker.out)
    source_shape = draft.shape(node.inputs[0])
    if node.op == "Reshape":
        if source_shape == node.shape:
            draft.bypass(node)
        elif maker is not None and maker.op == "Transpose" and maker.alive:
            _unflatten(draft, node, maker)
    else:
        perm = node.attributes["perm"]
        if perm == tuple(range(len(perm))):
            draft.bypass(node)
        elif [i for i in perm if source_shape[i] > 1] == sorted(i for i in perm if source_shape[i] > 1):
            draft.become(node, "Reshape", node.inputs, shape=node.shape)  # only axes of size one move


def _unflatten(draft: Draft, node: Node, transpose: Node) -> None:
    """Leading axes flattened, the last two swapped, leading axes restored: one transpose."""
    flatten = draft.producer(transpose.inputs[0])
    if (
        transpose.attributes["perm"] != (0, 2, 1)
        or flatten is None
        or flatten.op != "Reshape"
        or draft.only_user(transpose.out) is not node
    ):
        return
    whole, rank = draft.shape(flatten.inputs[0]), len(node.shape)
    shape = (*node.shape[:-2], node.shape[-1], node.shape[-2])
    if whole[-2:] == shape[-2:] == flatten.shape[-2:]:
        source = flatten.inputs[0] if whole == shape else draft.insert_before(node, "Reshape", flatten.inputs, shape, shape=shape).out
        draft.become(node, "Transpose", [source], perm=(*range(rank - 2), rank - 1, rank - 2))
