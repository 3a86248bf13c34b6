"""SpaRTAN: multi-order spatial mixer and wave channel mixer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.wave import WaveMixer
from search_spaces.layers.convolution import ConvNorm
from search_spaces.mixers.spartan import MultiOrderMixer

EPSILON = 1e-6
# name: (widths, depths, expansions of the channel mixer)
CONFIGURATIONS = {"spartan_t": ((32, 64, 128, 256), (3, 3, 12, 2), (4, 4, 2, 2))}


class Block(nn.Module):
    """x + γ₁·spatial(GN x), then x + γ₂·channel(GN x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, expansion: int, *, dense: bool) -> None:
        super().__init__()
        half, hidden = channels // 2, expansion * channels
        self.gamma1 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-5))
        self.gamma2 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-5))
        self.spatial = MultiOrderMixer(channels, 3, 2, 1 if dense else half)
        self.channel = WaveMixer(channels, hidden, hidden if dense else channels, "argmax")
        self.norm1 = nn.GroupNorm(1, channels, eps=EPSILON)
        self.norm2 = nn.GroupNorm(1, channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1 * self.spatial(self.norm1(x))
        return x + self.gamma2 * self.channel(self.norm2(x))


class SpaRTANNet(nn.Module):
    """Stem of two strided convolutions, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], expansions: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        first = widths[0]
        layers: list[nn.Module] = [
            ConvNorm(3, first // 2, 3, stride=2, eps=EPSILON),
            nn.GELU(),
            ConvNorm(first // 2, first, 3, stride=2, eps=EPSILON),
            nn.GELU(),
        ]
        for i, (channels, depth, expansion) in enumerate(zip(widths, depths, expansions, strict=True)):
            if i:
                layers += [ConvNorm(widths[i - 1], channels, 2, stride=2, padding=0, eps=EPSILON), nn.SiLU()]
            layers += [Block(channels, expansion, dense=i < 2) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("spartan")
class SpaRTAN(ReferenceSystem):
    """SpaRTAN-T."""

    source: ClassVar[Source] = Source("SpaRTAN: Spatial Reinforcement Token-based Aggregation Network", "arXiv 2507.10999")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("SpaRTAN", "spartan_t", 3_820_296, 799_589_888, (224, 224), "", None, 77.7, "seed abstract, which says ~1.0 GFLOPs"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SpaRTANNet(*CONFIGURATIONS[name], num_classes)
