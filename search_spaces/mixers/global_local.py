"""Attention among a few soft clusters of the map beside a convolution of its grid (GLMix)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import attend, heads_of, lower_attend
from search_spaces.layers.convolution import StackedConv
from search_spaces.mixers.spatial_reduction import CoveringPool, pooling_pads
from search_spaces.mixers.swin_v2 import EPSILON, unit

TEMPERATURE = 10.0
"""Start of the learned factor of the cosines between a cluster and a position."""


@mixers.register("global-local")
@dataclass(frozen=True)
class GlobalLocal(OperatorFamily):
    """Aᵀ·MHSA(softmax(τ·cos(s, x))·x) + PW(DW k(PW x)), where s are means of the map's cells.

    A position takes each cluster's result by the softmax over clusters of the same cosines.

    Attributes:
        side: Most clusters along a side of the map.
        kernel: Of the depthwise convolution.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Revisiting the Integration of Convolution and Attention for Vision Backbone",
        "arXiv 2411.14429, github.com/rayleizhu/GLMix",
        "clusters start from square cells that cover the map, at most `side` along its longer side",
    )

    side: int = 7
    kernel: int = 5
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"side": (4, 7), "kernel": (3, 5, 7), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        value = builder.conv(x, c, name="value")
        tokens = builder.reshape(value, (n, c, h * w))
        start, reduction = value, self._reduction((h, w))
        if reduction > 1:
            pads = pooling_pads((h, w), reduction)
            start = builder.pool("AveragePool", value, reduction, pads=(*pads, *pads), count_include_pad=0, name="cells")
        _, _, high, wide = builder.shape(start)
        start = builder.transpose(builder.reshape(start, (n, c, high * wide)), (0, 2, 1))
        logits = builder.matmul(_lower_unit(builder, start, 2), _lower_unit(builder, tokens, 1))
        logits = builder.scale(logits, (), name="temperature")
        clusters = builder.matmul(builder.unary("Softmax", logits, axis=2), builder.transpose(tokens, (0, 2, 1)))
        clusters = builder.reshape(builder.transpose(clusters, (0, 2, 1)), (n, c, high, wide))
        q, k, v = builder.split(builder.conv(clusters, 3 * c, name="qkv"), (c, c, c))
        y = builder.reshape(lower_attend(builder, q, k, v, heads_of(c, self.head_dim)), (n, c, high * wide))
        y = builder.reshape(builder.matmul(y, builder.unary("Softmax", logits, axis=1)), (n, c, h, w))
        near = builder.depthwise(builder.conv(x, c, name="near_in"), self.kernel, name="near")
        return builder.conv(builder.binary("Add", y, near), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GlobalLocalMixer(channels, heads_of(channels, self.head_dim), self._reduction(resolution), self.kernel)

    def _reduction(self, resolution: Resolution) -> int:
        return -(-max(resolution) // self.side)


class GlobalLocalMixer(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Of the attention among clusters; divides `channels`.
        reduction: Positions a side of a cell whose mean starts a cluster.
        kernel: Of the depthwise convolution.
    """

    def __init__(self, channels: int, heads: int, reduction: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.tensor([TEMPERATURE]))
        self.value = nn.Conv2d(channels, channels, 1)
        self.cells = CoveringPool(reduction) if reduction > 1 else nn.Identity()
        self.qkv = StackedConv(channels, channels, parts=3)
        self.near_in = nn.Conv2d(channels, channels, 1)
        self.near = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        value = self.value(x)
        start = self.cells(value)
        high, wide = start.shape[2:]
        tokens = value.flatten(2)  # (n, c, h·w)
        logits = unit(start.flatten(2).transpose(1, 2)) @ (tokens / length(tokens)) * self.temperature
        clusters = (logits.softmax(dim=2) @ tokens.transpose(1, 2)).transpose(1, 2).reshape(n, c, high, wide)
        q, k, v = self.qkv(clusters).chunk(3, dim=1)
        y = attend(q, k, v, self.heads).reshape(n, c, high * wide)
        y = (y @ logits.softmax(dim=1)).reshape(n, c, h, w)
        return self.project(y + self.near(self.near_in(x)))


def length(tokens: Tensor) -> Tensor:
    """Return the length of each token, (n, 1, positions), of (n, c, positions)."""
    return torch.linalg.vector_norm(tokens, dim=1, keepdim=True).clamp_min(EPSILON)


def _lower_unit(builder: GraphBuilder, x: str, axis: int) -> str:
    return builder.binary("Div", x, builder.unary("Clip", builder.reduce("ReduceL2", x, (axis,)), min=EPSILON))
