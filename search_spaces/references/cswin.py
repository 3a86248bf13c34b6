"""CSWin Transformer: stripes that widen from stage to stage, and full attention in the last."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.mixers.cswin import CrossShapedAttention
from search_spaces.mixers.cswin import CSWin as Stripes

STRIPES = (1, 2, 7, 7)
# name: (depths, width of the first stage, heads of each)
CONFIGURATIONS = {
    "cswin_t": ((1, 2, 21, 1), 64, (2, 4, 8, 16)),
    "cswin_s": ((2, 4, 32, 2), 64, (2, 4, 8, 16)),
    "cswin_b": ((2, 4, 32, 2), 96, (4, 8, 16, 32)),
}


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int, heads: int, stripe: int, resolution: Resolution) -> None:
        super().__init__()
        tilings = Stripes(stripe).tilings(resolution)
        self.norm1 = nn.LayerNorm(channels)
        self.attention = CrossShapedAttention(channels, heads // len(tilings), tilings, "stripe")
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Merge(nn.Module):
    """3×3 convolution with stride 2, then a layer norm. (n, h, w, c) -> (n, h / 2, w / 2, c')."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, 2, 1)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class CSWinNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], width: int, heads: tuple[int, ...], resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 4, 2)
        self.stem_norm = nn.LayerNorm(width)
        stages: list[nn.Module] = []
        for stage, (depth, stripe) in enumerate(zip(depths, STRIPES, strict=True)):
            if stage:
                stages.append(Merge(width, 2 * width))
                width *= 2
            size = (resolution[0] >> stage + 2, resolution[1] >> stage + 2)
            stages += [Block(width, heads[stage], stripe, size) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stages(x)).mean((1, 2)))


@references.register("cswin")
class CSWin(ReferenceSystem):
    """CSWin T, S and B."""

    source: ClassVar[Source] = Stripes.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("CSWin", "cswin_t", 22_320_552, 4_324_203_008, (224, 224), "", None, 82.8, "official repository's README"),
        Variant("CSWin", "cswin_s", 34_643_304, 6_800_714_752, (224, 224), "", None, 83.6, "official repository's README"),
        Variant("CSWin", "cswin_b", 77_382_184, 14_955_348_480, (224, 224), "", None, 84.2, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return CSWinNet(*CONFIGURATIONS[name], (224, 224), num_classes)
