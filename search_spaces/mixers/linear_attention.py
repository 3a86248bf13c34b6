"""Linear attention by ReLU features with a local concentration of what it gives (L²ViT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import lower_activation
from search_spaces.layers.attention import heads_of
from search_spaces.layers.convolution import ConvNorm, StackedConv

EPSILON = 1e-6


@mixers.register("linear-attention")
@dataclass(frozen=True)
class LinearAttention(OperatorFamily):
    """φ(q)·(φ(k)ᵀ·v) / (φ(q)·Σφ(k)) with φ = ReLU, then DW k → GELU → BN → DW k, whose result is added.

    The cost grows linearly with the map; there is no softmax.

    Attributes:
        kernel: Of the two depthwise convolutions.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "The Linear Attention Resurrection in Vision Transformer",
        "arXiv 2501.16182",
        "no official code is public: the order of the local concentration's norm and activation is ours; sums over positions are means, "
        "which keeps φ(k)ᵀ·v in the range of half precision and changes nothing else",
    )

    kernel: int = 7
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads = heads_of(c, self.head_dim)
        q, k, v = builder.split(builder.conv(x, 3 * c, name="qkv"), (c, c, c))
        q, k, v = (builder.reshape(y, (n, heads, c // heads, h * w)) for y in (builder.unary("Relu", q), builder.unary("Relu", k), v))
        context = builder.matmul(v, builder.transpose(k, (0, 1, 3, 2)))
        total = builder.reduce("ReduceMean", k, (3,))
        above = builder.matmul(builder.scale(context, (), parameter=False), q)
        below = builder.matmul(builder.transpose(total, (0, 1, 3, 2)), q)
        y = builder.binary("Div", above, builder.scale(below, (), op="Add", parameter=False))
        y = builder.reshape(y, (n, c, h, w))
        near = lower_activation(builder, builder.depthwise(y, self.kernel, name="near"), "gelu")
        near = builder.depthwise(near, self.kernel, name="far")
        return builder.conv(builder.binary("Add", y, near), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ConcentratedLinearAttention(channels, heads_of(channels, self.head_dim), self.kernel)


class ConcentratedLinearAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        kernel: Of the local concentration.
    """

    def __init__(self, channels: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedConv(channels, channels, parts=3)
        self.near = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.act = nn.GELU()
        self.far = ConvNorm(channels, channels, kernel, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=1)
        q, k, v = (y.reshape(n, self.heads, c // self.heads, h * w) for y in (torch.relu(q), torch.relu(k), v))
        context = (v @ k.transpose(2, 3)) * (1 / (h * w))  # (n, heads, d, d)
        below = k.mean(3, keepdim=True).transpose(2, 3) @ q  # (n, heads, 1, h·w)
        y = (context @ q / (below + EPSILON)).reshape(n, c, h, w)
        return self.project(y + self.far(self.act(self.near(y))))
