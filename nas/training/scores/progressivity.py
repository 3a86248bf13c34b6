"""Progressivity: the least growth of the features' directions from block to block."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores, watched


def features_of(probe: Probe) -> list[Tensor]:
    """Return what each part of a network with normal Kaiming weights makes of noise, in order, as pieces of one graph of gradients.

    Maps (n, c, h, w) and rows of tokens (n, tokens, c) of more than one position; what a head makes of them is left out.
    """
    found: list[Tensor] = []

    def see(_: nn.Module, __: Tensor, y: Tensor) -> None:
        if y.ndim in (3, 4) and y[0].numel() > y.shape[1 if y.ndim == 4 else 2]:
            found.append(y)

    module = probe.make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
    with watched(list(module.children()), see):
        module(torch.randn(probe.pictures.shape, generator=torch.Generator().manual_seed(0)))
    return found


def rows_of(features: Tensor) -> Tensor:
    """(n, c, h, w) or (n, tokens, c) -> (positions, c)."""
    return (features.flatten(2).transpose(1, 2) if features.ndim == 4 else features).flatten(0, 1)


def _entropy(rows: Tensor) -> float:
    """Return the entropy of features along their principal directions, in nats; 0 where they have none."""
    rows = rows - rows.mean(0)
    values = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
    share = values / values.sum()
    return float(-(share * (share + 1e-12).log()).sum().nan_to_num(0.0))


@scores.register("progressivity")
class Progressivity(Score):
    """min over the network's parts of the growth of the entropy of the eigenvalues of their features' covariance, for noise as input."""

    source: ClassVar[Source] = Source(
        "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
        "arXiv 2403.19232, equation 4",
        "blocks are the network's parts",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        with torch.no_grad():
            values = [_entropy(rows_of(features).double()) for features in features_of(probe)]
        return min((after - before for before, after in pairwise(values)), default=0.0)
