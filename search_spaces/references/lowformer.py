"""LowFormer: fused inverted residuals, and attention at low resolution in the last two stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.mixers.lowformer import LowFormer as LowtentionKnobs
from search_spaces.mixers.lowformer import Lowtention

FUSED_BELOW = 256
"""Channels from which on a block's local branch is no longer fused."""


@dataclass(frozen=True)
class Configuration:
    """What distinguishes a variant.

    Attributes:
        widths: Channels of the stem and of each stage.
        depths: Blocks of the stem and of each stage.
        head: Widths of the head's two hidden layers.
        stem_expansion: Of the stem's blocks.
        down_expansion: Of blocks with stride.
        attention: Whether blocks of the last two stages attend.
        perceptron: Whether they have a perceptron, and a norm before their attention.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    head: tuple[int, int] = (1536, 1600)
    stem_expansion: int = 2
    down_expansion: int = 6
    attention: bool = True
    perceptron: bool = True


CONFIGURATIONS = {
    "lowformer_b0": Configuration((16, 32, 64, 128, 256), (0, 1, 1, 3, 4), down_expansion=4),
    "lowformer_b1": Configuration((16, 32, 64, 128, 256), (0, 1, 1, 5, 5)),
    "lowformer_b15": Configuration((20, 40, 80, 160, 320), (0, 1, 1, 6, 6), (2304, 2560)),
    "lowformer_b3": Configuration((32, 64, 128, 256, 512), (1, 2, 3, 6, 6), stem_expansion=4),
    "lowformer_e1": Configuration((20, 40, 80, 160, 320), (0, 1, 1, 4, 4), (2304, 2560), attention=False, perceptron=False),
    "lowformer_e2": Configuration((32, 64, 128, 256, 512), (1, 2, 3, 4, 4), stem_expansion=4, attention=False, perceptron=False),
    "lowformer_e3": Configuration((32, 64, 128, 256, 512), (1, 2, 3, 6, 6), stem_expansion=4, perceptron=False),
}


def fused(channels: int, out: int, stride: int, expansion: int, bias: bool = False) -> list[nn.Module]:
    """Return a dense 3×3 expansion and a projection, each with batch norm."""
    hidden = channels * expansion
    return [
        nn.Conv2d(channels, hidden, 3, stride, 1, bias=bias),
        nn.BatchNorm2d(hidden),
        nn.Hardswish(),
        nn.Conv2d(hidden, out, 1, bias=False),
        nn.BatchNorm2d(out),
    ]


def inverted(channels: int, expansion: int) -> list[nn.Module]:
    """Return a pointwise expansion, a depthwise 3×3 and a projection with batch norm."""
    hidden = channels * expansion
    return [
        nn.Conv2d(channels, hidden, 1),
        nn.Hardswish(),
        nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden),
        nn.Hardswish(),
        nn.Conv2d(hidden, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


class Residual(nn.Sequential):
    """x + layers(x)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the method that it overrides
        x = input
        for layer in self:
            x = layer(x)
        return input + x


class LowFormerNet(nn.Module):
    """Stem of stride 2, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, num_classes: int) -> None:
        super().__init__()
        channels = configuration.widths[0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.Hardswish()]
        layers += [Residual(*fused(channels, channels, 1, configuration.stem_expansion)) for _ in range(configuration.depths[0])]
        for stage, (width, depth) in enumerate(zip(configuration.widths[1:], configuration.depths[1:], strict=True), 1):
            layers += fused(channels, width, 2, configuration.down_expansion)
            channels = width
            if stage < 3:
                layers += [Residual(*fused(channels, channels, 1, 4)) for _ in range(depth - 1)]
                continue
            knobs = LowtentionKnobs(stride=2 if stage == 3 else 1)
            for _ in range(depth):
                if configuration.attention:
                    norm = [nn.GroupNorm(1, channels)] if configuration.perceptron else []
                    layers.append(Residual(*norm, Lowtention(channels, knobs, heads_first=True)))
                if configuration.perceptron:
                    layers.append(Residual(nn.GroupNorm(1, channels), Perceptron(channels, 4 * channels, "gelu")))
                local = fused(channels, channels, 1, 4, bias=True) if channels < FUSED_BELOW else inverted(channels, 4)
                layers.append(Residual(*local))
        self.layers = nn.Sequential(*layers)
        wide, hidden = configuration.head
        self.widen = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        self.hidden = nn.Sequential(nn.Linear(wide, hidden, bias=False), nn.LayerNorm(hidden), nn.Hardswish())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.widen(self.layers(x)).mean((2, 3))))


@references.register("lowformer")
class LowFormer(ReferenceSystem):
    """LowFormer B and E."""

    source: ClassVar[Source] = Source(
        "LowFormer: Hardware Efficient Design for Convolutional Transformer Backbones", "arXiv 2409.03460; E series: arXiv 2603.26551"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "LowFormer", "lowformer_b0", 14_100_472, 944_042_240, (224, 224), "lowformer_b0", None, 78.4, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_b1", 17_936_312, 1_410_980_096, (224, 224), "lowformer_b1", None, 79.9, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_b15", 33_982_028, 2_573_737_600, (224, 224), "lowformer_b15", None, 81.2, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_b3", 57_086_920, 6_098_685_440, (224, 224), "lowformer_b3", None, 83.6, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_e1", 18_896_268, 1_348_157_440, (224, 224), "lowformer_e1", None, 78.8, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_e2", 22_750_664, 3_789_335_040, (224, 224), "lowformer_e2", None, 81.6, "official repository's README"
        ),
        Variant(
            "LowFormer", "lowformer_e3", 41_316_808, 4_865_560_064, (224, 224), "lowformer_e3", None, 83.0, "official repository's README"
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return LowFormerNet(CONFIGURATIONS[name], num_classes)
