"""Channel attention: squeeze-and-excite and efficient channel attention, as modules and as operators."""

from __future__ import annotations

from math import log2
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder

ChannelAttention = Literal["none", "se", "eca"]
Gate = Literal["sigmoid", "hardsigmoid"]


class SqueezeExcite(nn.Module):
    """x ⊙ gate(W₂·relu(W₁·mean(x))). (n, c, h, w) -> (n, c, h, w).

    Source: Hu et al., Squeeze-and-Excitation Networks, arXiv 1709.01507; the hard gate is MobileNetV3's, arXiv 1905.02244.
    """

    def __init__(self, channels: int, hidden: int, gate: Gate = "sigmoid") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid() if gate == "sigmoid" else nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


def lower_squeeze_excite(builder: GraphBuilder, x: str, hidden: int, gate: Gate = "sigmoid") -> str:
    """Write `SqueezeExcite` and return its output."""
    with builder.scope("se"):
        s = builder.conv(builder.global_pool(x), hidden, name="reduce")
        s = builder.conv(builder.unary("Relu", s), builder.shape(x)[1], name="expand")
        return builder.binary("Mul", x, builder.unary("Sigmoid" if gate == "sigmoid" else "HardSigmoid", s))


def eca_kernel(channels: int) -> int:
    """Return the odd kernel |log₂(c)/2 + 1/2| of efficient channel attention."""
    size = int(abs(log2(channels) / 2 + 0.5))
    return size if size % 2 else size + 1


class EfficientChannelAttention(nn.Module):
    """x ⊙ σ(conv1d over the channels' means). (n, c, h, w) -> (n, c, h, w).

    Source: Wang et al., ECA-Net, arXiv 1910.03151. Written as a 1×k convolution of a (n, 1, 1, c) map, since many NPUs
    have no one-dimensional convolution; parameters and MACs are those of the published form.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel(channels)
        self.conv = nn.Conv2d(1, 1, (1, size), padding=(0, size // 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        s = self.conv(x.mean((2, 3)).reshape(n, 1, 1, c))
        return x * s.reshape(n, c, 1, 1).sigmoid()


def lower_eca(builder: GraphBuilder, x: str) -> str:
    """Write `EfficientChannelAttention` and return its output."""
    n, c = builder.shape(x)[:2]
    with builder.scope("eca"):
        s = builder.reshape(builder.global_pool(x), (n, 1, 1, c))
        s = builder.conv(s, 1, (1, eca_kernel(c)), bias=False)
        return builder.binary("Mul", x, builder.unary("Sigmoid", builder.reshape(s, (n, c, 1, 1))))


def channel_attention(name: ChannelAttention, channels: int, hidden: int) -> nn.Module:
    """Return the channel attention called `name`; `hidden` is the width of squeeze-and-excite, whose gate is the hard one."""
    if name == "se":
        return SqueezeExcite(channels, hidden, "hardsigmoid")
    return EfficientChannelAttention(channels) if name == "eca" else nn.Identity()


def lower_channel_attention(builder: GraphBuilder, x: str, name: ChannelAttention, hidden: int) -> str:
    """Write the channel attention called `name` and return its output."""
    if name == "se":
        return lower_squeeze_excite(builder, x, hidden, "hardsigmoid")
    return lower_eca(builder, x) if name == "eca" else x
