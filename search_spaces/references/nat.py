"""NAT and DiNAT: a pyramid of neighbourhood attention after an overlapping stem, or in the layout of Swin."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.nat import NAT, NeighbourhoodAttention
from search_spaces.references.swin import PatchMerging

KERNEL = 7
SIDE = 224
# size: width of the first stage, depths, heads of the first stage, perceptron's expansion, whether residuals are scaled
CONFIGURATIONS = {
    "mini": (64, (3, 4, 6, 5), 2, 3, False),
    "tiny": (64, (3, 4, 18, 5), 2, 3, False),
    "small": (96, (3, 4, 18, 5), 3, 2, True),
    "base": (128, (3, 4, 18, 5), 4, 2, True),
}
# size in the layout of Swin: width and heads of the first stage, depths
LAYOUTS_OF_SWIN = {"tiny": (96, 3, (2, 2, 6, 2)), "small": (96, 3, (2, 2, 18, 2)), "base": (128, 4, (2, 2, 18, 2))}
README = "official repository's README"


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

    def __init__(self, channels: int, heads: int, side: int, expansion: int, *, scaled: bool = False, dilated: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.attention = NeighbourhoodAttention(channels, heads, (side, side), KERNEL, dilated=dilated)
        self.perceptron = Perceptron(channels, expansion * channels)
        self.scale1, self.scale2 = (LayerScale(channels) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.attention(self.norm1(x)))
        return x + self.scale2(self.perceptron(self.norm2(x)))


class NATNet(nn.Module):
    """Two strided convolutions, four stages, norm, head. (n, 3, 224, 224) -> (n, num_classes).

    With `dilated`, the neighbours of every second block are spread over the map.
    """

    def __init__(
        self, width: int, depths: tuple[int, ...], heads: int, expansion: int, scaled: bool, num_classes: int, *, dilated: bool
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(3, width // 2, 3, 2, 1), nn.Conv2d(width // 2, width, 3, 2, 1), LayerNorm2d(width)]
        for stage, depth in enumerate(depths):
            channels, side = width * 2**stage, SIDE // 2 ** (stage + 2)
            if stage:
                stages += [nn.Conv2d(channels // 2, channels, 3, 2, 1, bias=False), LayerNorm2d(channels)]
            stages += [
                Block(channels, heads * 2**stage, side, expansion, scaled=scaled, dilated=dilated and i % 2 == 1) for i in range(depth)
            ]
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x)).mean((2, 3)))


class Merging(PatchMerging):
    """The merging of Swin, channels before positions. (n, c, h, w) -> (n, 2c, h / 2, w / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SwinLayoutNet(nn.Module):
    """DiNAT_s: Swin with neighbourhoods in place of windows, spread out in place of shifted. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, width: int, heads: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(3, width, 4, 4), LayerNorm2d(width)]
        for stage, depth in enumerate(depths):
            channels, side = width * 2**stage, SIDE // 2 ** (stage + 2)
            stages += [Merging(channels // 2)] if stage else []
            stages += [Block(channels, heads * 2**stage, side, 4, dilated=i % 2 == 1) for i in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x)).mean((2, 3)))


def _variant(name: str, params: int, macs: int, top1_pct: float, *printed: str) -> Variant:
    system = "NAT" if name.startswith("nat") else "DiNAT"
    return Variant(system, name, params, macs, (SIDE, SIDE), "", None, top1_pct, README, (printed[0], printed[1]))


@references.register("nat")
class NATs(ReferenceSystem):
    """NAT and DiNAT Mini, Tiny, Small and Base, DiNAT_s Tiny, Small and Base."""

    source: ClassVar[Source] = NAT.source
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("nat_mini", 19_984_174, 2_694_812_672, 81.8, "20", "2.7"),
        _variant("nat_tiny", 27_901_582, 4_295_226_368, 83.2, "28", "4.3"),
        _variant("nat_small", 50_743_297, 7_772_302_848, 83.7, "51", "7.8"),
        _variant("nat_base", 89_769_652, 13_677_094_912, 84.3, "90", "13.7"),
        _variant("dinat_mini", 19_984_174, 2_694_812_672, 81.8, "20", "2.7"),
        _variant("dinat_tiny", 27_901_582, 4_295_226_368, 82.7, "28", "4.3"),
        _variant("dinat_small", 50_743_297, 7_772_302_848, 83.8, "51", "7.8"),
        _variant("dinat_base", 89_769_652, 13_677_094_912, 84.4, "90", "13.7"),
        _variant("dinat_s_tiny", 28_288_354, 4_490_566_656, 81.8, "28", "4.5"),
        _variant("dinat_s_small", 49_606_258, 8_740_875_264, 83.5, "50", "8.7"),
        _variant("dinat_s_base", 87_768_224, 15_430_946_816, 83.8, "88", "15.4"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        system, _, size = name.rpartition("_")
        if system == "dinat_s":
            return SwinLayoutNet(*LAYOUTS_OF_SWIN[size], num_classes)
        return NATNet(*CONFIGURATIONS[size], num_classes, dilated=system == "dinat")
