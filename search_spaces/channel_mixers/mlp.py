"""The two-layer perceptron of each position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import ConvNorm


class Perceptron(nn.Module):
    """PW → activation → PW, with a batch norm after each where `norm` asks for it. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, act: Activation, norm: Literal["none", "batch"] = "none", *, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1, bias=bias) if norm == "none" else ConvNorm(channels, hidden)
        self.act = activation(act)
        self.project = nn.Conv2d(hidden, channels, 1, bias=bias) if norm == "none" else ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(x)))


class TokenPerceptron(nn.Module):
    """The same of tokens. (…, channels) -> (…, channels)."""

    def __init__(self, channels: int, hidden: int, act: Activation, *, bias: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden, bias)
        self.act = activation(act)
        self.project = nn.Linear(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(x)))


@channel_mixers.register("mlp")
@dataclass(frozen=True)
class MLP(OperatorFamily):
    """PW(e·C) → activation → PW(C).

    Attributes:
        expansion: Hidden channels by channels.
        activation: Between the two layers; GELU as published.
        norm: ``batch`` trains with a batch norm after each layer, which folds.
    """

    expansion: int = 4
    activation: Activation = "gelu"
    norm: Literal["none", "batch"] = "none"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("MetaFormer Is Actually What You Need for Vision", "arXiv 2111.11418")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"expansion": (2, 3, 4), "activation": ("relu", "hardswish", "gelu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, name="expand"), self.activation)
        return builder.conv(x, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return Perceptron(channels, self.expansion * channels, self.activation, self.norm)
