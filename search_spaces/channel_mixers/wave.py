"""SpaRTAN's channel mixer: amplitude and phase, a rotation of channel pairs, a grouped convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import lower_activation
from search_spaces.layers.channel_attention import SqueezeExcite, lower_squeeze_excite
from search_spaces.layers.convolution import ConvNorm

Peak = Literal["argmax", "max", "none"]
Groups = Literal["depthwise", "grouped"]
EPSILON = 1e-6


class WaveMixer(nn.Module):
    """PW(SE(gelu(BN(grouped conv(rotation(t + peak)))))), t = PW(x) ⊙ gelu(PW(x)). (n, c, h, w) -> (n, c, h, w).

    The peak term is, at each position, t at the channel where x is largest (``argmax``), the largest t (``max``), or none.
    The complex product of channel pairs is written in its real and imaginary parts.
    """

    def __init__(self, channels: int, hidden: int, groups: int, peak: Peak) -> None:
        super().__init__()
        self.peak = peak
        self.phase = nn.Conv2d(channels, hidden, 1)
        self.amplitude = nn.Conv2d(channels, hidden, 1)
        self.rotation = nn.Parameter(torch.randn(hidden // 2, 2))
        self.conv = ConvNorm(hidden, hidden, 3, groups=groups, eps=EPSILON)
        self.attention = SqueezeExcite(hidden, channels // 4)
        self.project = nn.Conv2d(hidden, channels, 1)

    def rotate(self, x: Tensor) -> Tensor:
        """Multiply channel pairs, as complex numbers, with `rotation`."""
        n, channels, h, w = x.shape
        real, imaginary = torch.chunk(x.reshape(n, channels // 2, 2, h * w), 2, dim=2)
        c, d = torch.chunk(self.rotation.unsqueeze(2), 2, dim=1)  # (channels / 2, 1, 1) each
        return torch.cat([real * c - imaginary * d, imaginary * c + real * d], dim=2).reshape(n, channels, h, w)

    def forward(self, x: Tensor) -> Tensor:
        phase, amplitude = F.gelu(self.phase(x)), self.amplitude(x)
        feature = amplitude * phase
        if self.peak == "argmax":
            index = x.argmax(dim=1, keepdim=True)
            feature = feature + amplitude.gather(1, index) * phase.gather(1, index)
        elif self.peak == "max":
            feature = feature + feature.amax(1, keepdim=True)
        return self.project(self.attention(F.gelu(self.conv(self.rotate(feature)))))


@channel_mixers.register("wave")
@dataclass(frozen=True)
class Wave(OperatorFamily):
    """Amplitude-phase channel mixer.

    Attributes:
        expansion: Hidden channels by channels, even.
        peak: ``argmax`` as published, which needs ArgMax and GatherElements; ``max`` takes the largest product instead and
            ``none`` drops the term: both are other functions, to be trained as such.
        groups: Of the 3×3 convolution: ``depthwise``, or ``grouped`` with as many groups as channels.
    """

    expansion: int = 4
    peak: Peak = "argmax"
    groups: Groups = "depthwise"

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "SpaRTAN: Spatial Reinforcement Token-based Aggregation Network", "arXiv 2507.10999", "the complex product in real arithmetic"
    )

    @property
    def grade(self) -> Grade:
        return "red" if self.peak == "argmax" else "amber"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"expansion": (2, 4), "peak": ("argmax", "max", "none"), "groups": ("depthwise", "grouped")}

    def _groups(self, channels: int) -> int:
        if channels < 4:
            raise UsageError(f"wave: too few channels, got {channels}. Expected at least 4.")
        return self.expansion * channels if self.groups == "depthwise" else channels

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, channels, h, w = builder.shape(x)
        groups, hidden = self._groups(channels), self.expansion * channels
        phase = lower_activation(builder, builder.conv(x, hidden, name="phase"), "gelu")
        amplitude = builder.conv(x, hidden, name="amplitude")
        feature = builder.binary("Mul", amplitude, phase)
        if self.peak == "argmax":
            index = builder.add_operator("ArgMax", [x], {"axis": 1}, shape=(n, 1, h, w), dtype="int64")
            picked = [builder.add_operator("GatherElements", [part, index], {"axis": 1}, shape=(n, 1, h, w)) for part in (amplitude, phase)]
            feature = builder.binary("Add", feature, builder.binary("Mul", *picked))
        elif self.peak == "max":
            feature = builder.binary("Add", feature, builder.reduce("ReduceMax", feature, (1,)))
        x = self._lower_rotation(builder, feature)
        x = lower_activation(builder, builder.conv(x, hidden, 3, groups=groups, name="conv"), "gelu")
        return builder.conv(lower_squeeze_excite(builder, x, channels // 4), channels, name="project")

    def _lower_rotation(self, builder: GraphBuilder, x: str) -> str:
        n, channels, h, w = builder.shape(x)
        pairs, turn = builder.reshape(x, (n, channels // 2, 2, h * w)), (channels // 2, 1, 1)
        with builder.scope("rotation"):
            a, b = builder.split(pairs, (1, 1), axis=2)
            ac, bd = builder.scale(a, turn), builder.scale(b, turn)
            bc, ad = builder.scale(b, turn, parameter=False), builder.scale(a, turn, parameter=False)  # the same two, read again
            parts = [builder.binary("Sub", ac, bd), builder.binary("Add", bc, ad)]
            return builder.reshape(builder.concat(parts, axis=2), (n, channels, h, w))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return WaveMixer(channels, self.expansion * channels, self._groups(channels), self.peak)
