"""BiFormer: routed attention in three stages, full attention in the last."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.layers.attention import attend
from search_spaces.layers.convolution import StackedConv
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.biformer import BiFormer as Routed
from search_spaces.mixers.biformer import RoutedAttention

TOPK = (1, 4, 16)
HEAD_DIM = 32
FULL_HEADS = 8
# name: (depths, width of the first stage)
CONFIGURATIONS = {"biformer_t": ((2, 2, 8, 2), 64), "biformer_s": ((4, 4, 18, 4), 64), "biformer_b": ((4, 4, 18, 4), 96)}


class FullAttention(nn.Module):
    """Self-attention with a depthwise 5×5 of its input added before the output projection. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = StackedConv(channels, channels, parts=3, bias=False)
        self.project = nn.Conv2d(channels, channels, 1)
        self.encoding = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=1)
        return self.project(attend(q, k, v, FULL_HEADS) + self.encoding(x))


class Block(nn.Module):
    """Depthwise position encoding, attention and perceptron, with residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, stage: int, resolution: Resolution) -> None:
        super().__init__()
        self.encoding = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.attention: nn.Module = FullAttention(channels)
        if stage < len(TOPK):
            knobs = Routed(TOPK[stage])
            self.attention = RoutedAttention(channels, channels // HEAD_DIM, knobs.tiling(resolution), knobs)
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.mlp = Perceptron(channels, 3 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.encoding(x)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def strided(channels: int, out: int) -> list[nn.Module]:
    """Return a 3×3 convolution with stride 2 and its batch norm."""
    return [nn.Conv2d(channels, out, 3, 2, 1), nn.BatchNorm2d(out)]


class BiFormerNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], width: int, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*strided(3, width // 2), nn.GELU(), *strided(width // 2, width)]
        for stage, depth in enumerate(depths):
            if stage:
                layers += strided(width, 2 * width)
                width *= 2
            size = (resolution[0] >> stage + 2, resolution[1] >> stage + 2)
            layers += [Block(width, stage, size) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(x)).mean((2, 3)))


@references.register("biformer")
class BiFormer(ReferenceSystem):
    """BiFormer T, S and B."""

    source: ClassVar[Source] = Routed.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("BiFormer", "biformer_t", 13_142_760, 2_215_901_568, (224, 224), "", None, 81.4, "official repository's README"),
        Variant("BiFormer", "biformer_s", 25_536_232, 4_463_629_568, (224, 224), "", None, 83.8, "official repository's README"),
        Variant("BiFormer", "biformer_b", 56_804_968, 9_758_990_208, (224, 224), "", None, 84.3, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return BiFormerNet(*CONFIGURATIONS[name], (224, 224), num_classes)
