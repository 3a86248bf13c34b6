"""The ConvNeXt operator: depthwise convolution, norm, and a perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.norm import LayerNorm2d, lower_norm


class ConvNeXtOperator(nn.Module):
    """PW(activation(PW(norm(DW(x))))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, kernel: int, act: Activation, norm: Literal["layer", "batch"]) -> None:
        super().__init__()
        self.depthwise: nn.Module
        if norm == "batch":
            self.depthwise = ConvNorm(channels, channels, kernel, groups=channels)
        else:
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
            self.depthwise = nn.Sequential(conv, LayerNorm2d(channels, eps=1e-6))
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.act = activation(act)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(self.depthwise(x))))


@mixers.register("convnext")
@dataclass(frozen=True)
class ConvNeXt(OperatorFamily):
    """DW k → norm → PW(e·C) → activation → PW(C); mixes tokens and channels.

    Attributes:
        kernel: Odd size of the depthwise convolution.
        expansion: Hidden channels by channels.
        activation: GELU as published.
        norm: ``layer`` as published; ``batch`` folds.
    """

    kernel: int = 7
    expansion: int = 4
    activation: Activation = "gelu"
    norm: Literal["layer", "batch"] = "layer"

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source("A ConvNet for the 2020s", "arXiv 2201.03545")

    @property
    def grade(self) -> Grade:
        return "green" if self.norm == "batch" else "amber"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {
            "kernel": (3, 5, 7, 9, 11),
            "expansion": (2, 3, 4),
            "activation": ("relu", "hardswish", "gelu"),
            "norm": ("batch", "layer"),
        }

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = builder.depthwise(x, self.kernel, name="depthwise")
        if self.norm == "layer":
            x = lower_norm(builder, x, "layer")
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, name="expand"), self.activation)
        return builder.conv(x, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ConvNeXtOperator(channels, self.expansion * channels, self.kernel, self.activation, self.norm)
