"""Fused inverted bottleneck: one dense convolution expands, a pointwise one projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.channel_attention import ChannelAttention, channel_attention, lower_channel_attention
from search_spaces.layers.convolution import ConvNorm


class FusedInvertedBottleneck(nn.Module):
    """Conv k → [channel attention] → PW, batch norms throughout, no residual. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, kernel: int, act: Activation, attention: ChannelAttention) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, hidden, kernel)
        self.act = activation(act)
        self.attention = channel_attention(attention, hidden, max(1, channels // 4))
        self.project = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.attention(self.act(self.expand(x))))


@channel_mixers.register("fused-inverted-residual")
@dataclass(frozen=True)
class FusedInvertedResidual(OperatorFamily):
    """Conv k (e·C) BN act → [SE or ECA] → PW(C) BN; the block adds the residual.

    Attributes:
        kernel: Odd size of the first convolution.
        expansion: Hidden channels by channels.
        activation: After the first convolution.
        attention: ``none``, ``se`` (width C / 4, hard sigmoid) or ``eca``.
    """

    kernel: int = 3
    expansion: int = 4
    activation: Activation = "hardswish"
    attention: ChannelAttention = "none"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("EfficientNetV2: Smaller Models and Faster Training", "arXiv 2104.00298")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {
            "kernel": (3, 5),
            "expansion": (2, 3, 4),
            "activation": ("relu", "hardswish"),
            "attention": ("none", "se", "eca"),
        }

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, self.kernel, name="expand"), self.activation)
        x = lower_channel_attention(builder, x, self.attention, max(1, channels // 4))
        return builder.conv(x, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return FusedInvertedBottleneck(channels, self.expansion * channels, self.kernel, self.activation, self.attention)
