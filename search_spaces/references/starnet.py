"""StarNet: the product of two pointwise convolutions between depthwise ones."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.convolution import ConvNorm
from search_spaces.references.lsnet import NormLinear

EXPANSION, STEM = 4, 32
# name: width of the first stage, depths
CONFIGURATIONS = {"starnet_s1": (24, (2, 2, 8, 3)), "starnet_s4": (32, (3, 3, 12, 5))}


class Block(nn.Module):
    """x + DW7(PW(relu6(PW y) ⊙ PW y)) with y = DW7(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        self.before = ConvNorm(channels, channels, 7, groups=channels, bias=True)
        self.gate, self.value = nn.Conv2d(channels, hidden, 1), nn.Conv2d(channels, hidden, 1)
        self.project = ConvNorm(hidden, channels, bias=True)
        self.after = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        return x + self.after(self.project(F.relu6(self.gate(y)) * self.value(y)))


class StarNetNet(nn.Module):
    """Strided stem, four stages each after a strided convolution, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, STEM, 3, stride=2, bias=True), nn.ReLU6()]
        channels = STEM
        for stage, depth in enumerate(depths):
            out = width * 2**stage
            layers += [ConvNorm(channels, out, 3, stride=2, bias=True), *(Block(out) for _ in range(depth))]
            channels = out
        self.layers = nn.Sequential(*layers)
        self.head = NormLinear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("starnet")
class StarNet(ReferenceSystem):
    """StarNet S1 and S4."""

    source: ClassVar[Source] = Source(
        "Rewrite the Stars", "arXiv 2403.19967", "the last norm follows the mean over positions, which is the same"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "StarNet",
            "starnet_s1",
            2_869_168,
            421_877_376,
            (224, 224),
            "starnet_s1",
            None,
            73.532,
            "timm results-imagenet.csv (starnet_s1.in1k @224)",
        ),
        Variant(
            "StarNet",
            "starnet_s4",
            7_482_728,
            1_049_561_600,
            (224, 224),
            "starnet_s4",
            None,
            78.824,
            "timm results-imagenet.csv (starnet_s4.in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return StarNetNet(*CONFIGURATIONS[name], num_classes)
