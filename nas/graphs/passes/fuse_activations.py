"""Fuse an activation into the convolution, matrix product or sum before it, as every compiling runtime does."""

from __future__ import annotations

from nas.graphs.passes.draft import Draft

_HOSTS = {"Conv", "ConvTranspose", "Gemm", "Add", "BatchNormalization"}
_FUSED = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Swish", "Sigmoid", "Gelu", "Tanh", "LeakyRelu", "Elu", "Mish"}


def rewrite(draft: Draft, activations: frozenset[str] = frozenset(_FUSED)) -> None:
    """Edit `draft` in place; the activation's name becomes the attribute ``activation`` of its host."""
    for node in draft.nodes(*activations):
        maker = draft.producer(node.inputs[0]) if len(node.inputs) == 1 else None
        if maker is None or maker.op not in _HOSTS or "activation" in maker.attributes or draft.only_user(maker.out) is not node:
            continue
        maker.attributes["activation"] = node.op
        draft.absorb(maker, node)
