"""Attention between channels inside groups of them (DaViT): every channel sees the whole map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.layers.convolution import StackedConv


@mixers.register("channel-attention")
@dataclass(frozen=True)
class ChannelAttention(OperatorFamily):
    """softmax(kᵀ·v / √d)·qᵀ in groups of d channels: the tokens are channels, their features the positions.

    The cost of the products grows with h·w·c·d, linearly in the map.

    Attributes:
        head_dim: Least number of channels of a group (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source("DaViT: Dual Attention Vision Transformers", "arXiv 2204.03645")

    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        groups = heads_of(c, self.head_dim)
        parts = builder.split(builder.conv(x, 3 * c, name="qkv"), (c, c, c))
        q, k, v = (builder.reshape(part, (n, groups, c // groups, h * w)) for part in parts)
        y = builder.attention(k, v, q)
        return builder.conv(builder.reshape(y, (n, c, h, w)), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GroupedChannelAttention(channels, heads_of(channels, self.head_dim))


class GroupedChannelAttention(nn.Module):
    """Attention between the channels of each group. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        groups: Divides `channels`.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = StackedConv(channels, channels, parts=3)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        width = c // self.groups
        q, k, v = (part.reshape(n, self.groups, width, h * w) for part in self.qkv(x).chunk(3, dim=1))
        y = F.scaled_dot_product_attention(k, v, q, scale=width**-0.5)
        return self.project(y.reshape(n, c, h, w))
