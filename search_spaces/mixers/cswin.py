"""Cross-shaped windows (CSWin): half of the channels attend in vertical stripes, half in horizontal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of
from search_spaces.layers.windows import ChannelsLast, Tiling, for_batch

Locality = Literal["stripe", "map"]


@mixers.register("cswin")
@dataclass(frozen=True)
class CSWin(OperatorFamily):
    """Multi-head self-attention in stripes with a locally enhanced position encoding, DW3(v).

    A map no larger than a stripe is wide has one branch with all channels, which attends everywhere.

    Attributes:
        stripe: Width of a stripe, in positions; a map that is no multiple gets narrower stripes before it is padded.
        encoding: ``stripe`` convolves inside each stripe, with zeros at its border, as published; ``map`` convolves the
            whole map, which is cheaper to run and another operator.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows",
        "arXiv 2107.00652, github.com/microsoft/CSWin-Transformer",
        "a map that is no multiple of the stripe is taken, its padding masked; `map` is a variant that is not published",
    )

    stripe: int = 7
    encoding: Locality = "stripe"
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"stripe": (1, 2, 4, 7), "encoding": ("stripe", "map"), "head_dim": (16, 32)}

    def tilings(self, resolution: Resolution) -> tuple[Tiling, ...]:
        """Return how each branch cuts the map."""
        h, w = resolution
        if self.stripe >= max(h, w):
            return (Tiling.of(resolution, resolution),)
        return Tiling.of(resolution, (h, min(self.stripe, w))), Tiling.of(resolution, (min(self.stripe, h), w))

    def _width(self, channels: int, branches: int) -> int:
        if channels % branches:
            raise UsageError(f"cswin: needs an even number of channels, got {channels}.")
        return channels // branches

    def lower(self, builder: GraphBuilder, x: str) -> str:
        _, c, h, w = builder.shape(x)
        tilings = self.tilings((h, w))
        width = self._width(c, len(tilings))
        y = builder.transpose(x, (0, 2, 3, 1))
        parts = builder.split(builder.gemm(y, 3 * c, name="qkv"), (width,) * 3 * len(tilings), axis=3)
        branches = []
        for i, tiling in enumerate(tilings):
            with builder.scope(f"branches.{i}"):
                branches.append(self._lower_branch(builder, parts[i :: len(tilings)], tiling))
        y = branches[0] if len(branches) == 1 else builder.concat(branches, axis=3)
        return builder.transpose(builder.gemm(y, c, name="project"), (0, 3, 1, 2))

    def _lower_branch(self, builder: GraphBuilder, qkv: tuple[str, ...], tiling: Tiling) -> str:
        width = builder.shape(qkv[0])[3]
        heads = heads_of(width, self.head_dim)
        groups = [tiling.lower_cut(builder, part) for part in qkv]
        b, positions, _ = builder.shape(groups[0])
        q, k, v = (builder.transpose(builder.reshape(g, (b, positions, heads, width // heads)), (0, 2, 1, 3)) for g in groups)
        mask = [] if tiling.plain else [Weight((tiling.groups, 1, positions, positions), parameter=False)]
        y = builder.add_operator("Attention", [q, k, v], weights=mask)
        y = builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (b, positions, width))
        if self.encoding == "map":
            near = builder.depthwise(builder.transpose(qkv[2], (0, 3, 1, 2)), 3, name="encoding")
            return builder.binary("Add", tiling.lower_mend(builder, y), builder.transpose(near, (0, 2, 3, 1)))
        near = builder.reshape(builder.transpose(groups[2], (0, 2, 1)), (b, width, *tiling.window))
        near = builder.reshape(builder.depthwise(near, 3, name="encoding"), (b, width, positions))
        return tiling.lower_mend(builder, builder.binary("Add", y, builder.transpose(near, (0, 2, 1))))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        tilings = self.tilings(resolution)
        heads = heads_of(self._width(channels, len(tilings)), self.head_dim)
        return ChannelsLast(CrossShapedAttention(channels, heads, tilings, self.encoding))


class CrossShapedAttention(nn.Module):
    """Attention in one kind of stripe a branch. (n, h, w, c) -> (n, h, w, c).

    Args:
        channels: c.
        heads: Heads of a branch.
        tilings: One a branch.
        encoding: Where the position encoding convolves.
    """

    def __init__(self, channels: int, heads: int, tilings: tuple[Tiling, ...], encoding: Locality) -> None:
        super().__init__()
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)
        width = channels // len(tilings)
        self.branches = nn.ModuleList(StripeAttention(width, heads, tiling, encoding) for tiling in tilings)

    def forward(self, x: Tensor) -> Tensor:
        count = len(self.branches)
        parts = self.qkv(x).chunk(3 * count, dim=3)  # q, k, v, each by branch
        return self.project(torch.cat([branch(*parts[i::count]) for i, branch in enumerate(self.branches)], dim=3))


class StripeAttention(nn.Module):
    """Attention of one branch. q, k, v (n, h, w, c) -> (n, h, w, c)."""

    mask: Tensor | None

    def __init__(self, channels: int, heads: int, tiling: Tiling, encoding: Locality) -> None:
        super().__init__()
        self.heads, self.tiling, self.whole = heads, tiling, encoding == "map"
        self.encoding = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.register_buffer("mask", None if tiling.plain else tiling.mask(), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = [self.tiling.cut(part) for part in (q, k, v)]
        b, positions, channels = groups[0].shape
        q_heads, k_heads, v_heads = (g.reshape(b, positions, self.heads, -1).transpose(1, 2) for g in groups)
        mask = None if self.mask is None else for_batch(self.mask.to(q.dtype), b)
        y = F.scaled_dot_product_attention(q_heads, k_heads, v_heads, mask).transpose(1, 2).reshape(b, positions, channels)
        if self.whole:
            return self.tiling.mend(y) + self.encoding(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        near = self.encoding(groups[2].transpose(1, 2).reshape(b, channels, *self.tiling.window))
        return self.tiling.mend(y + near.reshape(b, channels, positions).transpose(1, 2))
