"""Fold a batch norm into the convolution or matrix product before it: its scale into the weights, its shift into the bias."""

from __future__ import annotations

from nas.graphs.graph import Weight
from nas.graphs.passes.draft import Draft, Node

_LINEAR = {"Conv", "ConvTranspose", "Gemm"}


def rewrite(draft: Draft) -> None:
    """Edit `draft` in place. Two vectors a batch norm go from the parameters, a bias comes where there was none."""
    for node in draft.nodes("BatchNormalization"):
        maker = _linear_before(draft, node.inputs[0]) if len(node.shape) > 1 else None
        if maker is None:
            continue
        channels = node.shape[1]
        outer = maker.weights[0].shape[1] * maker.attributes["groups"] if maker.op == "ConvTranspose" else maker.weights[0].shape[0]
        if outer != channels:
            continue
        maker.weights = (maker.weights[0], Weight((channels,), maker.weights[0].dtype))
        draft.bypass(node)


def _linear_before(draft: Draft, value: str) -> Node | None:
    """Return the linear operator that makes `value`, seen through reshapes that keep the channels together."""
    rank, channels = len(draft.shape(value)), draft.shape(value)[1]
    while draft.only_user(value) is not None:
        maker = draft.producer(value)
        if maker is None or draft.shape(value)[-1 if rank == 2 else 1] != channels:
            return None
        if maker.op in _LINEAR:
            fits = bool(maker.weights) and "activation" not in maker.attributes
            return maker if fits and (maker.op == "Gemm") == (rank == 2) else None
        if maker.op != "Reshape":
            return None
        value = maker.inputs[0]
    return None
