"""Bi-level routing attention (BiFormer): each region attends to the few regions that it resembles most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.layers.convolution import StackedConv
from search_spaces.layers.windows import Tiling, for_batch

Routing = Literal["content", "near", "spread", "all"]


@mixers.register("biformer")
@dataclass(frozen=True)
class BiFormer(OperatorFamily):
    """PW(attention of each region to the keys and values of `topk` regions + DW5(v)).

    Attributes:
        topk: Regions that a region attends to; at most as many as there are.
        routing: Who they are. ``content``: the published ones, those whose mean key agrees most with the region's mean query,
            which needs TopK and gathers at run time. Static substitutes: ``near`` the closest, ``spread`` an even sample
            that begins with the region itself, ``all`` every one, which equals ``content`` with all regions.
        regions: Regions a side, at most; a map that is no multiple is padded and the padding masked.
        head_scale: Whether logits are divided by the root of a head's width; the published code takes the root of all channels.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "BiFormer: Vision Transformer with Bi-Level Routing Attention",
        "arXiv 2303.08810, github.com/rayleizhu/BiFormer",
        "static routings are not published; padding is masked, where the code lets padded keys take part",
    )

    topk: int = 4
    routing: Routing = "content"
    regions: int = 7
    head_scale: bool = False
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"topk": (1, 4, 16), "routing": ("content", "near", "spread", "all")}

    @property
    def grade(self) -> Grade:
        """Red with the published routing alone; the static ones have constant indices."""
        return "red" if self.routing == "content" else "amber"

    def tiling(self, resolution: Resolution) -> Tiling:
        """Return the regions: as many a side as there may be, equal."""
        size = tuple(-(-side // min(side, self.regions)) for side in resolution)
        return Tiling.of(resolution, (size[0], size[1]))

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        tiling, heads = self.tiling((h, w)), heads_of(c, self.head_dim)
        count, topk = tiling.groups, min(self.topk, tiling.groups)
        qkv = builder.conv(x, 3 * c, name="qkv")
        near = builder.depthwise(builder.split(qkv, (c, c, c))[2], 5, name="encoding")
        groups = tiling.lower_cut(builder, builder.transpose(qkv, (0, 2, 3, 1)))
        area = builder.shape(groups)[1]
        q, kv = builder.split(groups, (c, 2 * c), axis=2)
        mask: list[Weight] = []
        inputs: list[str] = []
        if self.routing == "all" or topk == count:
            q, kv = builder.reshape(q, (n, count * area, c)), builder.reshape(kv, (n, count * area, 2 * c))
            mask = [] if tiling.plain else [Weight((1, 1, 1, count * area), parameter=False)]
        else:
            kv = builder.reshape(kv, (n, count, area * 2 * c))
            if self.routing == "content":
                index = self._lower_routing(builder, q, kv, (n, count, topk, area, c))
                wide = builder.add_operator("Expand", [kv], shape=(n, count, count, area * 2 * c))
                full = builder.add_operator("Expand", [index], shape=(n, count, topk, area * 2 * c))
                kv = builder.add_operator("GatherElements", [wide, full], {"axis": 2}, shape=(n, count, topk, area * 2 * c))
                if not tiling.plain:
                    table = Weight((count, area), parameter=False)
                    flat = builder.reshape(index, (n, count, topk))
                    rows = builder.add_operator("Gather", [flat], {"axis": 0}, weights=[table], shape=(n, count, topk, area), dtype="fp32")
                    inputs = [builder.reshape(rows, (n * count, 1, 1, topk * area))]
            else:
                fixed = Weight((count * topk,), "int64", parameter=False)
                kv = builder.add_operator("Gather", [kv], {"axis": 1}, weights=[fixed], shape=(n, count * topk, area * 2 * c))
                mask = [] if tiling.plain else [Weight((count, 1, 1, topk * area), parameter=False)]
            kv = builder.reshape(kv, (n * count, topk * area, 2 * c))
        k, v = builder.split(kv, (c, c), axis=2)
        b = builder.shape(q)[0]
        q, k, v = (builder.transpose(builder.reshape(y, (b, -1, heads, c // heads)), (0, 2, 1, 3)) for y in (q, k, v))
        scale = None if self.head_scale else c**-0.5
        y = builder.add_operator("Attention", [q, k, v, *inputs], {"scale": scale}, weights=mask)
        y = builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n * count, area, c))
        y = builder.transpose(tiling.lower_mend(builder, y), (0, 3, 1, 2))
        return builder.conv(builder.binary("Add", y, near), c, name="project")

    def _lower_routing(self, builder: GraphBuilder, q: str, kv: str, sizes: tuple[int, int, int, int, int]) -> str:
        n, count, topk, area, c = sizes
        keys = builder.split(builder.reshape(kv, (n * count, area, 2 * c)), (c, c), axis=2)[0]
        q_mean, k_mean = (builder.reshape(builder.reduce("ReduceMean", y, (1,)), (n, count, c)) for y in (q, keys))
        affinity = builder.matmul(q_mean, builder.transpose(k_mean, (0, 2, 1)))
        index = builder.add_operator("TopK", [affinity], {"k": topk, "axis": -1}, shape=(n, count, topk), dtype="int64")
        return builder.reshape(index, (n, count, topk, 1))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return RoutedAttention(channels, heads_of(channels, self.head_dim), self.tiling(resolution), self)


def static_routes(counts: Resolution, topk: int, routing: Routing) -> Tensor:
    """Return the regions that each region attends to, itself first, (regions, topk)."""
    regions = counts[0] * counts[1]
    own = torch.arange(regions)
    if routing == "spread":
        return (own.view(-1, 1) + torch.arange(topk) * regions // topk) % regions
    row, column = own // counts[1], own % counts[1]
    distance = (row.view(-1, 1) - row) ** 2 + (column.view(-1, 1) - column) ** 2
    return distance.argsort(dim=1, stable=True)[:, :topk]


class RoutedAttention(nn.Module):
    """The module of `BiFormer`. (n, c, h, w) -> (n, c, h, w)."""

    mask: Tensor | None
    routes: Tensor | None

    def __init__(self, channels: int, heads: int, tiling: Tiling, knobs: BiFormer) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.topk = tiling.groups if knobs.routing == "all" else min(knobs.topk, tiling.groups)
        self.scale = (channels // heads if knobs.head_scale else channels) ** -0.5
        self.qkv = StackedConv(channels, channels, parts=3)
        self.encoding = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)
        static = knobs.routing not in ("content", "all") and self.topk < tiling.groups
        self.register_buffer("routes", static_routes(tiling.counts, self.topk, knobs.routing) if static else None, persistent=False)
        # what the logits of a region's keys get added, (regions, positions)
        padding = None if tiling.plain else tiling.mask()[:, 0, 0].contiguous()
        self.register_buffer("mask", padding, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        count, topk = self.tiling.groups, self.topk
        qkv = self.qkv(x)
        near = self.encoding(qkv.chunk(3, dim=1)[2])
        q, kv = self.tiling.cut(qkv.permute(0, 2, 3, 1)).split((c, 2 * c), dim=2)
        area = q.shape[1]
        mask = None if self.mask is None else self.mask.to(x.dtype)
        if topk == count:
            q, kv = q.reshape(n, count * area, c), kv.reshape(n, count * area, 2 * c)
            mask = None if mask is None else mask.view(1, 1, 1, -1)
        elif self.routes is not None:
            kv = kv.reshape(n, count, -1)[:, self.routes.flatten()].reshape(n * count, topk * area, 2 * c)
            mask = None if mask is None else for_batch(mask[self.routes].view(count, 1, 1, -1), n * count)
        else:
            index = self._route(q.detach(), kv.chunk(2, dim=2)[0].detach(), n)  # (n, regions, topk)
            wide = kv.reshape(n, 1, count, -1).expand(n, count, count, area * 2 * c)
            kv = wide.gather(2, index.unsqueeze(3).expand(n, count, topk, area * 2 * c)).reshape(n * count, topk * area, 2 * c)
            mask = None if mask is None else mask[index].view(n * count, 1, 1, -1)
        b = q.shape[0]
        q, k, v = (y.reshape(b, -1, self.heads, c // self.heads).transpose(1, 2) for y in (q, *kv.chunk(2, dim=2)))
        y = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
        y = self.tiling.mend(y.transpose(1, 2).reshape(n * count, area, c)).permute(0, 3, 1, 2)
        return self.project(y + near)

    def _route(self, q: Tensor, k: Tensor, n: int) -> Tensor:
        q, k = (y.mean(1).view(n, self.tiling.groups, -1) for y in (q, k))
        return (q @ k.transpose(1, 2)).topk(self.topk, dim=2).indices
