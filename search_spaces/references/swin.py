"""Swin Transformer: windows, shifted in every second block, in four stages."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.windows import Partition, Tiling, WindowAttention, displacements

WINDOW = 7
# name: (depths of stages, width and heads of the first; both double at each stage)
CONFIGURATIONS = {
    "swin_tiny_patch4_window7_224": ((2, 2, 6, 2), 96, 3),
    "swin_small_patch4_window7_224": ((2, 2, 18, 2), 96, 3),
    "swin_base_patch4_window7_224": ((2, 2, 18, 2), 128, 4),
}


class FlatPositionTable(nn.Module):
    """`PositionTable` in the published layout, ((2·height − 1)·(2·width − 1), heads). -> (1, heads, positions, positions)."""

    index: Tensor

    def __init__(self, window: Resolution, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        row, column = displacements(window)
        self.register_buffer("index", (row + window[0] - 1) * (2 * window[1] - 1) + column + window[1] - 1, persistent=False)

    def forward(self) -> Tensor:
        return self.table[self.index.flatten()].view(*self.index.shape, -1).permute(2, 0, 1).unsqueeze(0)


class AttentionBlock(nn.Module):
    """Attention in the groups of a partition and perceptron, each after a layer norm, with residuals. (n, h, w, c) -> (n, h, w, c).

    Args:
        channels: c.
        heads: Divides `channels`.
        partition: How the map is cut.
        positions: What the logits get added (see `WindowAttention`).
        eps: Of the norms.
        heads_first: An order of weights, as `positions_first` (see `WindowAttention`).
        positions_first: See there.
        tanh: Whether GELU is computed by its approximation with tanh.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        partition: Partition,
        positions: nn.Module,
        *,
        eps: float = 1e-5,
        heads_first: bool = False,
        positions_first: bool = True,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attention = WindowAttention(channels, heads, partition, positions, heads_first=heads_first, positions_first=positions_first)
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        if tanh:
            self.mlp.act = nn.GELU("tanh")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def stacked_cells(x: Tensor) -> Tensor:
    """Stack 2 × 2 positions, columns before rows as in the original. (n, h, w, c) -> (n, h / 2, w / 2, 4c)."""
    n, h, w, c = x.shape
    return x.reshape(n * h // 2, 2, w // 2, 2, c).permute(0, 2, 3, 1, 4).reshape(n, h // 2, w // 2, 4 * c)


class PatchMerging(nn.Module):
    """Stack 2 × 2 positions, normalise, project to twice the channels. (n, h, w, c) -> (n, h / 2, w / 2, 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(stacked_cells(x)))


class SwinNet(nn.Module):
    """Patches of 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], width: int, heads: int, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.patch_norm = nn.LayerNorm(width)
        stages: list[nn.Module] = []
        size = (resolution[0] // 4, resolution[1] // 4)
        for stage, depth in enumerate(depths):
            if stage:
                stages.append(PatchMerging(width))
                width, heads, size = 2 * width, 2 * heads, (size[0] // 2, size[1] // 2)
            for i in range(depth):
                tiling = Tiling.of(size, (WINDOW, WINDOW), shift=i % 2 == 1)
                stages.append(AttentionBlock(width, heads, tiling, FlatPositionTable(tiling.window, heads)))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_norm(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stages(x)).mean((1, 2)))


@references.register("swin")
class Swin(ReferenceSystem):
    """Swin T, S and B with windows of 7."""

    source: ClassVar[Source] = Source("Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", "arXiv 2103.14030")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "Swin",
            "swin_tiny_patch4_window7_224",
            28_288_354,
            4_490_566_656,
            (224, 224),
            "swin_tiny_patch4_window7_224",
            None,
            81.388,
            "timm results-imagenet.csv (swin_tiny_patch4_window7_224.ms_in1k)",
        ),
        Variant(
            "Swin",
            "swin_small_patch4_window7_224",
            49_606_258,
            8_740_875_264,
            (224, 224),
            "swin_small_patch4_window7_224",
            None,
            83.228,
            "timm results-imagenet.csv (swin_small_patch4_window7_224.ms_in1k)",
        ),
        Variant(
            "Swin",
            "swin_base_patch4_window7_224",
            87_768_224,
            15_430_946_816,
            (224, 224),
            "swin_base_patch4_window7_224",
            None,
            83.604,
            "timm results-imagenet.csv (swin_base_patch4_window7_224.ms_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SwinNet(*CONFIGURATIONS[name], (224, 224), num_classes)
