"""FFN-ified attention: static large-kernel keys and values around an activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation
from search_spaces.layers.convolution import ConvBranches, ConvNorm


def rep_depthwise(channels: int, out: int, stride: int = 1) -> ConvBranches:
    """Return BN(DW 7) + BN(DW 3) from `channels` to a multiple `out` of them."""
    return ConvBranches([ConvNorm(channels, out, kernel, stride=stride, groups=channels) for kernel in (7, 3)])


class ConvAttention(nn.Module):
    """DW(activation(DW(BN(PW(x))))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, key: int, value: int, act: Activation) -> None:
        super().__init__()

        def interaction(kernel: int) -> nn.Module:
            if kernel == 7:
                return rep_depthwise(channels, channels)
            return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

        self.query = ConvNorm(channels, channels)
        self.key = interaction(key)
        self.act = activation(act)
        self.value = interaction(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.act(self.key(self.query(x))))


@mixers.register("metamixer")
@dataclass(frozen=True)
class MetaMixer(OperatorFamily):
    """FFNet's token mixer: query BN(PW), keys DW, activation in place of softmax, values DW.

    Attributes:
        key: Odd kernel of the keys; 7 trains with a 3×3 branch that folds.
        value: Odd kernel of the values, likewise.
        activation: GELU as published.
    """

    key: int = 7
    value: int = 7
    activation: Activation = "gelu"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("MetaMixer: A Generalizable Token Mixer", "arXiv 2406.02021")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"key": (3, 5, 7), "value": (3, 5, 7), "activation": ("relu", "hardswish", "gelu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        x = builder.conv(x, builder.shape(x)[1], name="query")
        x = lower_activation(builder, builder.depthwise(x, self.key, name="key"), self.activation)
        return builder.depthwise(x, self.value, name="value")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ConvAttention(channels, self.key, self.value, self.activation)
