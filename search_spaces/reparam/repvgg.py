"""RepVGG block: k×k, 1×1 and identity branches that deploy as one k×k convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, reparam
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import ConvBranches, ConvNorm

Groups = Literal["dense", "depthwise"]


class RepVGGBlock(nn.Module):
    """activation(BN(Conv k) + BN(Conv 1) [+ BN]). (n, c, h, w) -> (n, c', h / stride, w / stride).

    The identity branch stands where channels and size stay.
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, act: Activation = "relu") -> None:
        super().__init__()
        skip = nn.BatchNorm2d(out) if channels == out and stride == 1 else None
        convs = [ConvNorm(channels, out, k, stride=stride, groups=groups) for k in (kernel, 1)]
        self.branches = ConvBranches(convs, skip)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branches(x))


@reparam.register("repvgg")
@dataclass(frozen=True)
class RepVGG(OperatorFamily):
    """RepVGG block of one width.

    Attributes:
        kernel: Odd size.
        groups: ``dense``, or ``depthwise`` as in RepViT and LSNet.
        activation: ReLU as published.
    """

    kernel: int = 3
    groups: Groups = "dense"
    activation: Activation = "relu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("RepVGG: Making VGG-style ConvNets Great Again", "arXiv 2101.03697")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "groups": ("dense", "depthwise"), "activation": ("relu", "hardswish")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        groups = 1 if self.groups == "dense" else channels
        return lower_activation(builder, builder.conv(x, channels, self.kernel, groups=groups), self.activation)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        groups = 1 if self.groups == "dense" else channels
        return RepVGGBlock(channels, channels, self.kernel, groups=groups, act=self.activation)
