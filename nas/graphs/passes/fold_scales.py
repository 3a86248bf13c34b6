"""Fold constant scales and shifts: a scalar or a vector of channels goes into the weights and the bias of the linear operator before it.

A layer scale after a projection, the 1/√d of an attention and a constant bias cost nothing at run time.
"""

from __future__ import annotations

from nas.graphs.graph import Weight
from nas.graphs.passes.draft import Draft, Node

_LINEAR = {"Conv", "ConvTranspose", "Gemm"}
_LAYOUT = {"Reshape", "Transpose", "Split", "Slice", "Gather"}


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place. A folded vector goes from the parameters."""
    for node in draft.nodes("Mul", "Div", "Add", "Sub"):
        if len(node.inputs) != 1 or "reversed" in node.attributes or "activation" in node.attributes:
            continue
        maker = _linear_before_vector(draft, node) if node.weights else _linear_before_scalar(draft, node)
        if maker is None:
            continue
        if node.op in {"Add", "Sub"}:
            if maker.op == "ConvTranspose" or not node.weights:
                continue
            maker.weights = (maker.weights[0], Weight((maker.weights[0].shape[0],), maker.weights[0].dtype))
        draft.bypass(node)


def _takes_scale(node: Node | None) -> bool:
    return node is not None and node.op in _LINEAR and bool(node.weights) and "activation" not in node.attributes


def _linear_before_vector(draft: Draft, node: Node) -> Node | None:
    """Return the linear operator along whose output channels, and nothing else, the constant of `node` varies."""
    if len(node.weights) != 1 or draft.shape(node.inputs[0]) != node.shape:
        return None
    rank = len(node.shape)
    shape = (1,) * (rank - len(node.weights[0].shape)) + node.weights[0].shape
    axes = [i for i, size in enumerate(shape) if size > 1]
    if len(axes) != 1 or shape[axes[0]] != node.shape[axes[0]]:
        return None
    axis, value = axes[0], node.inputs[0]
    while draft.only_user(value) is not None:
        maker = draft.producer(value)
        if maker is not None and maker.op == "Transpose":
            axis, value = maker.attributes["perm"][axis], maker.inputs[0]
        elif _takes_scale(maker) and maker is not None:
            return maker if axis == (rank - 1 if maker.op == "Gemm" else 1) else None
        else:
            return None
    return None


def _linear_before_scalar(draft: Draft, node: Node) -> Node | None:
    """Return the linear operator whose result, moved at most, is what `node` scales.

    Of a fused projection a part's rows alone are scaled, whoever reads the other parts.
    """
    value, parted = node.inputs[0], False
    while parted or draft.only_user(value) is not None:
        maker = draft.producer(value)
        if maker is None or not maker.inputs:
            return None
        if maker.op in _LINEAR:
            return maker if _takes_scale(maker) else None
        if maker.op not in _LAYOUT:
            return None
        parted = parted or maker.op == "Split"
        value = maker.inputs[0]
    return None
