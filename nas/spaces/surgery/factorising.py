"""Linear layers of a segment as two of lower rank."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping

import torch
from torch import Tensor, fx, nn
from torch.utils.weak import WeakTensorKeyDictionary

DIVISOR = 8
"""Ranks are multiples of it. Set by hand."""

_FACTORS: MutableMapping[Tensor, dict[int, tuple[Tensor, Tensor]]] = WeakTensorKeyDictionary()
"""By weight and rank: the same layer is built for its graph, for its slot and for a member."""


def rank_of(inputs: int, outputs: int, share: float) -> int:
    """Return the rank at which two layers have about this share of the weights of one; 0 where that is no multiple of `DIVISOR` at all."""
    return DIVISOR * int(share * inputs * outputs / (inputs + outputs) / DIVISOR)


def factorisable(segment: fx.GraphModule, share: float) -> dict[str, int]:
    """Return the rank of each linear layer, and convolution of one pixel, that can become two; layers that are called twice or read elsewhere stay."""
    calls: dict[str, int] = {}
    read = {str(node.target).rpartition(".")[0] for node in segment.graph.nodes if node.op == "get_attr"}
    for node in segment.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    found = {}
    for name, count in calls.items():
        layer = segment.get_submodule(name)
        if count == 1 and name not in read and (sides := _sides(layer)) and (rank := rank_of(*sides, share)):
            found[name] = rank
    return found


def factorised(segment: fx.GraphModule, share: float) -> fx.GraphModule:
    """Return a copy of a segment in which linear layers are two with about this share of their weights.

    Source:
        PELA: Learning Parameter-Efficient Models with Low-Rank Approximation (arXiv 2310.10700): the best approximation of each weight by singular values.
        Differs: the rank follows from what the two layers are to cost; no intermediate pre-training.
    """
    copied = copy.deepcopy(segment)
    for name, rank in factorisable(segment, share).items():
        layer = segment.get_submodule(name)
        down, up = _factors(layer.weight, rank)  # type: ignore[arg-type]
        first, second = _pair(layer, rank)
        with torch.no_grad():
            first.weight.copy_(down.view_as(first.weight))  # type: ignore[operator,arg-type]
            second.weight.copy_(up.view_as(second.weight))  # type: ignore[operator,arg-type]
            if layer.bias is not None:
                second.bias.copy_(layer.bias)  # type: ignore[operator,arg-type]
        copied.add_submodule(f"{name}_reduce", first.train(layer.training))
        copied.set_submodule(name, second.train(layer.training))
        node = next(n for n in copied.graph.nodes if n.op == "call_module" and n.target == name)
        with copied.graph.inserting_before(node):
            made = copied.graph.call_module(f"{name}_reduce", node.args)
        node.args = (made,)
    copied.recompile()
    return copied


def _sides(layer: nn.Module) -> tuple[int, int] | None:
    if type(layer) is nn.Linear:
        return layer.in_features, layer.out_features
    if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding in ((0, 0), 0):
        return layer.in_channels, layer.out_channels
    return None


def _pair(layer: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Conv2d):  # a stride goes with the first: the second is cheaper then
        return nn.Conv2d(layer.in_channels, rank, 1, layer.stride, bias=False), nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias)  # type: ignore[arg-type]
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=has_bias)


def _factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return (rank, inputs) and (outputs, rank) whose product is nearest to a weight, each with half of the singular values."""
    known = _FACTORS.setdefault(weight, {})
    if rank not in known:
        with torch.no_grad():
            u, s, v = torch.linalg.svd(weight.detach().double().flatten(1), full_matrices=False)
            root = s[:rank].sqrt()
            known[rank] = (root[:, None] * v[:rank]).to(weight), (u[:, :rank] * root).to(weight)
    return known[rank]
