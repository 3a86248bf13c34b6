"""AFFNet: MobileViT's plan with adaptive frequency filters in place of attention."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.convolution import ConvNorm
from search_spaces.mixers.affnet import AdaptiveFrequencyFilter

STEM, DEPTHS, SIDES, BLOCKS, HEAD_LIMIT = 16, (2, 4, 3), (32, 16, 8), 8, 960
# name: (widths of the five stages, expansion of the inverted residuals between them)
CONFIGURATIONS = {
    "affnet_et": ((32, 48, 64, 104, 144), 2),
    "affnet_t": ((32, 48, 96, 160, 192), 4),
    "affnet": ((32, 64, 128, 256, 320), 4),
}


class InvertedResidual(nn.Module):
    """PW → DW 3 → PW with batch norms, and the input where channels and size stay. (n, c, h, w) -> (n, c', h / stride, w / stride)."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        hidden = expansion * channels
        self.residual = channels == out and stride == 1
        self.layers = nn.Sequential(
            ConvNorm(channels, hidden),
            nn.SiLU(),
            ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.SiLU(),
            ConvNorm(hidden, out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class FilterBlock(nn.Module):
    """x + filter(GN(inverted residual(GN x))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, channels)
        self.filter = AdaptiveFrequencyFilter(channels, (side, side), BLOCKS, "fft")
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = InvertedResidual(channels, channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.filter(self.norm2(self.mlp(self.norm1(x))))


class FilterStage(nn.Module):
    """Filter blocks, projected and fused with their input. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, depth: int, side: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FilterBlock(channels, side) for _ in range(depth)), nn.GroupNorm(1, channels))
        self.project = ConvNorm(channels, channels)
        self.join = ConvNorm(2 * channels, channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.join(torch.cat([x, self.project(self.blocks(x))], dim=1)))


class AFFNetNet(nn.Module):
    """Stem, two stages of inverted residuals, three of filters, head. (n, 3, 256, 256) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], expansion: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, STEM, 3, stride=2), nn.SiLU(), InvertedResidual(STEM, widths[0], expansion)]
        layers += [InvertedResidual(widths[0], widths[1], expansion, 2)]
        layers += [InvertedResidual(widths[1], widths[1], expansion) for _ in range(2)]
        for i, (depth, side) in enumerate(zip(DEPTHS, SIDES, strict=True), 2):
            layers += [InvertedResidual(widths[i - 1], widths[i], expansion, 2), FilterStage(widths[i], depth, side)]
        last = min(4 * widths[-1], HEAD_LIMIT)
        self.layers = nn.Sequential(*layers, ConvNorm(widths[-1], last), nn.SiLU())
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("affnet")
class AFFNet(ReferenceSystem):
    """AFFNet-ET, T and base; published figures are rounded, and their MACs include an estimate of the FFT."""

    source: ClassVar[Source] = Source("Adaptive Frequency Filters As Efficient Global Token Mixers", "arXiv 2307.14008")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "AFFNet",
            "affnet_et",
            1_428_240,
            356_236_800,
            (256, 256),
            "",
            1_436_264,
            73.0,
            "repo README (microsoft/TokenMixers); MACs include an FFT estimate",
            ("1.4", "0.4"),
        ),
        Variant(
            "AFFNet",
            "affnet_t",
            2_641_304,
            786_462_720,
            (256, 256),
            "",
            2_654_232,
            77.0,
            "repo README (microsoft/TokenMixers); MACs include an FFT estimate",
            ("2.6", "0.8"),
        ),
        Variant(
            "AFFNet",
            "affnet",
            5_549_192,
            1_453_721_088,
            (256, 256),
            "",
            5_568_696,
            79.8,
            "repo README (microsoft/TokenMixers); MACs include an FFT estimate",
            ("5.5", "1.5"),
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return AFFNetNet(*CONFIGURATIONS[name], num_classes)
