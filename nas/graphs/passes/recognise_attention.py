"""Recognise softmax attention that is written out, and take the splitting and merging of heads into the operator.

``MatMul(q, kᵀ) → scale → + bias → Softmax → MatMul(·, v)`` becomes one ``Attention``. Where q, k and v are parts of one projection (or
three projections) that are only reshaped and permuted into heads, the operator takes them as (…, n, c) with the attribute ``heads``, as
ONNX's own operator does with three-dimensional inputs; MACs stay the same.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from nas.graphs.graph import Weight
from nas.graphs.passes.draft import Draft, Node


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place.

    Source:
        Vaswani et al., arXiv 1706.03762, equation 1; ONNX ``Attention``, opset 23.
    """
    for node in draft.nodes("Softmax"):
        _fuse(draft, node)
    for node in draft.nodes("Attention"):
        _merge_heads(draft, node)


def _fuse(draft: Draft, softmax: Node) -> None:
    if softmax.attributes.get("axis", -1) % len(softmax.shape) != len(softmax.shape) - 1:
        return
    last = draft.only_user(softmax.out)
    while last is not None and last.op == "Reshape":
        last = draft.only_user(last.out)
    if last is None or last.op != "MatMul" or len(last.inputs) != 2 or _through_reshapes(draft, last.inputs[0]) != softmax.out:
        return
    extra: list[str] = []
    weights: list[Weight] = []
    node = draft.producer(softmax.inputs[0])
    while node is not None and node.op in {"Mul", "Div", "Add", "Reshape"} and draft.only_user(node.out) is not None:
        main = node.inputs[0]
        if len(node.inputs) == 2:  # a bias that the network computes
            if node.op != "Add":
                return
            products = [name for name in node.inputs if _leads_to_product(draft, name)]
            if len(products) != 1:
                return
            main = products[0]
            extra.append(node.inputs[1 - node.inputs.index(main)])
        weights += [_broadcast_to(w, len(softmax.shape)) for w in node.weights]
        node = draft.producer(main)
    if node is None or node.op != "MatMul" or len(node.inputs) != 2 or draft.only_user(node.out) is None:
        return
    (q, k), v = (_unscaled(draft, name) for name in node.inputs), last.inputs[1]
    transpose = draft.producer(k)
    rank = len(draft.shape(k))
    swap = (*range(rank - 2), rank - 1, rank - 2)
    attributes = {}
    if transpose is not None and transpose.op == "Transpose" and transpose.attributes["perm"] == swap:
        k = _unscaled(draft, transpose.inputs[0])
    else:
        attributes["key_transposed"] = 1
    if len(draft.shape(q)) != len(draft.shape(v)) or draft.shape(q)[:-2] != last.shape[:-2]:
        return
    draft.become(last, "Attention", [q, k, v, *extra], weights, **attributes)


def _unscaled(draft: Draft, value: str) -> str:
    """Return what a scalar multiplies, where it does: half of the softmax's scale, as exporters write it on q and on k."""
    node = draft.producer(value)
    while (
        node is not None and node.op in {"Mul", "Div"} and len(node.inputs) == 1 and not node.weights and "reversed" not in node.attributes
    ):
        if "activation" in node.attributes or draft.only_user(node.out) is None:
            break
        value = node.inputs[0]
        node = draft.producer(value)
    return value


def _broadcast_to(weight: Weight, rank: int) -> Weight:
    """Drop leading axes of size one: a mask of windows is added under a batch axis that the logits lack."""
    shape = weight.shape
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    return replace(weight, shape=shape)


def _through_reshapes(draft: Draft, value: str) -> str:
    node = draft.producer(value)
    while node is not None and node.op == "Reshape":
        value = node.inputs[0]
        node = draft.producer(value)
    return value


def _leads_to_product(draft: Draft, value: str) -> bool:
    node = draft.producer(value)
    while node is not None and node.op in {"Mul", "Div", "Add", "Reshape"} and len(node.inputs) == 1:
        node = draft.producer(node.inputs[0])
    return node is not None and node.op == "MatMul"


_MOVES = {"Reshape", "Transpose", "Split"}


def _merge_heads(draft: Draft, node: Node) -> None:
    """(b, h, n, d) operands that come from (b, n, …) values by moves alone, and a result that goes back to (b, n, c) by moves alone."""
    shapes = [draft.shape(name) for name in node.inputs[:3]]
    if any(len(shape) != 4 for shape in shapes) or len({shape[:2] for shape in shapes}) != 1:
        return
    batch, heads, n, _ = shapes[0]
    tail = _merged(draft, node, (batch, n, heads * node.shape[-1]))
    if tail is None:
        return
    keys = bool(node.attributes.get("key_transposed"))
    sources = [_token_major(draft, name, keys and i == 1) for i, name in enumerate(node.inputs[:3])]
    if any(source is None for source in sources):
        return
    sizes = [heads * shapes[0][3], heads * (shapes[1][2] if keys else shapes[1][3]), heads * shapes[2][3]]
    roots = [source for source in sources if source is not None]
    lengths = [n, shapes[2][2], shapes[2][2]]
    if all(draft.shape(root) == (batch, length, size) for root, length, size in zip(roots, lengths, sizes, strict=True)):
        operands = roots
    elif len(set(roots)) == 1 and draft.shape(roots[0]) == (batch, n, sum(sizes)) and set(lengths) == {n}:
        split = draft.insert_before(node, "Split", [roots[0]], (batch, n, sizes[0]), axis=2, sizes=tuple(sizes))
        operands = draft.add_outputs(split, [(batch, n, size) for size in sizes[1:]])
    elif (
        roots[1] == roots[2]
        and draft.shape(roots[0]) == (batch, n, sizes[0])
        and draft.shape(roots[1]) == (batch, lengths[1], sum(sizes[1:]))
    ):
        split = draft.insert_before(node, "Split", [roots[1]], (batch, lengths[1], sizes[1]), axis=2, sizes=tuple(sizes[1:]))
        operands = [roots[0], *draft.add_outputs(split, [(batch, lengths[2], sizes[2])])]
    else:
        return
    attributes = {key: value for key, value in node.attributes.items() if key != "key_transposed"} | {"heads": heads}
    extra, weights = node.inputs[3:], node.weights
    node.attributes = attributes
    draft.become(tail, "Attention", [*operands, *extra], weights, **attributes)


def _token_major(draft: Draft, value: str, transposed: bool) -> str | None:
    """Walk from a per-head operand back over moves to the (b, n, c) value it comes from."""
    moved = False
    for _ in range(8):
        node = draft.producer(value)
        if node is None or node.op not in _MOVES or not node.inputs:
            break
        if node.op == "Split" and len(draft.shape(value)) == 3 and not moved:
            break
        if node.op == "Transpose":
            moved = True
        elif node.op == "Reshape" and moved and len(draft.shape(value)) == 3:
            break
        value = node.inputs[0]
        if len(draft.shape(value)) == 3 and moved:
            return value
    return value if len(draft.shape(value)) == 3 and (moved or transposed) else None


def _merged(draft: Draft, node: Node, shape: tuple[int, ...]) -> Node | None:
    """Return the reshape that ends (b, h, n, e) → (b, n, h, e) → (b, n, h·e)."""
    transpose = draft.only_user(node.out)
    if transpose is None or transpose.op != "Transpose" or transpose.attributes["perm"] != (0, 2, 1, 3):
        return None
    reshape = draft.only_user(transpose.out)
    return (
        reshape if reshape is not None and reshape.op == "Reshape" and reshape.shape == shape and prod(shape) == prod(node.shape) else None
    )
