"""SynFlow: how much signal passes along all paths of weights."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores


@scores.register("synflow")
class SynFlow(Score):
    """log Σ |θ·∂R/∂θ| of the sum R of the outputs for an input of ones, with |θ| for θ and without normalisation."""

    source: ClassVar[Source] = Source(
        "Pruning neural networks without any data by iteratively conserving synaptic flow",
        "arXiv 2006.05467; as a score of networks: Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134",
        "norms pass their input on; the logarithm is ours, and changes no order",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        module = _without_norms(probe.make().double()).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.abs_()
        module(torch.ones(1, *probe.pictures.shape[1:], dtype=torch.float64)).sum().backward()
        total = sum(float((p.detach() * p.grad).abs().sum()) for p in module.parameters() if p.grad is not None)
        return math.log(total) if 0 < total < math.inf else float("-inf")


def _without_norms(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            module.register_module(name, nn.Identity())
        else:
            _without_norms(child)
    return module
