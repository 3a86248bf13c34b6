"""Cosine transforms along each axis, whose bands are weighed by what the picture shows (Dynamic Spectrum Mixer)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution


@mixers.register("dsm")
@dataclass(frozen=True)
class DynamicSpectrum(OperatorFamily):
    """PW(Σ over both axes of Dᵀ·(g ⊙ D·x)) with the orthonormal DCT-II D and g = σ(PW(GELU(PW(mean of D·x over the other axis)))).

    Attributes:
        reduction: Channels by hidden channels of the network that weighs the bands.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Dynamic Spectrum Mixer for Visual Recognition",
        "arXiv 2309.06721",
        "no official code is public: that a band's weights come from its mean over the other axis, by channel, is ours",
    )

    reduction: int = 4

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"reduction": (2, 4, 8)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        c = builder.shape(x)[1]

        def filtered(value: str, name: str) -> str:
            side = builder.shape(value)[3]
            matrix = [Weight((side, side), parameter=False)]
            z = builder.add_operator("Gemm", [value], {"activation": None}, weights=matrix, name=f"{name}.forth")
            mean = builder.reduce("ReduceMean", z, (2,))  # (n, c, 1, side)
            gate = builder.unary("Gelu", builder.conv(mean, max(c // self.reduction, 1), name=f"{name}.squeeze"), approximate="none")
            gate = builder.unary("Sigmoid", builder.conv(gate, c, name=f"{name}.weigh"))
            return builder.add_operator("Gemm", [builder.binary("Mul", z, gate)], {"activation": None}, weights=matrix, name=f"{name}.back")

        across = filtered(x, "across")
        down = builder.transpose(filtered(builder.transpose(x, (0, 1, 3, 2)), "down"), (0, 1, 3, 2))
        return builder.conv(builder.binary("Add", across, down), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return SpectrumMixer(channels, max(channels // self.reduction, 1), resolution)


def cosines(side: int) -> Tensor:
    """Return the orthonormal DCT-II, (side, side), a row a band, in float64.

    Source: Ahmed, Natarajan and Rao, "Discrete cosine transform", IEEE Transactions on Computers, 1974.
    """
    band, place = torch.arange(side, dtype=torch.float64).view(-1, 1), torch.arange(side, dtype=torch.float64)
    table = torch.cos(math.pi / side * (place + 0.5) * band) * (2 / side) ** 0.5
    table[0] = side**-0.5
    return table


class BandFilter(nn.Module):
    """Weighs the bands of the last axis. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        hidden: Of the network that weighs.
        side: w.
    """

    matrix: Tensor

    def __init__(self, channels: int, hidden: int, side: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.weigh = nn.Conv2d(hidden, channels, 1)
        self.register_buffer("matrix", cosines(side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix.to(x.dtype)
        z = F.linear(x, matrix)
        gate = torch.sigmoid(self.weigh(F.gelu(self.squeeze(z.mean(2, keepdim=True)))))
        return F.linear(z * gate, matrix.T)


class SpectrumMixer(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, resolution: Resolution) -> None:
        super().__init__()
        self.across = BandFilter(channels, hidden, resolution[1])
        self.down = BandFilter(channels, hidden, resolution[0])
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.across(x) + self.down(x.transpose(2, 3)).transpose(2, 3))
