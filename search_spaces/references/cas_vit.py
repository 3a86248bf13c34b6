"""CAS-ViT: local perception, additive attention and a perceptron, convolutions and batch norms only."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.mixers.catm import Catm

# name: (depths, widths)
CONFIGURATIONS = {
    "cas_vit_xs": ((2, 2, 4, 2), (48, 56, 112, 220)),
    "cas_vit_s": ((3, 3, 6, 3), (48, 64, 128, 256)),
    "cas_vit_m": ((3, 3, 6, 3), (64, 96, 192, 384)),
    "cas_vit_t": ((3, 3, 6, 3), (96, 128, 256, 512)),
}


class Block(nn.Module):
    """Three residuals: local perception, additive attention, perceptron. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = Catm().build(channels, (7, 7))
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = Perceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.local(x)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def strided(channels: int, out: int) -> list[nn.Module]:
    """Return a 3×3 convolution with stride 2 and its batch norm."""
    return [nn.Conv2d(channels, out, 3, 2, 1), nn.BatchNorm2d(out)]


class CasViTNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*strided(3, widths[0] // 2), nn.ReLU(), *strided(widths[0] // 2, widths[0]), nn.ReLU()]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                layers += strided(widths[stage - 1], width)
            layers += [Block(width) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(x)).mean((2, 3)))


@references.register("cas-vit")
class CasViT(ReferenceSystem):
    """CAS-ViT XS to T, with one head (the distilled networks average two)."""

    source: ClassVar[Source] = Catm.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "CAS-ViT",
            "cas_vit_xs",
            2_979_700,
            546_784_968,
            (224, 224),
            "",
            None,
            78.3,
            "official repository's MODEL_ZOO.md (distilled)",
        ),
        Variant(
            "CAS-ViT",
            "cas_vit_s",
            5_507_224,
            911_992_576,
            (224, 224),
            "",
            None,
            80.9,
            "official repository's MODEL_ZOO.md (distilled)",
        ),
        Variant(
            "CAS-ViT",
            "cas_vit_m",
            12_036_520,
            1_859_099_520,
            (224, 224),
            "",
            None,
            82.8,
            "official repository's MODEL_ZOO.md (distilled)",
        ),
        Variant(
            "CAS-ViT",
            "cas_vit_t",
            21_250_120,
            3_556_915_712,
            (224, 224),
            "",
            None,
            83.9,
            "official repository's MODEL_ZOO.md (distilled)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return CasViTNet(*CONFIGURATIONS[name], num_classes)
