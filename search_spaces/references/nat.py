"""NAT: a pyramid of neighbourhood attention after an overlapping stem."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.nat import NAT, NeighbourhoodAttention

KERNEL = 7
SIDE = 224
# name: width of the first stage, depths, heads of the first stage, perceptron's expansion, whether residuals are scaled
CONFIGURATIONS = {
    "nat_mini": (64, (3, 4, 6, 5), 2, 3, False),
    "nat_tiny": (64, (3, 4, 18, 5), 2, 3, False),
    "nat_small": (96, (3, 4, 18, 5), 3, 2, True),
    "nat_base": (128, (3, 4, 18, 5), 4, 2, True),
}


class LayerScale(nn.Module):
    """x ⊙ γ of each channel. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Perceptron(nn.Module):
    """PW → GELU → PW. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.expand(x)))


class Block(nn.Module):
    """Attention and perceptron, each after a norm, with residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int, side: int, expansion: int, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.attention = NeighbourhoodAttention(channels, heads, (side, side), KERNEL)
        self.perceptron = Perceptron(channels, expansion * channels)
        self.scale1, self.scale2 = (LayerScale(channels) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.attention(self.norm1(x)))
        return x + self.scale2(self.perceptron(self.norm2(x)))


class NATNet(nn.Module):
    """Two strided convolutions, four stages, norm, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], heads: int, expansion: int, scaled: bool, num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(3, width // 2, 3, 2, 1), nn.Conv2d(width // 2, width, 3, 2, 1), LayerNorm2d(width)]
        for stage, depth in enumerate(depths):
            channels, side = width * 2**stage, SIDE // 2 ** (stage + 2)
            if stage:
                stages += [nn.Conv2d(channels // 2, channels, 3, 2, 1, bias=False), LayerNorm2d(channels)]
            stages += [Block(channels, heads * 2**stage, side, expansion, scaled) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x)).mean((2, 3)))


@references.register("nat")
class NATs(ReferenceSystem):
    """NAT Mini, Tiny, Small and Base."""

    source: ClassVar[Source] = NAT.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("NAT", "nat_mini", 19_984_174, 2_694_812_672, (SIDE, SIDE)),
        Variant("NAT", "nat_tiny", 27_901_582, 4_295_226_368, (SIDE, SIDE)),
        Variant("NAT", "nat_small", 50_743_297, 7_772_302_848, (SIDE, SIDE)),
        Variant("NAT", "nat_base", 89_769_652, 13_677_094_912, (SIDE, SIDE)),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return NATNet(*CONFIGURATIONS[name], num_classes)
