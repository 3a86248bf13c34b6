"""Global attention whose keys and values come from a reduced map (PVT); with reduction 1, plain self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import attend, heads_of, lower_attend
from search_spaces.layers.convolution import ConvNorm, StackedConv

Reduce = Literal["depthwise", "pool"]


@mixers.register("spatial-reduction")
@dataclass(frozen=True)
class SpatialReduction(OperatorFamily):
    """Multi-head attention from every position to a map that is `reduction` times smaller a side (rounded up).

    Attributes:
        reduction: 1 is plain self-attention, with one projection for q, k and v.
        reduce: How the map shrinks: a depthwise convolution of kernel reduction + 1 with batch norm, or average pooling.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Pyramid Vision Transformer",
        "arXiv 2102.12122; average pooling: PVT v2, arXiv 2106.13797",
        "reduces by an overlapping depthwise convolution with batch norm (any size of map), not by a dense one with layer norm",
    )

    reduction: int = 2
    reduce: Reduce = "depthwise"
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return the values that make sense."""
        return {"reduction": (1, 2, 4, 8), "reduce": ("depthwise", "pool"), "head_dim": (16, 32)}

    @classmethod
    def searched(cls, stage: int, *, wide: bool = False) -> Mapping[str, tuple[Any, ...]]:  # noqa: ARG003
        """Return PVT's reduction of each stage (arXiv 2102.12122)."""
        return {"reduction": ((8, 4, 2, 1)[min(stage, 3)],)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        c, heads, r = builder.shape(x)[1], heads_of(builder.shape(x)[1], self.head_dim), self.reduction
        if r == 1:
            q, k, v = builder.split(builder.conv(x, 3 * c, name="qkv"), (c, c, c))
        else:
            q, y = builder.conv(x, c, name="query"), x
            if self.reduce == "depthwise":
                y = builder.conv(x, c, r + 1, stride=r, groups=c, name="reduce")
            else:
                pads = pooling_pads(builder.shape(x)[2:], r)
                y = builder.pool("AveragePool", x, r, pads=(*pads, *pads), count_include_pad=0, name="reduce")
            k, v = builder.split(builder.conv(y, 2 * c, name="key_value"), (c, c))
        return builder.conv(lower_attend(builder, q, k, v, heads), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        """Return the training form."""
        heads = heads_of(channels, self.head_dim)
        return SelfAttention(channels, heads) if self.reduction == 1 else ReducedAttention(channels, heads, self)


def pooling_pads(size: tuple[int, ...], reduction: int) -> tuple[int, ...]:
    """Return the padding a side, for each axis, with which windows of `reduction` cover a map, edges included."""
    return tuple((-int(side) % reduction + 1) // 2 for side in size)  # a number also while a tracer hands over sizes as tensors


class CoveringPool(nn.Module):
    """Average of windows that cover the map, edges included. (n, c, h, w) -> (n, c, ⌈h/r⌉, ⌈w/r⌉)."""

    def __init__(self, reduction: int) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.reduction, self.reduction, pooling_pads(x.shape[2:], self.reduction), count_include_pad=False)


class SelfAttention(nn.Module):
    """Plain multi-head self-attention of a map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedConv(channels, channels, parts=3)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=1)
        return self.project(attend(q, k, v, self.heads))


class ReducedAttention(nn.Module):
    """Multi-head attention to a reduced map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int, knobs: SpatialReduction) -> None:
        super().__init__()
        r = knobs.reduction
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.reduce = ConvNorm(channels, channels, r + 1, stride=r, groups=channels) if knobs.reduce == "depthwise" else CoveringPool(r)
        self.key_value = StackedConv(channels, channels, parts=2)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.key_value(self.reduce(x)).chunk(2, dim=1)
        return self.project(attend(self.query(x), k, v, self.heads))
