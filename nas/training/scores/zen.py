"""Zen: how far the features in front of the pooling move when the input moves a little."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores, watched

STEP = 0.01  # Source: Lin et al., arXiv 2102.01063, take 0.01


@scores.register("zen")
class Zen(Score):
    """log E‖f(x + .01·ε) − f(x)‖ of the last feature map, and Σ log of each batch norm's mean deviation, which the norms took away."""

    source: ClassVar[Source] = Source(
        "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition",
        "arXiv 2102.01063, algorithm 1",
        "the weights are those of a fresh network",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        module = probe.make()
        maps: list[Tensor] = []
        taken: list[float] = []

        def see(part: nn.Module, x: Tensor, y: Tensor) -> None:
            if isinstance(part, nn.BatchNorm2d):
                taken.append(0.5 * math.log(float(x.var((0, 2, 3), correction=0).mean()) + 1e-12))
            if y.ndim in (3, 4) and y[0].numel() > y.shape[1 if y.ndim == 4 else 2]:  # more than one position
                maps[:] = [y]

        generator = torch.Generator().manual_seed(0)
        x = torch.randn(probe.pictures.shape, generator=generator)
        with torch.no_grad(), watched(list(module.modules())[1:], see):
            module(x)
            norms, first = sum(taken), maps[0]
            module(x + STEP * torch.randn(x.shape, generator=generator))
        moved = float((maps[0] - first).abs().mean())
        return math.log(moved) + norms if 0 < moved < math.inf else float("-inf")
