"""Attention by a Gaussian of distances in place of softmax, through a few bottleneck tokens (SOFT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.mixers.spatial_reduction import CoveringPool, pooling_pads


@mixers.register("soft")
@dataclass(frozen=True)
class SOFT(OperatorFamily):
    """Pᵀ·D^(−½)·A†·D^(−½)·P·v with A = κ(b, b), P = κ(b, q), κ(a, b) = exp(−|a − b|² / 2√d) and D the row sums of A.

    Queries are keys. b are means of q in cells of the map; A† is Newton's iteration for the inverse.

    Attributes:
        side: Most bottleneck tokens along a side of the map.
        iterations: Of Newton's method.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "SOFT: Softmax-free Transformer with Linear Complexity",
        "arXiv 2110.11945; normalisation: arXiv 2207.03341",
        "bottleneck tokens are means of cells that cover the map; the iteration starts from A / |A|₁², and gradients run through it",
    )

    side: int = 7
    iterations: int = 6
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"side": (4, 7), "iterations": (6, 10, 20), "head_dim": (16, 32)}

    def _reduction(self, resolution: Resolution) -> int:
        return -(-max(resolution) // self.side)

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads = heads_of(c, self.head_dim)

        def tokens(value: str) -> str:
            return builder.transpose(builder.reshape(value, (n, heads, c // heads, -1)), (0, 1, 3, 2))

        q, v = builder.conv(x, c, name="query_key"), tokens(builder.conv(x, c, name="value"))
        cells, reduction = q, self._reduction((h, w))
        if reduction > 1:
            pads = pooling_pads((h, w), reduction)
            cells = builder.pool("AveragePool", q, reduction, pads=(*pads, *pads), count_include_pad=0, name="cells")
        q, b = (builder.scale(tokens(part), (), parameter=False) for part in (q, cells))
        p, a = _lower_kernel(builder, b, q), _lower_kernel(builder, b, b)
        row = builder.reduce("ReduceSum", a, (3,))
        largest = builder.reduce("ReduceMax", row, (2,))
        inverse = builder.binary("Div", a, builder.binary("Mul", largest, largest))
        for _ in range(self.iterations):
            twice = builder.scale(inverse, (), parameter=False)
            inverse = builder.binary("Sub", twice, builder.matmul(builder.matmul(inverse, a), inverse))
        root = builder.unary("Sqrt", row)
        y = builder.binary("Div", builder.matmul(p, v), root)
        y = builder.matmul(builder.transpose(p, (0, 1, 3, 2)), builder.binary("Div", builder.matmul(inverse, y), root))
        y = builder.reshape(builder.transpose(y, (0, 1, 3, 2)), (n, c, h, w))
        return builder.conv(y, c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GaussianAttention(channels, heads_of(channels, self.head_dim), self._reduction(resolution), self.iterations)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return exp(−|a − b|² / 2) of tokens, (…, m, d) and (…, k, d) -> (…, m, k)."""
    squares = [(part * part).sum(dim=-1, keepdim=True) * 0.5 for part in (a, b)]
    return torch.exp(a @ b.transpose(-2, -1) - squares[0] - squares[1].transpose(-2, -1))


def _lower_kernel(builder: GraphBuilder, a: str, b: str) -> str:
    """Write `kernel` and return its output."""

    def half_square(tokens: str) -> str:
        square = builder.reduce("ReduceSum", builder.binary("Mul", tokens, tokens), (3,))
        return builder.scale(square, (), parameter=False)

    product = builder.matmul(a, builder.transpose(b, (0, 1, 3, 2)))
    less = builder.binary("Sub", product, half_square(a))
    return builder.unary("Exp", builder.binary("Sub", less, builder.transpose(half_square(b), (0, 1, 3, 2))))


def pseudoinverse(a: Tensor, row: Tensor, iterations: int) -> Tensor:
    """Return Newton's approximation to the inverse of symmetric matrices (…, m, m) with row sums (…, m, 1).

    Source: Ben-Israel and Cohen, SIAM Journal on Numerical Analysis, 1966: X ← 2·X − X·A·X, from A / |A|₁².
    """
    largest = row.amax(dim=-2, keepdim=True)
    x = a / (largest * largest)
    for _ in range(iterations):
        x = x * 2.0 - x @ a @ x
    return x


class GaussianAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        reduction: Positions a side of the cell that a bottleneck token is the mean of.
        iterations: Of Newton's method.
    """

    def __init__(self, channels: int, heads: int, reduction: int, iterations: int) -> None:
        super().__init__()
        self.heads, self.iterations = heads, iterations
        self.query_key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.cells = CoveringPool(reduction) if reduction > 1 else nn.Identity()
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        d = c // self.heads
        q = self.query_key(x)
        q, b, v = (y.reshape(n, self.heads, d, -1).transpose(2, 3) for y in (q, self.cells(q), self.value(x)))
        q, b = q * d**-0.25, b * d**-0.25
        p, a = kernel(b, q), kernel(b, b)
        row = a.sum(dim=3, keepdim=True)
        root = row.sqrt()
        y = p.transpose(2, 3) @ (pseudoinverse(a, row, self.iterations) @ (p @ v / root) / root)
        return self.project(y.transpose(2, 3).reshape(n, c, h, w))
