"""Attention whose queries, keys and values come from depthwise convolutions, keys and values at a coarser grid (CvT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import attend, heads_of, lower_attend
from search_spaces.layers.convolution import ConvNorm


@mixers.register("conv-projection")
@dataclass(frozen=True)
class ConvProjection(OperatorFamily):
    """Multi-head attention; each of q, k and v is PW(BN(DW3(x))), with a stride for k and v.

    Attributes:
        stride: Of the convolutions that make keys and values.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "CvT: Introducing Convolutions to Vision Transformers",
        "arXiv 2103.15808, github.com/microsoft/CvT",
        "logits are divided by the root of a head's width, where the official code takes that of all channels (the reference does too)",
    )

    stride: int = 2
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"stride": (1, 2), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        c = builder.shape(x)[1]
        q, k, v = (
            builder.conv(builder.depthwise(x, 3, stride=stride, name=f"{name}.near"), c, name=f"{name}.point")
            for name, stride in (("query", 1), ("key", self.stride), ("value", self.stride))
        )
        return builder.conv(lower_attend(builder, q, k, v, heads_of(c, self.head_dim)), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ConvProjectedAttention(channels, heads_of(channels, self.head_dim), self.stride)


class Projection(nn.Module):
    """PW(BN(DW3(x))). (n, c, h, w) -> (n, c, h / stride, w / stride)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.near = ConvNorm(channels, channels, 3, stride=stride, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(self.near(x))


class ConvProjectedAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        stride: Of keys and values.
    """

    def __init__(self, channels: int, heads: int, stride: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (Projection(channels, s) for s in (1, stride, stride))
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(attend(self.query(x), self.key(x), self.value(x), self.heads))
