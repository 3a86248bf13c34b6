"""Swin Transformer V2: norms after the branches, attention by cosines, positions from a small network."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.windows import Tiling
from search_spaces.mixers.swin_v2 import CosineAttention
from search_spaces.mixers.swin_v2 import SwinV2 as Mixer
from search_spaces.references.swin import stacked_cells

# name: (depths of stages, width and heads of the first, window)
CONFIGURATIONS = {
    "swinv2_tiny_window8_256": ((2, 2, 6, 2), 96, 3, 8),
    "swinv2_tiny_window16_256": ((2, 2, 6, 2), 96, 3, 16),
    "swinv2_small_window8_256": ((2, 2, 18, 2), 96, 3, 8),
    "swinv2_base_window8_256": ((2, 2, 18, 2), 128, 4, 8),
}


class Block(nn.Module):
    """x + norm(attention(x)), then x + norm(perceptron(x)). (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int, heads: int, tiling: Tiling) -> None:
        super().__init__()
        self.attention = CosineAttention(channels, heads, tiling)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.attention(x))
        return x + self.norm2(self.mlp(x))


class PatchMerging(nn.Module):
    """Stack 2 × 2 positions, project to twice the channels, normalise. (n, h, w, c) -> (n, h / 2, w / 2, 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(stacked_cells(x)))


class SwinV2Net(nn.Module):
    """Patches of 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], width: int, heads: int, window: int, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.patch_norm = nn.LayerNorm(width)
        stages: list[nn.Module] = []
        size = (resolution[0] // 4, resolution[1] // 4)
        for stage, depth in enumerate(depths):
            if stage:
                stages.append(PatchMerging(width))
                width, heads, size = 2 * width, 2 * heads, (size[0] // 2, size[1] // 2)
            stages += [Block(width, heads, Tiling.of(size, (window, window), shift=i % 2 == 1)) for i in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_norm(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stages(x)).mean((1, 2)))


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("Swin V2", name, params, macs, (256, 256), name, None, top1_pct, f"timm results-imagenet.csv ({name}.ms_in1k)")


@references.register("swin-v2")
class SwinV2(ReferenceSystem):
    """Swin V2 T, S and B at 256 × 256."""

    source: ClassVar[Source] = Mixer.source
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("swinv2_tiny_window8_256", 28_347_154, 5_921_028_096, 81.824),
        _variant("swinv2_tiny_window16_256", 28_347_154, 6_600_505_344, 82.83),
        _variant("swinv2_small_window8_256", 49_728_418, 11_507_841_024, 83.84),
        _variant("swinv2_base_window8_256", 87_918_816, 20_276_289_536, 84.25),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SwinV2Net(*CONFIGURATIONS[name], (256, 256), num_classes)
