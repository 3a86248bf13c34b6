"""The perceptron with a depthwise convolution, before it or between its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import depthwise_branches

Place = Literal["before", "between"]


class DepthwisePerceptron(nn.Module):
    """PW → DW → activation → PW (`place` between) or DW → PW → activation → PW (before). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, kernel: int, act: Activation, place: Place) -> None:
        super().__init__()
        self.place = place
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise: nn.Module
        if place == "between":
            self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        else:
            self.depthwise = depthwise_branches(channels, kernel, "plain")
        self.act = activation(act)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x)) if self.place == "between" else self.expand(self.depthwise(x))
        return self.project(self.act(x))


@channel_mixers.register("depthwise-mlp")
@dataclass(frozen=True)
class DepthwiseMLP(OperatorFamily):
    """An MLP that also sees its neighbours.

    Attributes:
        kernel: Odd size of the depthwise convolution.
        expansion: Hidden channels by channels.
        activation: GELU as published.
        place: ``between`` the layers as in PVTv2 (e·C channels, bias, no norm), or ``before`` them as in FFNet (C channels, batch norm).
    """

    kernel: int = 3
    expansion: int = 4
    activation: Activation = "gelu"
    place: Place = "between"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "PVT v2: Improved Baselines with Pyramid Vision Transformer", "arXiv 2106.13797; FFNet, arXiv 2406.02021"
    )
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"kernel": (3,)}

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {
            "kernel": (3, 5, 7),
            "expansion": (2, 3, 4),
            "activation": ("relu", "hardswish", "gelu"),
            "place": ("before", "between"),
        }

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        if self.place == "before":
            x = builder.depthwise(x, self.kernel, name="depthwise")
        x = builder.conv(x, self.expansion * channels, name="expand")
        if self.place == "between":
            x = builder.depthwise(x, self.kernel, name="depthwise")
        return builder.conv(lower_activation(builder, x, self.activation), channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return DepthwisePerceptron(channels, self.expansion * channels, self.kernel, self.activation, self.place)
