"""Trainability: whether gradients keep their size on their way back through the blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.space import Resolution
from nas.training.score import Probe, Score, scores
from nas.training.scores.progressivity import features_of, rows_of


@scores.register("trainability")
class Trainability(Score):
    """Mean over the blocks but the first of −σ − 1/σ + 2, σ the spectral norm of a block's Jacobian as a random gradient sees it."""

    source: ClassVar[Source] = Source(
        "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search",
        "arXiv 2403.19232, equations 7 and 8",
        "of a block that halves the map, the positions that become one are channels of it, as in the authors' code, filled with zeros or cut where it does not halve evenly; other changes of the positions are left out",
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        generator = torch.Generator().manual_seed(0)
        balances = []
        for x, y in reversed(list(pairwise(features_of(probe)))):
            signs = torch.randint(0, 2, y.shape, generator=generator).to(y.dtype) * 2 - 1
            (back,) = torch.autograd.grad(y, x, signs, allow_unused=True)
            if back is None or not bool(back.isfinite().all()) or (back.shape == signs.shape and torch.equal(back, signs)):
                return float("-inf")
            if back.ndim == signs.ndim == 4:
                back = _gathered(back, (signs.shape[2], signs.shape[3]))
            if (rows := rows_of(signs)).shape[0] == rows_of(back).shape[0]:
                balances.append(_balance(rows, rows_of(back)))
        return sum(balances) / len(balances) if balances else float("-inf")


def _gathered(x: Tensor, size: Resolution) -> Tensor:
    """Return maps whose squares of positions are channels: (n, c, h, w) -> (n, c · f², *size), filled with zeros or cut to whole squares; x where there is no such f."""
    factors = {round(before / after) for before, after in zip(x.shape[2:], size, strict=True)}
    if factors == {1} or len(factors) > 1:
        return x
    factor = factors.pop()
    return F.pixel_unshuffle(F.pad(x, (0, factor * size[1] - x.shape[3], 0, factor * size[0] - x.shape[2])), factor)


def _balance(signs: Tensor, back: Tensor) -> float:
    """Return −σ − 1/σ + 2 of the largest singular value of backᵀ·signs over the positions."""
    sigma = float(torch.linalg.matrix_norm(back.T.double() @ signs.double() / len(signs), ord=2))
    return -sigma - 1 / (sigma + 1e-6) + 2
