"""Convolutional gated linear unit: the gate sees its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.glu import GatedPerceptron, gated_hidden, lower_gated
from search_spaces.layers.activation import Activation


@channel_mixers.register("conv-glu")
@dataclass(frozen=True)
class ConvGLU(OperatorFamily):
    """PW(activation(DW a) ⊙ b) with [a, b] = PW(x), each of two thirds of e·C channels.

    Attributes:
        kernel: Odd size of the gate's depthwise convolution.
        expansion: Of the perceptron that costs as much.
        activation: Of the gate; GELU as published.
    """

    kernel: int = 3
    expansion: int = 4
    activation: Activation = "gelu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("TransNeXt: Robust Foveal Visual Perception for Vision Transformers", "arXiv 2311.17132")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "expansion": (2, 3, 4), "activation": ("relu", "hardswish", "gelu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        return lower_gated(builder, x, self.expansion, self.activation, self.kernel)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GatedPerceptron(channels, gated_hidden(channels, self.expansion), self.activation, self.kernel)
