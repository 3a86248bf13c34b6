"""Gradient norm: how large the first step of a training would be."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores


def gradients(module: nn.Module, probe: Probe, begin: int, end: int) -> None:
    """Fill the gradients of the parameters by the loss of some pictures."""
    module.zero_grad(set_to_none=True)
    F.cross_entropy(module(probe.pictures[begin:end]), probe.labels[begin:end]).backward()


@scores.register("gradient-norm")
class GradientNorm(Score):
    """log Σ ‖∂L/∂W‖₂ over the weights with more than one axis."""

    source: ClassVar[Source] = Source(
        "Zero-Cost Proxies for Lightweight NAS", "arXiv 2101.08134, section 3.1", "the logarithm is ours, and changes no order"
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        module = probe.make()
        gradients(module, probe, 0, len(probe.pictures))
        total = sum(float(p.grad.norm()) for p in module.parameters() if p.grad is not None and p.ndim > 1)
        return math.log(total) if 0 < total < math.inf else float("-inf")
