"""RMT: Manhattan attention, along the axes where maps are large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers import rmt
from search_spaces.mixers.rmt import ManhattanAttention

HEAD = 1024
"""Width of the head's hidden layer."""


@dataclass(frozen=True)
class Configuration:
    """What distinguishes a variant.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        heads: Of each stage.
        spreads: Of the decay in each stage.
        expansions: Of the perceptron in each stage.
        decomposed: How many stages, from the first, attend along the axes.
        layer_scale: Whether the last two stages scale their residuals.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    spreads: tuple[int, ...] = (4, 4, 6, 6)
    expansions: tuple[int, ...] = (4, 4, 3, 3)
    decomposed: int = 3
    layer_scale: bool = False


_SMALL = ((64, 128, 256, 512), (4, 4, 8, 16))
CONFIGURATIONS = {
    "rmt_t": Configuration((2, 2, 8, 2), *_SMALL, expansions=(3, 3, 3, 3), decomposed=2),
    "rmt_s": Configuration((3, 4, 18, 4), *_SMALL),
    "rmt_b": Configuration((4, 8, 25, 8), (80, 160, 320, 512), (5, 5, 10, 16), (5, 5, 6, 6), layer_scale=True),
    "rmt_l": Configuration((4, 8, 25, 8), (112, 224, 448, 640), (7, 7, 14, 20), (6, 6, 6, 6), layer_scale=True),
}


class Perceptron(nn.Module):
    """PW → GELU → x + DW3(x) → PW. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.expand(x))
        return self.project(x + self.depthwise(x))


class Block(nn.Module):
    """Depthwise position encoding, attention and perceptron, with residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, stage: int, resolution: Resolution, configuration: Configuration) -> None:
        super().__init__()
        knobs = rmt.RMT("decomposed" if stage < configuration.decomposed else "full", spread=configuration.spreads[stage])
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.attention = ManhattanAttention(channels, configuration.heads[stage], resolution, knobs)
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.mlp = Perceptron(channels, configuration.expansions[stage] * channels)
        self.encoding = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        scaled = configuration.layer_scale and stage >= 2
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-6)) if scaled else None
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-6)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.encoding(x)
        y = self.attention(self.norm1(x))
        x = x + (y if self.scale1 is None else self.scale1 * y)
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else self.scale2 * y)


def convolution(channels: int, out: int, stride: int) -> list[nn.Module]:
    """Return a 3×3 convolution and its batch norm."""
    return [nn.Conv2d(channels, out, 3, stride, 1), nn.BatchNorm2d(out)]


class RMTNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        width = configuration.widths[0]
        layers: list[nn.Module] = [*convolution(3, width // 2, 2), nn.GELU(), *convolution(width // 2, width // 2, 1), nn.GELU()]
        layers += [*convolution(width // 2, width, 2), nn.GELU(), *convolution(width, width, 1)]
        for stage, (depth, out) in enumerate(zip(configuration.depths, configuration.widths, strict=True)):
            if stage:
                layers += convolution(width, out, 2)
                width = out
            size = (resolution[0] >> stage + 2, resolution[1] >> stage + 2)
            layers += [Block(width, stage, size, configuration) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.widen = nn.Sequential(nn.Conv2d(width, HEAD, 1), nn.BatchNorm2d(HEAD), nn.SiLU())
        self.head = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.widen(self.layers(x)).mean((2, 3)))


@references.register("rmt")
class RMT(ReferenceSystem):
    """RMT T, S, B and L."""

    source: ClassVar[Source] = rmt.RMT.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("RMT", "rmt_t", 14_334_216, 2_637_220_864, (224, 224), "", None, 82.4, "official repository's README"),
        Variant("RMT", "rmt_s", 26_967_240, 4_776_574_976, (224, 224), "", None, 84.1, "official repository's README"),
        Variant("RMT", "rmt_b", 54_154_896, 10_373_118_208, (224, 224), "", None, 85.0, "official repository's README"),
        Variant("RMT", "rmt_l", 95_464_864, 19_487_964_928, (224, 224), "", None, 85.5, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return RMTNet(CONFIGURATIONS[name], (224, 224), num_classes)
