"""Recognise activations that a file or a module writes out: GELU (erf and tanh), SiLU, hard sigmoid, hard swish."""

from __future__ import annotations

from math import isclose, pi, sqrt

from nas.graphs.passes.draft import Draft, Node


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place.

    Source:
        GELU and its tanh form: Hendrycks and Gimpel, arXiv 1606.08415, section 2 (as 1.702-sigmoid: same section). SiLU:
        arXiv 1702.03118. Hard swish: Howard et al., arXiv 1905.02244, section 5.2.
    """
    for node in draft.nodes("Erf"):
        _gelu(draft, node, draft.producer(node.inputs[0]))
    for node in draft.nodes("Tanh"):
        _gelu(draft, node, None)
    for node in draft.nodes("Clip"):
        _hard_sigmoid(draft, node)
    for node in draft.nodes("Mul"):
        _gated_by_itself(draft, node)


def _scalar(node: Node | None, op: str, *values: float) -> bool:
    """Whether `node` is `op` with one of these scalars."""
    if node is None or node.op != op or len(node.inputs) != 1 or "reversed" in node.attributes:
        return False
    scalar = node.attributes.get("scalar")
    return scalar is not None and any(isclose(scalar, v, rel_tol=1e-3) for v in values)


def _gelu(draft: Draft, core: Node, inner: Node | None) -> None:
    """X · ½ · (1 + erf(x / √2)), or x · ½ · (1 + tanh(√(2/π) · (x + 0.044715 x³))), the factors in any order."""
    if core.op == "Erf":
        if not (_scalar(inner, "Div", sqrt(2)) or _scalar(inner, "Mul", sqrt(0.5))):
            return
        source = inner.inputs[0] if inner else ""
    else:
        argument = _tanh_argument(draft, core)
        if argument is None:
            return
        source = argument
    plus = draft.only_user(core.out)
    if not _scalar(plus, "Add", 1.0) or plus is None:
        return
    tail, value, seen_x, seen_half = plus, plus.out, False, False
    for _ in range(2):
        user = draft.only_user(value)
        if user is None:
            break
        if not seen_half and (_scalar(user, "Mul", 0.5) or _scalar(user, "Div", 2.0)):
            seen_half = True
        elif user.op == "Mul" and len(user.inputs) == 2 and not seen_x:
            other = user.inputs[1 - user.inputs.index(value)]
            half = draft.producer(other)
            if other == source:
                seen_x = True
            elif (
                not seen_half and half is not None and (_scalar(half, "Mul", 0.5) or _scalar(half, "Div", 2.0)) and half.inputs[0] == source
            ):
                seen_x = seen_half = True
            else:
                break
        else:
            break
        tail, value = user, user.out
    if seen_x and seen_half:
        draft.become(tail, "Gelu", [source], approximate="tanh" if core.op == "Tanh" else "none")


def _tanh_argument(draft: Draft, tanh: Node) -> str | None:
    scale = draft.producer(tanh.inputs[0])
    if not _scalar(scale, "Mul", sqrt(2 / pi)) or scale is None:
        return None
    add = draft.producer(scale.inputs[0])
    if add is None or add.op != "Add" or len(add.inputs) != 2:
        return None
    for x, other in (add.inputs, add.inputs[::-1]):
        small = draft.producer(other)
        if small is not None and _scalar(small, "Mul", 0.044715) and _cube(draft, small.inputs[0], x):
            return x
    return None


def _cube(draft: Draft, value: str, x: str) -> bool:
    node = draft.producer(value)
    if node is None:
        return False
    if _scalar(node, "Pow", 3.0):
        return node.inputs[0] == x
    if node.op == "Mul" and len(node.inputs) == 2 and x in node.inputs:
        square = draft.producer(node.inputs[1 - node.inputs.index(x)])
        return square is not None and (square.inputs == [x, x] or (_scalar(square, "Pow", 2.0) and square.inputs == [x]))
    return False


def _hard_sigmoid(draft: Draft, clip: Node) -> None:
    """Clip(x + 3, 0, 6) / 6."""
    plus, divide = draft.producer(clip.inputs[0]), draft.only_user(clip.out)
    bounded = clip.attributes.get("min") == 0 and clip.attributes.get("max") == 6
    if bounded and plus is not None and _scalar(plus, "Add", 3.0) and divide is not None:
        if _scalar(divide, "Div", 6.0) or _scalar(divide, "Mul", 1 / 6):
            draft.become(divide, "HardSigmoid", [plus.inputs[0]])
        elif divide.op == "Mul" and sorted(divide.inputs) == sorted([clip.out, plus.inputs[0]]):
            last = draft.only_user(divide.out)
            if last is not None and (_scalar(last, "Div", 6.0) or _scalar(last, "Mul", 1 / 6)):
                draft.become(last, "HardSwish", [plus.inputs[0]])


def _gated_by_itself(draft: Draft, mul: Node) -> None:
    """X · sigmoid(x), x · hard sigmoid(x), x · sigmoid(1.702 x)."""
    if len(mul.inputs) != 2:
        return
    for x, gate in (mul.inputs, mul.inputs[::-1]):
        node = draft.producer(gate)
        if node is None or node.op not in {"Sigmoid", "HardSigmoid"} or draft.only_user(gate) is not mul:
            continue
        if node.inputs == [x]:
            draft.become(mul, "Swish" if node.op == "Sigmoid" else "HardSwish", [x])
            return
        scaled = draft.producer(node.inputs[0])
        if scaled is not None and node.op == "Sigmoid" and _scalar(scaled, "Mul", 1.702) and scaled.inputs == [x]:
            draft.become(mul, "Gelu", [x], approximate="sigmoid")
            return
