"""Trainability: whether gradients keep their size on their way back through the blocks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, blocks_of, scores, watched


@scores.register("trainability")
class Trainability(Score):
    """Mean over the blocks of −σ − 1/σ + 2, σ the spectral norm of a block's Jacobian as a random gradient sees it."""

    source: ClassVar[Source] = Source(
        "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
        "arXiv 2403.19232, equations 7 and 8",
        "blocks that change the number of channels are judged by the nearest channels of both sides",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        pairs: list[tuple[Tensor, Tensor]] = []

        def see(_: nn.Module, x: Tensor, y: Tensor) -> None:
            if x.ndim == y.ndim >= 3 and x.requires_grad:
                pairs.append((x, y))

        module = probe.make()
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(probe.pictures.shape, generator=generator).requires_grad_()
        with watched(blocks_of(module), see):
            module(inputs)
        balances = []
        for x, y in pairs:
            signs = torch.randint(0, 2, y.shape, generator=generator).to(y.dtype) * 2 - 1
            (back,) = torch.autograd.grad(y, x, signs, retain_graph=True, allow_unused=True)
            if back is None or not bool(back.isfinite().all()):
                balances.append(float("-inf"))
                continue
            balances.append(_balance(_rows(signs), _rows(back)))
        return sum(balances) / len(balances) if balances else float("-inf")


def _rows(gradient: Tensor) -> Tensor:
    """(n, c, h, w) or (n, tokens, c) -> (positions, c), at most as many positions as the coarser map has."""
    if gradient.ndim == 4:
        return torch.nn.functional.adaptive_avg_pool2d(gradient, min(8, gradient.shape[2])).flatten(2).transpose(1, 2).flatten(0, 1)
    return gradient.flatten(0, 1)


def _balance(signs: Tensor, back: Tensor) -> float:
    """Return −σ − 1/σ + 2 of the largest singular value of backᵀ·given."""
    rows = min(len(signs), len(back))
    product = back[:rows].T.double() @ signs[:rows].double() / rows
    sigma = float(torch.linalg.matrix_norm(product, ord=2))
    return -sigma - 1 / (sigma + 1e-6) + 2
