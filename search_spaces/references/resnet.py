"""ResNet 18 and 50, the yardsticks."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.convolution import ConvNorm

# name: depths, whether blocks have a bottleneck
CONFIGURATIONS = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}


class Block(nn.Module):
    """relu(f(x) + x), f two 3×3 convolutions or a bottleneck of a quarter. (n, c, h, w) -> (n, c', h / stride, w / stride)."""

    def __init__(self, channels: int, out: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            inner = out // 4
            convolutions = [ConvNorm(channels, inner), ConvNorm(inner, inner, 3, stride=stride), ConvNorm(inner, out)]
        else:
            convolutions = [ConvNorm(channels, out, 3, stride=stride), ConvNorm(out, out, 3)]
        self.convolutions = nn.ModuleList(convolutions)
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(channels, out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, convolution in enumerate(self.convolutions):
            y = convolution(torch.relu(y) if i else y)
        return torch.relu(y + self.shortcut(x))


class ResNetNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool, num_classes: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, stride=2)
        layers: list[nn.Module] = []
        channels = 64
        for stage, depth in enumerate(depths):
            out = 64 * 2**stage * (4 if bottleneck else 1)
            for i in range(depth):
                layers.append(Block(channels, out, 2 if stage and not i else 1, bottleneck=bottleneck))
                channels = out
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        return self.head(self.layers(x).mean((2, 3)))


@references.register("resnet")
class ResNet(ReferenceSystem):
    """ResNet-18 and ResNet-50, whose stride stands at the 3×3 convolution."""

    source: ClassVar[Source] = Source("Deep Residual Learning for Image Recognition", "arXiv 1512.03385")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "ResNet",
            "resnet18",
            11_689_512,
            1_814_073_344,
            (224, 224),
            "resnet18",
            None,
            71.504,
            "timm results-imagenet.csv (resnet18.a1_in1k @224)",
        ),
        Variant(
            "ResNet",
            "resnet50",
            25_557_032,
            4_089_184_256,
            (224, 224),
            "resnet50",
            None,
            80.382,
            "timm results-imagenet.csv (resnet50.a1_in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ResNetNet(*CONFIGURATIONS[name], num_classes)
