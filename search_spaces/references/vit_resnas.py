"""ViT-ResNAS: transformers whose patches become fewer twice, found by a search over heads, hidden widths and depth."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.tokens import TokenAttention, to_map, to_tokens

STEM = 24
GRID = 16
"""Patches of 14 pixels along a side of 224."""

EPSILON = 1e-6
# name: of each stage its width, the width of a head, and (heads, hidden width) of each block
CONFIGURATIONS: dict[str, tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]] = {
    "vit_resnas_reference": (
        (192, 64, ((3, 768),) * 4),
        (384, 64, ((6, 1536),) * 4),
        (768, 64, ((12, 3072),) * 4),
    ),
    "vit_resnas_tiny": (
        (176, 32, ((3, 704), (3, 576), (3, 640), (4, 576), (4, 704))),
        (352, 48, ((10, 1408), (8, 1408), (8, 1280), (8, 1408), (10, 1280), (10, 1024))),
        (704, 64, ((10, 2560), (10, 1792), (10, 2816), (8, 2816), (8, 2560))),
    ),
    "vit_resnas_small": (
        (220, 32, ((5, 880), (5, 880), (7, 800), (5, 720), (5, 720), (5, 720))),
        (440, 48, ((10, 1760), (10, 1440), (10, 1920), (10, 1600), (12, 1600), (12, 1440))),
        (880, 64, ((16, 3200), (12, 3200), (16, 2880), (12, 2240), (14, 2560))),
    ),
    "vit_resnas_medium": (
        (240, 32, ((7, 960), (6, 960), (7, 800), (8, 960), (7, 880), (8, 880), (6, 800))),
        (640, 48, ((10, 1120), (14, 1760), (14, 1920), (16, 1760), (14, 1440), (16, 1760), (16, 1920))),
        (880, 64, ((16, 3200), (10, 3840), (16, 3840), (12, 3200), (16, 3520), (14, 3520))),
    ),
}


class Stem(nn.Module):
    """Three 3×3 convolutions, the last two with a residual, then patches. (n, 3, h, w) -> (n, c, h / 14, w / 14)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(3, STEM, 3, stride=2)
        self.second, self.third = (ConvNorm(STEM, STEM, 3) for _ in range(2))
        self.project = nn.Conv2d(STEM, channels, 7, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.project(x + torch.relu(self.third(torch.relu(self.second(x)))))


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, heads: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = TokenAttention(channels, heads, head_dim=head_dim)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = TokenPerceptron(channels, hidden, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SpatialReduction(nn.Module):
    """Halve the grid of patches and widen, with a residual of means and zeros. (n, 1 + g², c) -> (n, 1 + (g / 2)², c').

    Args:
        channels: c.
        out: c', at least c.
        grid: g.
    """

    def __init__(self, channels: int, out: int, grid: int) -> None:
        super().__init__()
        self.grid, self.more = grid, out - channels
        self.positions = nn.Parameter(torch.randn(1, (grid // 2) ** 2, out) * 0.02)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.patches = nn.Conv2d(channels, out, 3, 2, 1)
        self.pool = nn.AvgPool2d(2)
        self.first = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        patches = to_tokens(self.patches(to_map(y[:, 1:], self.grid, self.grid))) + self.positions
        means = to_tokens(self.pool(to_map(x[:, 1:], self.grid, self.grid)))
        shortcut = nn.functional.pad(torch.cat([x[:, :1], means], dim=1), (0, self.more))
        return torch.cat([self.first(y[:, :1]), patches], dim=1) + shortcut


class ViTResNASNet(nn.Module):
    """Stem, class token and positions, three stages, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, stages: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...], num_classes: int) -> None:
        super().__init__()
        channels, grid = stages[0][0], GRID
        self.token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + grid**2, channels) * 0.02)
        self.stem = Stem(channels)
        parts: list[nn.Module] = []
        for width, head_dim, blocks in stages:
            if parts:
                parts.append(SpatialReduction(channels, width, grid))
                grid //= 2
            parts += [Block(width, heads, head_dim, hidden) for heads, hidden in blocks]
            channels = width
        self.blocks = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(self.stem(x))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


@references.register("vit-resnas")
class ViTResNAS(ReferenceSystem):
    """The reference network and those that the search gave: Tiny, Small and Medium."""

    source: ClassVar[Source] = Source(
        "Searching for Efficient Multi-Stage Vision Transformers",
        "arXiv 2109.00642, github.com/yilunliao/vit-search",
        "the classifier of patches, which token mix-up trains, is left out",
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("ViT-ResNAS", "vit_resnas_reference", 42_012_736, 1_794_378_240, (224, 224)),
        Variant("ViT-ResNAS", "vit_resnas_tiny", 40_793_552, 1_782_630_272, (224, 224)),
        Variant("ViT-ResNAS", "vit_resnas_small", 63_724_108, 2_845_501_856, (224, 224)),
        Variant("ViT-ResNAS", "vit_resnas_medium", 96_442_672, 4_513_135_936, (224, 224)),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ViTResNASNet(CONFIGURATIONS[name], num_classes)
