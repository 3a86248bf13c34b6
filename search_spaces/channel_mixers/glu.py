"""Gated linear unit, and its convolutional form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import StackedConv


class GatedPerceptron(nn.Module):
    """[a, b] = PW(x); PW(activation(DW a) ⊙ b). (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: In and out.
        hidden: Channels of each half.
        act: On the gate.
        kernel: Odd size of the gate's depthwise convolution; 1 has none.
    """

    def __init__(self, channels: int, hidden: int, act: Activation, kernel: int = 1) -> None:
        super().__init__()
        self.expand = StackedConv(channels, hidden, parts=2)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden) if kernel > 1 else nn.Identity()
        self.act = activation(act)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = torch.chunk(self.expand(x), 2, dim=1)
        return self.project(self.act(self.depthwise(gate)) * value)


def gated_hidden(channels: int, expansion: int) -> int:
    """Return the width of each half that costs as much as a perceptron with `expansion`: two thirds of e·C."""
    return 2 * expansion * channels // 3


@channel_mixers.register("glu")
@dataclass(frozen=True)
class GLU(OperatorFamily):
    """PW(activation(a) ⊙ b) with [a, b] = PW(x), each of two thirds of e·C channels.

    Attributes:
        expansion: Of the perceptron that costs as much.
        activation: Of the gate.
    """

    expansion: int = 4
    activation: Activation = "gelu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("GLU Variants Improve Transformer", "arXiv 2002.05202")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"expansion": (2, 3, 4), "activation": ("relu", "hardswish", "gelu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        return lower_gated(builder, x, self.expansion, self.activation)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GatedPerceptron(channels, gated_hidden(channels, self.expansion), self.activation)


def lower_gated(builder: GraphBuilder, x: str, expansion: int, act: Activation, kernel: int = 1) -> str:
    """Write `GatedPerceptron` and return its output."""
    channels = builder.shape(x)[1]
    hidden = gated_hidden(channels, expansion)
    gate, value = builder.split(builder.conv(x, 2 * hidden, name="expand"), (hidden, hidden))
    if kernel > 1:
        gate = builder.depthwise(gate, kernel, name="depthwise")
    return builder.conv(builder.binary("Mul", lower_activation(builder, gate, act), value), channels, name="project")
