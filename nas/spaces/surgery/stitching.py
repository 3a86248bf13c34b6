"""A stitch: what a network makes, in the form in which another goes on, as one linear layer at each position.

Maps become maps of the same or a neighbouring size, tokens tokens, maps tokens and back. It is started by least squares, so that a chain of two
trained networks says something before it has been trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.operators import Shape

RIDGE = 1e-4
"""Share of the mean square of the inputs that is added to the diagonal. Set by hand."""


@dataclass(frozen=True)
class Form:
    """What a tensor is at a point.

    Attributes:
        shape: At batch 1.
        layout: See `nas.graphs.frontends.cuts.Layout`.
        grid: Height and width of its positions; tokens may have further ones before them (a class token).
    """

    shape: Shape
    layout: str
    grid: tuple[int, int]

    @property
    def channels(self) -> int:
        """Channels, wherever their axis is."""
        return self.shape[1] if self.layout == "map" else self.shape[-1]

    @property
    def prefix(self) -> int:
        """Tokens that are no positions."""
        return self.shape[1] - self.grid[0] * self.grid[1] if self.layout == "tokens" else 0


def resizing(source: Form, target: Form) -> str | None:
    """Return how positions follow from positions: ``same``, ``halve`` (means of 2 × 2), ``double`` (copies), or None where neither does."""
    (h, w), (th, tw) = source.grid, target.grid
    if (h, w) == (th, tw):
        return "same"
    if (-(-h // 2), -(-w // 2)) == (th, tw):
        return "halve"
    if (2 * h, 2 * w) == (th, tw):
        return "double"
    return None


class StitchLayer(nn.Module):
    """See the module. `source.shape` -> `target.shape`, for any batch.

    Args:
        source: What enters.
        target: What leaves.
        rank: Of the linear map; 0 for all of it.

    Raises:
        UsageError: The sizes are not neighbours.
    """

    def __init__(self, source: Form, target: Form, rank: int = 0) -> None:
        super().__init__()
        how = resizing(source, target)
        if how is None:
            raise UsageError(f"stitch: maps are not of neighbouring sizes, got {source.grid} and {target.grid}.")
        self.source, self.target, self.how = source, target, how
        self.rank = rank if 0 < rank < min(source.channels, target.channels) else 0
        if self.rank:
            self.reduce = nn.Conv2d(source.channels, self.rank, 1, bias=False)
        self.linear = nn.Conv2d(self.rank or source.channels, target.channels, 1)
        # a class token comes from the source's own, or from the mean over its positions
        self.token = (
            nn.Linear(source.channels, target.prefix * target.channels) if target.prefix and target.prefix != source.prefix else None
        )

    def split(self, x: Tensor, form: Form) -> tuple[Tensor, Tensor | None]:
        """Return a tensor of a form as (n, c, h, w), and the tokens before the positions (n, prefix, c)."""
        if form.layout == "map":
            return x, None
        if form.layout == "map-last":
            return x.permute(0, 3, 1, 2), None
        if form.layout == "vector":
            return x[:, :, None, None], None
        before = x[:, : form.prefix] if form.prefix else None
        return x[:, form.prefix :].transpose(1, 2).reshape(-1, form.channels, *form.grid), before

    def resized(self, x: Tensor) -> Tensor:
        """Return maps (n, c, h, w) at the target's size."""
        if self.how == "halve":
            return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.how == "double" else x

    def _linear(self, x: Tensor) -> Tensor:
        return self.linear(self.reduce(x)) if self.rank else self.linear(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        grid, before = self.split(x, self.source)
        early = self.how == "double"  # the linear map is cheaper before there are four times as many positions
        y = self.resized(self._linear(grid)) if early else self._linear(self.resized(grid))
        if self.target.layout == "map":
            return y
        if self.target.layout == "map-last":
            return y.permute(0, 2, 3, 1)
        if self.target.layout == "vector":
            return y.flatten(1)
        tokens = y.flatten(2).transpose(1, 2)
        if not self.target.prefix:
            return tokens
        if self.token is not None:
            made = self.token(grid.mean((2, 3)))[:, None].reshape(-1, self.target.prefix, self.target.channels)
        else:
            assert before is not None
            made = self._linear(before.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        return torch.cat([made, tokens], dim=1)


POSITIONS = 32
"""Positions of a picture that a stitch is fitted to: neighbours say much the same, and more of them take long. Set by hand."""


class StitchFit:
    """The least squares of one stitch, from as many batches as come.

    Args:
        layer: Whose weights are set by `solve`.

    Source:
        SN-Net (arXiv 2302.06586, section 3.3) solves by a pseudo-inverse on one batch; differs in that it has a bias, a ridge, float64 and as many
        batches as are given, from their moments.
    """

    def __init__(self, layer: StitchLayer) -> None:
        self.layer, self._grid, self._token = layer, _Moments(), _Moments()
        self._generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor) -> None:
        """Take note of what both networks make of the same pictures: at the source's point, and at the target's."""
        layer = self.layer
        a, before = layer.split(x, layer.source)
        b, after = layer.split(y, layer.target)
        if layer.how == "double":  # copies of a position count as one: its target is their mean
            self._add_positions(a, F.avg_pool2d(b, 2))
        else:
            self._add_positions(layer.resized(a), b)
        if layer.token is not None and after is not None:
            self._token.add(a.mean((2, 3)).double(), after.flatten(1).double())
        elif before is not None and after is not None:
            self._grid.add(before.flatten(0, 1).double(), after.flatten(0, 1).double())

    def _add_positions(self, a: Tensor, b: Tensor) -> None:
        """Take note of maps (n, c, h, w) and (n, c', h, w) at some positions, drawn anew for each batch."""
        a, b = a.flatten(2), b.flatten(2)
        if a.shape[2] > POSITIONS:
            chosen = torch.randperm(a.shape[2], generator=self._generator)[:POSITIONS].to(a.device)
            a, b = a[:, :, chosen], b[:, :, chosen]
        self._grid.add(_rows(a), _rows(b))

    @torch.no_grad()
    def solve(self, ridge: float = RIDGE, match_variance: bool = False) -> float:
        """Set the layer's weights.

        Args:
            ridge: See `RIDGE`.
            match_variance: Whether each channel is stretched to the deviation that the target's has; least squares shrinks it.

        Returns:
            The share of the target's variance that is explained, over all channels.
        """
        layer = self.layer
        weight, bias, explained = self._grid.solve(ridge, match_variance)
        if layer.rank:
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
            layer.reduce.weight.copy_((values[: layer.rank, None] * right[: layer.rank])[..., None, None])
            weight = left[:, : layer.rank]
        layer.linear.weight.copy_(weight[..., None, None])
        assert layer.linear.bias is not None
        layer.linear.bias.copy_(bias)
        if layer.token is not None:
            weight, bias, _ = self._token.solve(max(ridge, 1e-2), False)
            layer.token.weight.copy_(weight)
            layer.token.bias.copy_(bias)
        return explained


def _rows(x: Tensor) -> Tensor:
    """Return (n, c, positions) as rows (n · positions, c) in float64."""
    return x.transpose(1, 2).flatten(0, 1).double()


class _Moments:
    """Sums from which least squares follow, over as many batches as come."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        moments = [x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.square().sum(0)]
        self.sums = moments if not self.sums else [a + b for a, b in zip(self.sums, moments, strict=True)]
        self.count += len(x)

    def solve(self, ridge: float, match_variance: bool) -> tuple[Tensor, Tensor, float]:
        """Return weight (c', c), bias (c',) and the share of variance explained."""
        if not self.count:
            raise UsageError("stitch: nothing to fit to. Expected at least one batch.")
        sx, sy, xx, xy, yy = (total / self.count for total in self.sums)
        xx, xy = xx - sx[:, None] * sx[None], xy - sx[:, None] * sy[None]
        variance = (yy - sy.square()).clamp(min=0)
        damping = ridge * xx.diagonal().mean().clamp(min=1e-12)
        solved = torch.linalg.solve(xx + damping * torch.eye(len(xx), dtype=xx.dtype, device=xx.device), xy)  # (c, c')
        made = ((solved.T @ xx) * solved.T).sum(1)
        left = variance - 2 * (solved * xy).sum(0) + made
        explained = 1 - float(left.sum() / variance.sum().clamp(min=1e-12))
        if match_variance:
            solved = solved * (variance / made.clamp(min=1e-12)).sqrt().clamp(max=3.0)
        return solved.T, sy - sx @ solved, explained


def similarity(x: Tensor, y: Tensor) -> float:
    """Return the linear centred kernel alignment of two sets of features of the same pictures, 0 to 1.

    Args:
        x: (n, …) features, flattened beyond the first axis.
        y: (n, …).

    Source:
        Kornblith et al., arXiv 1905.00414, equation 1 with linear kernels, in its unbiased form of Nguyen et al. (arXiv 2010.15327).
    """
    n = len(x)
    if n < 4:
        raise UsageError(f"similarity: too few pictures, got {n}. Expected at least 4.")
    k, other = (features.flatten(1).double() @ features.flatten(1).double().T for features in (x, y))
    return _hsic(k, other) / max(math.sqrt(_hsic(k, k) * _hsic(other, other)), 1e-12)


def _hsic(k: Tensor, other: Tensor) -> float:
    n = len(k)
    k, other = k - torch.diag(k.diag()), other - torch.diag(other.diag())
    cross = float((k * other).sum())
    total = float(k.sum() * other.sum()) / ((n - 1) * (n - 2))
    mixed = 2 * float(k.sum(0) @ other.sum(0)) / (n - 2)
    return max(float(cross + total - mixed) / (n * (n - 3)), 0.0)
