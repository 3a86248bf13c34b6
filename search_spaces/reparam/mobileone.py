"""MobileOne block: a depthwise and a pointwise convolution, each with over-parameterised branches in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, reparam
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.channel_attention import SqueezeExcite
from search_spaces.layers.convolution import ConvBranches, ConvNorm


class MobileOneConv(nn.Module):
    """activation([SE](Σ BN(Conv k) [+ BN(Conv 1)] [+ BN])). (n, c, h, w) -> (n, c', h / stride, w / stride).

    Args:
        channels: In.
        out: Out.
        kernel: Odd size; the 1×1 branch stands beside a larger kernel only.
        stride: Of the convolution.
        groups: Of the convolution.
        copies: Parallel k×k convolutions.
        act: After the sum.
        squeeze: Hidden width of a squeeze-and-excite between sum and activation; 0 has none.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        copies: int = 1,
        act: Activation = "relu",
        squeeze: int = 0,
    ) -> None:
        super().__init__()
        skip = nn.BatchNorm2d(out) if channels == out and stride == 1 else None
        kernels = [kernel] * copies + ([1] if kernel > 1 else [])
        self.branches = ConvBranches([ConvNorm(channels, out, k, stride=stride, groups=groups) for k in kernels], skip)
        self.attention = SqueezeExcite(out, squeeze) if squeeze else nn.Identity()
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.attention(self.branches(x)))


@reparam.register("mobileone")
@dataclass(frozen=True)
class MobileOne(OperatorFamily):
    """MobileOne block of one width.

    Attributes:
        kernel: Odd size of the depthwise convolution.
        copies: Parallel convolutions of each part; a matter of training alone.
        activation: ReLU as published.
    """

    kernel: int = 3
    copies: int = 1
    activation: Activation = "relu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("MobileOne: An Improved One Millisecond Mobile Backbone", "arXiv 2206.04040")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "copies": (1, 2, 4), "activation": ("relu", "hardswish")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.depthwise(x, self.kernel, name="depthwise"), self.activation)
        return lower_activation(builder, builder.conv(x, channels, name="pointwise"), self.activation)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return nn.Sequential(
            MobileOneConv(channels, channels, self.kernel, groups=channels, copies=self.copies, act=self.activation),
            MobileOneConv(channels, channels, 1, copies=self.copies, act=self.activation),
        )
