"""Recognise layer norm and RMS norm that are written out, and layer norm over channels between two transposes."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft, Node


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place.

    Source:
        Layer norm: Ba et al., arXiv 1607.06450, equation 3. RMS norm: Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """
    for node in draft.nodes("Div", "Mul"):
        _written_out(draft, node)
    for node in draft.nodes("LayerNormalization"):
        _between_transposes(draft, node)


def _written_out(draft: Draft, last: Node) -> None:
    """D / √(mean(d²) + ε), or d · 1/√(…), with d = x − mean(x) (layer norm) or d = x (RMS norm)."""
    if len(last.inputs) != 2:
        return
    for centred, spread in (last.inputs, last.inputs[::-1]):
        root = draft.producer(spread)
        if last.op == "Mul" and root is not None and root.op == "Reciprocal":
            root = draft.producer(root.inputs[0])
        elif last.op == "Mul":
            root = root if root is not None and root.op == "Pow" and root.attributes.get("scalar") == -0.5 else None
        if root is None or root.op not in {"Sqrt", "Pow"}:
            continue
        plus = draft.producer(root.inputs[0])
        mean = (
            plus if plus is not None and plus.op != "Add" else draft.producer(plus.inputs[0]) if plus is not None and plus.inputs else None
        )
        if mean is None or mean.op != "ReduceMean":
            continue
        base = _square_of(draft, mean.inputs[0])
        if base is None:
            continue
        axes = tuple(axis % len(last.shape) for axis in mean.attributes["axes"])
        x = _centre_of(draft, base, axes)
        if x is None and base == centred:
            _finish(draft, last, "RMSNormalization", base, axes)
            return
        if x is not None and (base == centred or _centre_of(draft, centred, axes) == x):
            _finish(draft, last, "LayerNormalization", x, axes)
            return
        if last.op == "Div":
            return


def _square_of(draft: Draft, value: str) -> str | None:
    node = draft.producer(value)
    if node is None:
        return None
    if node.op == "Pow" and node.attributes.get("scalar") == 2.0 and len(node.inputs) == 1:
        return node.inputs[0]
    return node.inputs[0] if node.op == "Mul" and len(node.inputs) == 2 and node.inputs[0] == node.inputs[1] else None


def _centre_of(draft: Draft, value: str, axes: tuple[int, ...]) -> str | None:
    """Return x where `value` is x − mean(x)."""
    node = draft.producer(value)
    if node is None or node.op != "Sub" or len(node.inputs) != 2:
        return None
    mean = draft.producer(node.inputs[1])
    if mean is None or mean.op != "ReduceMean" or mean.inputs != [node.inputs[0]]:
        return None
    return node.inputs[0] if tuple(a % len(node.shape) for a in mean.attributes["axes"]) == axes else None


def _finish(draft: Draft, last: Node, op: str, x: str, axes: tuple[int, ...]) -> None:
    """Take the constant scale and shift that follow along and put the operator in the last one's place."""
    weights = last.weights
    for follower in ("Mul", "Add"):
        user = draft.only_user(last.out)
        if user is None or user.op != follower or len(user.inputs) != 1 or len(user.weights) != 1 or user.shape != last.shape:
            break
        weights, last = (*weights, user.weights[0]), user
    rank = len(last.shape)
    where = {"axis": -len(axes)} if axes == tuple(range(rank - len(axes), rank)) else {"axis": 1} if axes == (1,) else {"axes": axes}
    draft.become(last, op, [x], weights, **where)


def _between_transposes(draft: Draft, norm: Node) -> None:
    """Transpose to channels last, norm, transpose back: a norm over axis 1."""
    before, after = draft.producer(norm.inputs[0]), draft.only_user(norm.out)
    if before is None or after is None or before.op != "Transpose" or after.op != "Transpose" or norm.attributes.get("axis") != -1:
        return
    rank = len(norm.shape)
    there, back = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    if before.attributes["perm"] == there and after.attributes["perm"] == back and rank > 2:
        draft.become(after, norm.op, [before.inputs[0]], norm.weights, **(norm.attributes | {"axis": 1}))
