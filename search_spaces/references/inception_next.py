"""InceptionNeXt: ConvNeXt's plan with the large kernel taken apart."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.mixers.inception_next import InceptionDepthwise

EXPANSIONS = (4, 4, 4, 3)
# name: (depths, widths, length of the bands, divisor of the channels)
CONFIGURATIONS = {
    "inception_next_atto": ((2, 2, 6, 2), (40, 80, 160, 320), 9, 4),
    "inception_next_tiny": ((3, 3, 9, 3), (96, 192, 384, 768), 11, 8),
    "inception_next_small": ((3, 3, 27, 3), (96, 192, 384, 768), 11, 8),
    "inception_next_base": ((3, 3, 27, 3), (128, 256, 512, 1024), 11, 8),
}


class Block(nn.Module):
    """x + γ·MLP(BN(mixer(x))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, expansion: int, band: int, divisor: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.mixer = InceptionDepthwise(channels, channels // divisor, 3, band)
        self.norm = nn.BatchNorm2d(channels)
        self.mlp = Perceptron(channels, expansion * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(self.mixer(x))) * self.gamma.view(-1, 1, 1)


class Stage(nn.Module):
    """Batch norm and strided convolution, then blocks. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, width: int, depth: int, expansion: int, band: int, divisor: int, *, first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(channels), nn.Conv2d(channels, width, 2, 2))
        self.blocks = nn.Sequential(*(Block(width, expansion, band, divisor) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class InceptionNeXtNet(nn.Module):
    """Stem of stride 4, four stages, head with one hidden layer. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], band: int, divisor: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), nn.BatchNorm2d(widths[0]))
        self.stages = nn.Sequential(
            *(Stage(widths[max(0, i - 1)], widths[i], depths[i], EXPANSIONS[i], band, divisor, first=i == 0) for i in range(4))
        )
        last = widths[-1]
        self.head = nn.Sequential(nn.Linear(last, 3 * last), nn.GELU(), nn.LayerNorm(3 * last, eps=1e-6), nn.Linear(3 * last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


@references.register("inception-next")
class InceptionNeXt(ReferenceSystem):
    """InceptionNeXt atto to base."""

    source: ClassVar[Source] = Source("InceptionNeXt: When Inception Meets ConvNeXt", "arXiv 2303.16900")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "InceptionNeXt",
            "inception_next_atto",
            4_156_520,
            503_035_040,
            (224, 224),
            "inception_next_atto",
            None,
            75.348,
            "timm results-imagenet.csv (inception_next_atto.sail_in1k @224)",
        ),
        Variant(
            "InceptionNeXt",
            "inception_next_tiny",
            28_055_680,
            4_188_634_272,
            (224, 224),
            "inception_next_tiny",
            None,
            82.508,
            "timm results-imagenet.csv (inception_next_tiny.sail_in1k @224)",
        ),
        Variant(
            "InceptionNeXt",
            "inception_next_small",
            49_374_016,
            8_355_682_080,
            (224, 224),
            "inception_next_small",
            None,
            83.584,
            "timm results-imagenet.csv (inception_next_small.sail_in1k @224)",
        ),
        Variant(
            "InceptionNeXt",
            "inception_next_base",
            86_672_136,
            14_841_072_000,
            (224, 224),
            "inception_next_base",
            None,
            84.098,
            "timm results-imagenet.csv (inception_next_base.sail_in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return InceptionNeXtNet(*CONFIGURATIONS[name], num_classes)
