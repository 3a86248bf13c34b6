"""ZiCo: how large and how steady the gradients of several batches are."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores
from nas.training.scores.gradient_norm import gradients


@scores.register("zico")
class ZiCo(Score):
    """Σ over the layers of log Σ |mean|g|| / std|g|, over two halves of the pictures."""

    source: ClassVar[Source] = Source(
        "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", "arXiv 2301.11300, equation 19"
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        module = probe.make()
        half = len(probe.pictures) // 2
        halves = []
        for begin in (0, half):
            gradients(module, probe, begin, begin + half)
            halves.append([p.grad.abs() for p in module.parameters() if p.ndim > 1 and p.grad is not None])
        total = 0.0
        for first, second in zip(*halves, strict=True):
            both = torch.stack([first, second])
            mean, spread = both.mean(0), both.std(0, correction=0)
            ratio = float((mean[spread > 0] / spread[spread > 0]).sum())
            total += math.log(ratio) if ratio > 0 else 0.0
        return total
