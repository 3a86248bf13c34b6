"""FasterNet: a convolution of a quarter of the channels, then a perceptron, one residual around both."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.activation import activation
from search_spaces.layers.convolution import ConvNorm

PART, HEAD = 4, 1280
"""One of how many channels is convolved; features before the classifier."""

# name: width of the first stage, depths, activation
CONFIGURATIONS: dict[str, tuple[int, tuple[int, ...], Literal["gelu", "relu"]]] = {
    "fasternet_t0": (40, (1, 2, 8, 2), "gelu"),
    "fasternet_t1": (64, (1, 2, 8, 2), "gelu"),
    "fasternet_s": (128, (1, 2, 13, 2), "relu"),
}


class Block(nn.Module):
    """x + PW(act(BN(PW(y)))), y being x with its first quarter convolved. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, act: Literal["gelu", "relu"]) -> None:
        super().__init__()
        part = channels // PART
        self.sizes = [part, channels - part]
        self.mlp = nn.Sequential(ConvNorm(channels, 2 * channels), activation(act), nn.Conv2d(2 * channels, channels, 1, bias=False))
        self.conv = nn.Conv2d(part, part, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x.split(self.sizes, dim=1)
        return x + self.mlp(torch.cat([self.conv(first), rest], dim=1))


class Stage(nn.Module):
    """Patches of the map before, normalised, then blocks. (n, c, h, w) -> (n, c', h / patch, w / patch)."""

    def __init__(self, channels: int, out: int, depth: int, patch: int, act: Literal["gelu", "relu"]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(out, act) for _ in range(depth)))
        self.patches = ConvNorm(channels, out, patch, stride=patch, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x))


class FasterNetNet(nn.Module):
    """Patches, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], act: Literal["gelu", "relu"], num_classes: int) -> None:
        super().__init__()
        self.patches = ConvNorm(3, width, 4, stride=4, padding=0)
        stages: list[nn.Module] = [Block(width, act) for _ in range(depths[0])]
        for depth in depths[1:]:
            stages.append(Stage(width, 2 * width, depth, 2, act))
            width *= 2
        self.stages = nn.Sequential(*stages)
        self.features = nn.Conv2d(width, HEAD, 1, bias=False)
        self.act = activation(act)
        self.head = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.stages(self.patches(x)).mean((2, 3), keepdim=True))
        return self.head(self.act(x).flatten(1))


@references.register("fasternet")
class FasterNet(ReferenceSystem):
    """FasterNet T0, T1 and S."""

    source: ClassVar[Source] = Source("Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks", "arXiv 2303.03667")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "FasterNet",
            "fasternet_t0",
            3_905_500,
            335_422_720,
            (224, 224),
            "fasternet_t0",
            None,
            71.732,
            "timm results-imagenet.csv (fasternet_t0.in1k @224)",
        ),
        Variant(
            "FasterNet",
            "fasternet_t1",
            7_595_368,
            850_511_872,
            (224, 224),
            "fasternet_t1",
            None,
            75.922,
            "timm results-imagenet.csv (fasternet_t1.in1k @224)",
        ),
        Variant(
            "FasterNet",
            "fasternet_s",
            31_181_032,
            4_549_740_544,
            (224, 224),
            "fasternet_s",
            None,
            81.328,
            "timm results-imagenet.csv (fasternet_s.in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return FasterNetNet(*CONFIGURATIONS[name], num_classes)
