"""AttNet: attentive convolutions, each before a gated perceptron whose gate sees its neighbours."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.atconv import ATConv, AttentiveConvolution

KERNEL = 3
EXPANSIONS = (8, 8, 4, 4)
EPSILON = 1e-6
# name: depths, widths, whether residuals are scaled, whether the gated product is normalised
CONFIGURATIONS = {
    "attnet_xxs": ((2, 2, 4, 2), (32, 64, 128, 240), False, False),
    "attnet_xs": ((2, 2, 7, 2), (40, 80, 160, 320), True, False),
    "attnet_s": ((2, 3, 10, 3), (40, 80, 160, 320), False, False),
    "attnet_t1": ((2, 3, 12, 3), (48, 96, 224, 384), True, True),
    "attnet_t2": ((3, 3, 16, 3), (64, 128, 288, 512), True, True),
    "attnet_t3": ((4, 4, 26, 4), (72, 144, 320, 576), True, True),
    "attnet_t4": ((5, 5, 28, 5), (96, 192, 384, 768), True, True),
}


class RootMeanSquare(nn.Module):
    """x / √(mean(x²) + ε) ⊙ γ over the channels of each position. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        root = ((x * x).mean(1, keepdim=True) + EPSILON).sqrt()
        return x / root * self.weight.view(-1, 1, 1)


class GatedPerceptron(nn.Module):
    """[a, b] = PW(x); PW(norm(GELU(DW3 a) ⊙ b)). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, *, normalised: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = RootMeanSquare(hidden) if normalised else nn.Identity()
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=1)
        return self.project(self.norm(F.gelu(self.depthwise(gate)) * value))


class LayerScale(nn.Module):
    """x ⊙ γ of each channel. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(-1, 1, 1)


class Block(nn.Module):
    """x + γ ⊙ mixer(norm x), twice. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, expansion: int, *, scaled: bool, normalised: bool) -> None:
        super().__init__()
        self.mixer = AttentiveConvolution(channels, KERNEL)
        self.perceptron = GatedPerceptron(channels, 2 * expansion * channels // 3, normalised=normalised)
        self.scale1, self.scale2 = (LayerScale(channels) if scaled else nn.Identity() for _ in range(2))
        self.norm1, self.norm2 = (LayerNorm2d(channels, eps=EPSILON) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.mixer(self.norm1(x)))
        return x + self.scale2(self.perceptron(self.norm2(x)))


class AttNetNet(nn.Module):
    """Four stages, each after a strided convolution. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], scaled: bool, normalised: bool, num_classes: int) -> None:
        super().__init__()
        stem = nn.Sequential(ConvNorm(3, widths[0] // 2, 3, stride=2), nn.GELU(), ConvNorm(widths[0] // 2, widths[0], 3, stride=2))
        self.downsampling = nn.ModuleList([stem, *(ConvNorm(a, b, 3, stride=2) for a, b in pairwise(widths))])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, expansion, scaled=scaled, normalised=normalised) for _ in range(depth)))
            for depth, width, expansion in zip(depths, widths, EXPANSIONS, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for downsampling, stage in zip(self.downsampling, self.stages, strict=True):
            x = stage(downsampling(x))
        return self.head(self.norm(x.mean((2, 3))))


@references.register("attnet")
class AttNet(ReferenceSystem):
    """AttNet XXS to T4."""

    source: ClassVar[Source] = ATConv.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("ATConv/AttNet", "attnet_xxs", 2_853_556, 530_700_144, (224, 224)),
        Variant("ATConv/AttNet", "attnet_xs", 5_554_902, 1_004_372_930, (224, 224)),
        Variant("ATConv/AttNet", "attnet_s", 7_681_316, 1_327_412_471, (224, 224)),
        Variant("ATConv/AttNet", "attnet_t1", 13_714_900, 2_421_491_568, (224, 224)),
        Variant("ATConv/AttNet", "attnet_t2", 27_010_782, 5_089_462_055, (224, 224), "", None, 84.4, "its paper's abstract"),
        Variant("ATConv/AttNet", "attnet_t3", 49_175_682, 9_382_208_040, (224, 224)),
        Variant("ATConv/AttNet", "attnet_t4", 87_320_214, 16_725_463_968, (224, 224)),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return AttNetNet(*CONFIGURATIONS[name], num_classes)
