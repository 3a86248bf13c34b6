"""Write a mean over all spatial positions as the pooling it is, and mark the gate of a squeeze-and-excitation block."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place. The product that a squeeze-and-excitation block ends with gets the attribute ``gate``.

    Source:
        Hu et al., arXiv 1709.01507, section 3.
    """
    for node in draft.nodes("ReduceMean"):
        before = draft.shape(node.inputs[0])
        if len(before) != 4 or {axis % 4 for axis in node.attributes["axes"]} != {2, 3}:
            continue
        if node.attributes.get("keepdims", 1):
            draft.become(node, "GlobalAveragePool", node.inputs)
        else:
            pool = draft.insert_before(node, "GlobalAveragePool", node.inputs, (*before[:2], 1, 1))
            draft.become(node, "Reshape", [pool.out], shape=node.shape)
    for node in draft.nodes("Mul"):
        if len(node.inputs) != 2 or len(node.shape) != 4:
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            if draft.shape(x) == node.shape and draft.shape(gate) == (*node.shape[:2], 1, 1) != node.shape and _squeezed(draft, gate):
                node.attributes["gate"] = 1


def _squeezed(draft: Draft, value: str) -> bool:
    """Whether `value` comes from a global pooling by operators on one pixel."""
    for _ in range(10):
        node = draft.producer(value)
        if node is None or not node.inputs:
            return False
        if node.op == "GlobalAveragePool":
            return True
        value = node.inputs[0]
    return False
