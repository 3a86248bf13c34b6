"""RepVGG: a plain stack of 3×3 convolutions, once its branches are folded."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.reparam.repvgg import RepVGGBlock

# name: (widths of stem and stages, depths of stages)
CONFIGURATIONS = {
    "repvgg_a0": ((48, 48, 96, 192, 1280), (2, 4, 14, 1)),
    "repvgg_a1": ((64, 64, 128, 256, 1280), (2, 4, 14, 1)),
    "repvgg_a2": ((64, 96, 192, 384, 1408), (2, 4, 14, 1)),
    "repvgg_b0": ((64, 64, 128, 256, 1280), (4, 6, 16, 1)),
    "repvgg_b1": ((64, 128, 256, 512, 2048), (4, 6, 16, 1)),
}


class RepVGGNet(nn.Module):
    """Stem and four stages of RepVGG blocks, each stage beginning with stride 2. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = widths[0]
        blocks: list[nn.Module] = [RepVGGBlock(3, channels, stride=2)]
        for width, depth in zip(widths[1:], depths, strict=True):
            for i in range(depth):
                blocks.append(RepVGGBlock(channels, width, stride=1 if i else 2))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


@references.register("repvgg")
class RepVGG(ReferenceSystem):
    """RepVGG A0 to B1."""

    source: ClassVar[Source] = Source("RepVGG: Making VGG-style ConvNets Great Again", "arXiv 2101.03697")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "RepVGG",
            "repvgg_a0",
            8_309_384,
            1_361_451_008,
            (224, 224),
            "repvgg_a0",
            9_108_968,
            72.426,
            "timm results-imagenet.csv (repvgg_a0.rvgg_in1k)",
        ),
        Variant(
            "RepVGG",
            "repvgg_a1",
            12_789_864,
            2_363_967_488,
            (224, 224),
            "repvgg_a1",
            14_092_264,
            74.474,
            "timm results-imagenet.csv (repvgg_a1.rvgg_in1k)",
        ),
        Variant(
            "RepVGG",
            "repvgg_a2",
            25_499_944,
            5_116_951_552,
            (224, 224),
            "repvgg_a2",
            28_210_600,
            76.488,
            "timm results-imagenet.csv (repvgg_a2.rvgg_in1k)",
        ),
        Variant(
            "RepVGG",
            "repvgg_b0",
            14_339_048,
            3_057_600_512,
            (224, 224),
            "repvgg_b0",
            15_817_960,
            75.158,
            "timm results-imagenet.csv (repvgg_b0.rvgg_in1k)",
        ),
        Variant(
            "RepVGG",
            "repvgg_b1",
            51_829_480,
            11_815_485_440,
            (224, 224),
            "repvgg_b1",
            57_415_016,
            78.37,
            "timm results-imagenet.csv (repvgg_b1.rvgg_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return RepVGGNet(*CONFIGURATIONS[name], num_classes)
