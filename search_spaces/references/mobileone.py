"""MobileOne: depthwise and pointwise convolutions, over-parameterised in training."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.reparam.mobileone import MobileOneConv

DEPTHS = (2, 8, 10, 1)
# name: (widths of stem and stages, copies of each convolution, last blocks of each stage that squeeze and excite)
CONFIGURATIONS = {
    "mobileone_s0": ((48, 48, 128, 256, 1024), 4, (0, 0, 0, 0)),
    "mobileone_s1": ((64, 96, 192, 512, 1280), 1, (0, 0, 0, 0)),
    "mobileone_s2": ((64, 96, 256, 640, 2048), 1, (0, 0, 0, 0)),
    "mobileone_s3": ((64, 128, 320, 768, 2048), 1, (0, 0, 0, 0)),
    "mobileone_s4": ((64, 192, 448, 896, 2048), 1, (0, 0, 5, 1)),
}


class MobileOneNet(nn.Module):
    """Stem and four stages of depthwise-pointwise pairs, each stage beginning with stride 2. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], copies: int, squeezes: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = widths[0]
        blocks: list[nn.Module] = [MobileOneConv(3, channels, 3, stride=2)]
        for width, depth, squeeze in zip(widths[1:], DEPTHS, squeezes, strict=True):
            for i in range(depth):
                se = i >= depth - squeeze
                stride = 1 if i else 2
                blocks += [
                    MobileOneConv(channels, channels, 3, stride=stride, groups=channels, copies=copies, squeeze=channels // 16 * se),
                    MobileOneConv(channels, width, 1, copies=copies, squeeze=width // 16 * se),
                ]
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


@references.register("mobileone")
class MobileOne(ReferenceSystem):
    """MobileOne S0 to S4."""

    source: ClassVar[Source] = Source("MobileOne: An Improved One Millisecond Mobile Backbone", "arXiv 2206.04040")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "MobileOne",
            "mobileone_s0",
            2_078_504,
            275_110_400,
            (224, 224),
            "mobileone_s0",
            5_293_272,
            71.398,
            "timm results-imagenet.csv (mobileone_s0.apple_in1k)",
        ),
        Variant(
            "MobileOne",
            "mobileone_s1",
            4_764_840,
            825_057_024,
            (224, 224),
            "mobileone_s1",
            4_825_192,
            75.76,
            "timm results-imagenet.csv (mobileone_s1.apple_in1k)",
        ),
        Variant(
            "MobileOne",
            "mobileone_s2",
            7_808_168,
            1_298_426_496,
            (224, 224),
            "mobileone_s2",
            7_884_648,
            77.504,
            "timm results-imagenet.csv (mobileone_s2.apple_in1k)",
        ),
        Variant(
            "MobileOne",
            "mobileone_s3",
            10_078_312,
            1_895_790_592,
            (224, 224),
            "mobileone_s3",
            10_170_600,
            78.002,
            "timm results-imagenet.csv (mobileone_s3.apple_in1k)",
        ),
        Variant(
            "MobileOne",
            "mobileone_s4",
            14_838_352,
            2_979_269_760,
            (224, 224),
            "mobileone_s4",
            14_951_248,
            79.446,
            "timm results-imagenet.csv (mobileone_s4.apple_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return MobileOneNet(*CONFIGURATIONS[name], num_classes)
