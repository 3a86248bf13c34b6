"""Expressivity: how many directions the features of each block use."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, blocks_of, scores, watched


def entropies(probe: Probe) -> list[float]:
    """Return the entropy of each block's features along their principal directions, in nats."""
    by_block: list[float] = []

    def see(_: nn.Module, __: Tensor, y: Tensor) -> None:
        if y.ndim != 4 and y.ndim != 3:
            return
        rows = (y.flatten(2).transpose(1, 2) if y.ndim == 4 else y).reshape(-1, y.shape[1] if y.ndim == 4 else y.shape[2]).double()
        rows = rows - rows.mean(0)
        values = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
        share = values / values.sum()
        entropy = -(share * (share + 1e-12).log()).sum()
        by_block.append(float(entropy) if bool(entropy.isfinite()) else 0.0)

    module = probe.make()
    with torch.no_grad(), watched(blocks_of(module), see):
        module(torch.randn(probe.pictures.shape, generator=torch.Generator().manual_seed(0)))
    return by_block


@scores.register("expressivity")
class Expressivity(Score):
    """Sum over the blocks of the entropy of the eigenvalues of their features' covariance, for noise as input."""

    source: ClassVar[Source] = Source(
        "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
        "arXiv 2403.19232, equation 3",
        "blocks are the network's parts",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        return float(sum(entropies(probe)))
