"""Scale-aware modulation (SMT): depthwise kernels of growing size, mixed across sizes, gate a projection of the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import lower_activation
from search_spaces.layers.convolution import ConvNorm


@mixers.register("scale-aware")
@dataclass(frozen=True)
class ScaleAware(OperatorFamily):
    """PW(s ⊙ PW(x)), where s mixes depthwise convolutions of sizes 3, 5, … of the parts of PW(x).

    The mixing convolution is grouped so that a group holds one channel of every size; it doubles the channels, and a last
    pointwise convolution brings them back.

    Attributes:
        sizes: How many kernels, from 3 in steps of 2; each has an equal part of the channels.
        expansion: Channels inside the mixing, by channels.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Scale-Aware Modulation Meet Transformer",
        "arXiv 2307.08579, github.com/AFeng-x/SMT",
        "the evolutionary hybrid of stage 3 is in the reference only",
    )

    sizes: int = 4
    expansion: int = 2

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"sizes": (2, 4), "expansion": (1, 2)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        width = self._width(c)
        parts = builder.split(builder.conv(x, c, name="scales"), (width,) * self.sizes)
        near = [builder.depthwise(part, 3 + 2 * i, name=f"near.{i}") for i, part in enumerate(parts)]
        y = builder.reshape(builder.concat(near), (n, self.sizes, width, h * w))
        y = builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n, c, h, w))
        y = lower_activation(builder, builder.conv(y, self.expansion * c, groups=width, name="mix"), "gelu")
        gate = builder.conv(y, c, name="gate")
        return builder.conv(builder.binary("Mul", gate, builder.conv(x, c, name="value")), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        self._width(channels)
        return ScaleAwareModulation(channels, self.sizes, self.expansion)

    def _width(self, channels: int) -> int:
        if channels % self.sizes:
            raise UsageError(f"scale-aware: needs a multiple of {self.sizes} channels, got {channels}.")
        return channels // self.sizes


class ScaleAwareModulation(nn.Module):
    """The modulation of a map. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c, a multiple of `sizes`.
        sizes: Number of kernels.
        expansion: Channels inside the mixing, by c.
    """

    def __init__(self, channels: int, sizes: int, expansion: int) -> None:
        super().__init__()
        self.sizes = sizes
        width = channels // sizes
        self.value = nn.Conv2d(channels, channels, 1)
        self.scales = nn.Conv2d(channels, channels, 1)
        self.near = nn.ModuleList(nn.Conv2d(width, width, 3 + 2 * i, padding=1 + i, groups=width) for i in range(sizes))
        self.mix = ConvNorm(channels, expansion * channels, groups=width, bias=True)
        self.act = nn.GELU()
        self.gate = nn.Conv2d(expansion * channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = self.scales(x).chunk(self.sizes, dim=1)
        y = torch.cat([conv(part) for conv, part in zip(self.near, parts, strict=True)], dim=1)
        y = y.reshape(n, self.sizes, c // self.sizes, h * w).transpose(1, 2).reshape(n, c, h, w)
        gate = self.gate(self.act(self.mix(y)))
        return self.project(gate * self.value(x))
