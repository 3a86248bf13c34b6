"""Inverted separable convolution, the token mixer of ConvFormer and CAFormer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation


class SeparableConv(nn.Module):
    """PW → activation → DW → PW, no biases. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, kernel: int, act: Activation) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = activation(act)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.act(self.expand(x))))


@mixers.register("separable")
@dataclass(frozen=True)
class Separable(OperatorFamily):
    """PW(e·C) → activation → DW k → PW(C).

    Attributes:
        kernel: Odd size of the depthwise convolution.
        expansion: Hidden channels by channels.
        activation: StarReLU as published.
    """

    kernel: int = 7
    expansion: int = 2
    activation: Activation = "star-relu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("MetaFormer Baselines for Vision", "arXiv 2210.13452")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "expansion": (1, 2), "activation": ("relu", "hardswish", "star-relu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, bias=False, name="expand"), self.activation)
        return builder.conv(builder.depthwise(x, self.kernel, bias=False, name="depthwise"), channels, bias=False, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return SeparableConv(channels, self.expansion * channels, self.kernel, self.activation)
