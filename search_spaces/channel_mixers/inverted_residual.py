"""Inverted bottleneck: expand, depthwise, project, each with a batch norm."""

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


class InvertedBottleneck(nn.Module):
    """PW → DW → [channel attention] → PW, batch norms throughout, no residual. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, kernel: int, act: Activation, attention: ChannelAttention) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, hidden)
        self.depthwise = ConvNorm(hidden, hidden, kernel, groups=hidden)
        self.act = activation(act)
        self.attention = channel_attention(attention, hidden, max(1, channels // 4))
        self.project = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.depthwise(self.act(self.expand(x))))
        return self.project(self.attention(x))


@channel_mixers.register("inverted-residual")
@dataclass(frozen=True)
class InvertedResidual(OperatorFamily):
    """PW(e·C) BN act → DW k BN act → [SE or ECA] → PW(C) BN; the block adds the residual.

    Attributes:
        kernel: Odd size of the depthwise convolution.
        expansion: Hidden channels by channels.
        activation: After the first two convolutions.
        attention: ``none``, ``se`` (width C / 4, hard sigmoid) or ``eca``.
    """

    kernel: int = 3
    expansion: int = 4
    activation: Activation = "hardswish"
    attention: ChannelAttention = "none"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "MobileNetV2: Inverted Residuals and Linear Bottlenecks", "arXiv 1801.04381; MobileNetV3, arXiv 1905.02244"
    )
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"kernel": (3, 5)}

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {
            "kernel": (3, 5, 7),
            "expansion": (2, 3, 4, 6),
            "activation": ("relu", "hardswish"),
            "attention": ("none", "se", "eca"),
        }

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, name="expand"), self.activation)
        x = lower_activation(builder, builder.depthwise(x, self.kernel, name="depthwise"), self.activation)
        x = lower_channel_attention(builder, x, self.attention, max(1, channels // 4))
        return builder.conv(x, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return InvertedBottleneck(channels, self.expansion * channels, self.kernel, self.activation, self.attention)
