"""DaViT: attention between positions of a window, then between channels of a group, in turn."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import TokenAttention
from search_spaces.layers.windows import Tiling
from search_spaces.mixers.channel_attention import ChannelAttention

HEAD_DIM = 32
WINDOW = 7
# name: (depths, width of the first stage)
CONFIGURATIONS = {
    "davit_tiny": ((1, 1, 3, 1), 96),
    "davit_small": ((1, 1, 9, 1), 96),
    "davit_base": ((1, 1, 9, 1), 128),
}


class WindowMixer(nn.Module):
    """Attention in windows of 7 × 7. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = TokenAttention(channels, channels // HEAD_DIM)

    def forward(self, x: Tensor) -> Tensor:
        tiling = Tiling.of((x.shape[1], x.shape[2]), (WINDOW, WINDOW))
        y: Tensor = self.attention(tiling.cut(x))
        return tiling.mend(y)


class ChannelMixer(nn.Module):
    """Attention between the channels of each group of 32. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = channels // HEAD_DIM
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        parts = self.qkv(x).chunk(3, dim=3)
        q, k, v = (part.reshape(n, h * w, self.groups, HEAD_DIM).permute(0, 2, 3, 1) for part in parts)
        y = F.scaled_dot_product_attention(k, v, q, scale=HEAD_DIM**-0.5)
        return self.project(y.permute(0, 3, 1, 2).reshape(n, h, w, c))


class Block(nn.Module):
    """Positions by DW3, mixer, positions by DW3, perceptron, each with a residual. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__()
        self.positions1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = mixer
        self.positions2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        y = (x + self.positions1(x)).permute(0, 2, 3, 1)
        x = (y + self.mixer(self.norm1(y))).permute(0, 3, 1, 2)
        y = (x + self.positions2(x)).permute(0, 2, 3, 1)
        return (y + self.mlp(self.norm2(y))).permute(0, 3, 1, 2)


class DaViTNet(nn.Module):
    """Stem of stride 4, four stages of pairs of blocks, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 4, 3)
        self.stem_norm = LayerNorm2d(width)
        stages: list[nn.Module] = []
        for stage, depth in enumerate(depths):
            if stage:
                stages += [LayerNorm2d(width), nn.Conv2d(width, 2 * width, 2, 2)]
                width *= 2
            for _ in range(depth):
                stages += [Block(width, WindowMixer(width)), Block(width, ChannelMixer(width))]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem_norm(self.stem(x)))
        return self.head(self.norm(x.mean((2, 3))))


@references.register("davit")
class DaViT(ReferenceSystem):
    """DaViT T, S and B."""

    source: ClassVar[Source] = ChannelAttention.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "DaViT",
            "davit_tiny",
            28_360_168,
            4_521_801_216,
            (224, 224),
            "davit_tiny",
            None,
            82.69,
            "timm results-imagenet.csv (davit_tiny.msft_in1k)",
        ),
        Variant(
            "DaViT",
            "davit_small",
            49_745_896,
            8_773_012_992,
            (224, 224),
            "davit_small",
            None,
            84.25,
            "timm results-imagenet.csv (davit_small.msft_in1k)",
        ),
        Variant(
            "DaViT",
            "davit_base",
            87_954_408,
            15_473_797_120,
            (224, 224),
            "davit_base",
            None,
            84.65,
            "timm results-imagenet.csv (davit_base.msft_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return DaViTNet(*CONFIGURATIONS[name], num_classes)
