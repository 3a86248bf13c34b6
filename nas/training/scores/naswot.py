"""NASWOT: how differently a network's activations answer to different pictures."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, activations_of, scores, watched


@scores.register("naswot")
class Naswot(Score):
    """log |det K|, K the number of activations that are on in both pictures or off in both."""

    source: ClassVar[Source] = Source(
        "Neural Architecture Search without Training",
        "arXiv 2006.04647",
        "an activation counts as on where its input is above zero, whatever its kind",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        n = len(probe.pictures)
        kernel = torch.zeros(n, n, dtype=torch.float64)

        def see(_: nn.Module, x: Tensor, __: Tensor) -> None:
            on = (x.reshape(n, -1) > 0).float()
            kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

        module = probe.make()
        with torch.no_grad(), watched(activations_of(module), see):
            module(probe.pictures)
        sign, value = torch.linalg.slogdet(kernel)
        return float(value) if sign > 0 and bool(value.isfinite()) else float("-inf")
