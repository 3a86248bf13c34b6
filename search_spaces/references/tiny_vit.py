"""TinyViT: inverted residuals first, then attention in windows with a depthwise convolution before the perceptron."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.convolution import ConvMerging, ConvNorm
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.windows import Tiling, attend_in_groups, displacements

DEPTHS = (2, 2, 6, 2)
WINDOWS = (7, 7, 14, 7)
# name: (widths, width of a head)
CONFIGURATIONS = {
    "tiny_vit_5m_224": ((64, 128, 160, 320), 32),
    "tiny_vit_11m_224": ((64, 128, 256, 448), 32),
    "tiny_vit_21m_224": ((96, 192, 384, 576), 32),
}


class InvertedResidual(nn.Module):
    """GELU(x + PW(GELU(DW3(GELU(PW(x)))))), a batch norm after each. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, 4 * channels)
        self.depthwise = ConvNorm(4 * channels, 4 * channels, 3, groups=4 * channels)
        self.project = ConvNorm(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.project(F.gelu(self.depthwise(F.gelu(self.expand(x))))))


class BiasedAttention(nn.Module):
    """Layer norm and attention in windows, with a bias for each absolute displacement. (n, h, w, c) -> (n, h, w, c)."""

    index: Tensor

    def __init__(self, channels: int, heads: int, tiling: Tiling) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.table = nn.Parameter(torch.zeros(heads, tiling.window[0] * tiling.window[1]))
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        row, column = displacements(tiling.window)
        self.register_buffer("index", row.abs() * tiling.window[1] + column.abs(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.table[:, self.index.flatten()].view(1, -1, *self.index.shape)
        return attend_in_groups(self.norm(x), self.qkv, self.project, self.heads, self.tiling, bias, heads_first=True)


class Block(nn.Module):
    """Attention, DW3 with batch norm, perceptron; the first and last with a residual. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int, heads: int, tiling: Tiling) -> None:
        super().__init__()
        self.attention = BiasedAttention(channels, heads, tiling)
        self.norm = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        self.near = ConvNorm(channels, channels, 3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = self.near(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm(x))


class Stage(nn.Module):
    """Patch merging, then blocks. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, out: int, head_dim: int, depth: int, tiling: Tiling) -> None:
        super().__init__()
        self.merging = ConvMerging(channels, out)
        self.blocks = nn.Sequential(*(Block(out, out // head_dim, tiling) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.merging(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViTNet(nn.Module):
    """Two convolutions, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], head_dim: int, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(ConvNorm(3, first // 2, 3, stride=2), nn.GELU(), ConvNorm(first // 2, first, 3, stride=2))
        stages: list[nn.Module] = [InvertedResidual(first) for _ in range(DEPTHS[0])]
        for i in (1, 2, 3):
            tiling = Tiling.of((resolution[0] >> i + 2, resolution[1] >> i + 2), (WINDOWS[i], WINDOWS[i]))
            stages.append(Stage(widths[i - 1], widths[i], head_dim, DEPTHS[i], tiling))
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x)).mean((2, 3), keepdim=True)
        return self.head(self.norm(x).flatten(1))


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("TinyViT", name, params, macs, (224, 224), name, None, top1_pct, f"timm results-imagenet.csv ({name}.in1k)")


@references.register("tiny-vit")
class TinyViT(ReferenceSystem):
    """TinyViT 5M, 11M and 21M."""

    source: ClassVar[Source] = Source("TinyViT: Fast Pretraining Distillation for Small Vision Transformers", "arXiv 2207.10666")
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("tiny_vit_5m_224", 5_392_764, 1_255_174_720, 79.196),
        _variant("tiny_vit_11m_224", 10_996_972, 2_016_046_144, 81.538),
        _variant("tiny_vit_21m_224", 21_198_568, 4_250_329_536, 83.268),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return TinyViTNet(*CONFIGURATIONS[name], (224, 224), num_classes)
