"""UniFormer: local relations in the first two stages, self-attention in the last two."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron, TokenPerceptron
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import TokenAttention, to_map, to_tokens
from search_spaces.mixers.uniformer import LocalRelations
from search_spaces.mixers.uniformer import UniFormer as Mixer

WIDTHS = (64, 128, 320, 512)
# name: (depths, width of a head, whether patches are embedded by overlapping convolutions)
CONFIGURATIONS = {
    "uniformer_small": ((3, 4, 8, 3), 64, False),
    "uniformer_small_plus": ((3, 5, 9, 3), 32, True),
    "uniformer_base": ((5, 8, 20, 7), 64, False),
}


class LocalBlock(nn.Module):
    """Positions, local relations, perceptron, with batch norms and residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positions = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.mixer = LocalRelations(channels, 5)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = Perceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(x)
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GlobalBlock(nn.Module):
    """Positions, self-attention, perceptron, with layer norms and residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.positions = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = TokenAttention(channels, channels // head_dim)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = to_tokens(x + self.positions(x))
        y = y + self.attention(self.norm1(y))
        return to_map(y + self.mlp(self.norm2(y)), height, width)


def embedding(channels: int, out: int, overlapping: bool) -> nn.Module:
    """Return what makes patches of 4 (of pixels) or of 2 (of positions): one convolution and a layer norm, or 3 × 3 ones with batch norms."""
    stride = 4 if channels == 3 else 2
    if not overlapping:
        return nn.Sequential(nn.Conv2d(channels, out, stride, stride), LayerNorm2d(out, eps=1e-5))
    last = nn.BatchNorm2d(out)
    if channels != 3:
        return nn.Sequential(nn.Conv2d(channels, out, 3, 2, 1), last)
    return nn.Sequential(nn.Conv2d(3, out // 2, 3, 2, 1), nn.BatchNorm2d(out // 2), nn.GELU(), nn.Conv2d(out // 2, out, 3, 2, 1), last)


class UniFormerNet(nn.Module):
    """Four stages, each behind an embedding, and a head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], head_dim: int, overlapping: bool, num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            stages.append(embedding(WIDTHS[stage - 1] if stage else 3, width, overlapping))
            stages += [LocalBlock(width) if stage < 2 else GlobalBlock(width, head_dim) for _ in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x)).mean((2, 3)))


@references.register("uniformer")
class UniFormer(ReferenceSystem):
    """UniFormer S, S-plus and B."""

    source: ClassVar[Source] = Mixer.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("UniFormer", "uniformer_small", 21_545_256, 3_631_774_208, (224, 224), "", None, 82.9, "official repository's README"),
        Variant(
            "UniFormer",
            "uniformer_small_plus",
            24_032_552,
            4_201_033_472,
            (224, 224),
            "",
            None,
            83.4,
            "official repository's README",
            ("24", "4.2"),
        ),
        Variant("UniFormer", "uniformer_base", 49_776_552, 8_249_019_904, (224, 224), "", None, 83.9, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return UniFormerNet(*CONFIGURATIONS[name], num_classes)
