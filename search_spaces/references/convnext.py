"""ConvNeXt: depthwise 7×7, layer norm, perceptron, one residual."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron, TokenPerceptron
from search_spaces.layers.norm import LayerNorm2d

# name: (depths, widths, whether the perceptron is of pointwise convolutions)
CONFIGURATIONS = {
    "convnext_atto": ((2, 2, 6, 2), (40, 80, 160, 320), True),
    "convnext_femto": ((2, 2, 6, 2), (48, 96, 192, 384), True),
    "convnext_pico": ((2, 2, 6, 2), (64, 128, 256, 512), True),
    "convnext_nano": ((2, 2, 8, 2), (80, 160, 320, 640), True),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768), False),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768), False),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024), False),
}


class Block(nn.Module):
    """x + γ·MLP(LN(DW7(x))); norm and perceptron run channels last unless `pointwise`. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, *, pointwise: bool) -> None:
        super().__init__()
        self.pointwise = pointwise
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = (LayerNorm2d if pointwise else nn.LayerNorm)(channels, eps=1e-6)
        self.mlp = (Perceptron if pointwise else TokenPerceptron)(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        y = self.mlp(self.norm(y)) if self.pointwise else self.mlp(self.norm(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + y * self.gamma.view(-1, 1, 1)


class ConvNeXtNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], pointwise: bool, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0], eps=1e-6))
        stages: list[nn.Module] = []
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            down = [LayerNorm2d(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], width, 2, 2)] if i else []
            stages.append(nn.Sequential(*down, *(Block(width, pointwise=pointwise) for _ in range(depth))))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x)).mean((2, 3))))


@references.register("convnext")
class ConvNeXt(ReferenceSystem):
    """ConvNeXt atto to base."""

    source: ClassVar[Source] = Source("A ConvNet for the 2020s", "arXiv 2201.03545")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "ConvNeXt",
            "convnext_atto",
            3_695_520,
            547_332_480,
            (224, 224),
            "convnext_atto",
            None,
            75.672,
            "timm results-imagenet.csv (convnext_atto.d2_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_femto",
            5_217_784,
            779_629_824,
            (224, 224),
            "convnext_femto",
            None,
            77.498,
            "timm results-imagenet.csv (convnext_femto.d1_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_pico",
            9_045_672,
            1_367_055_360,
            (224, 224),
            "convnext_pico",
            None,
            79.516,
            "timm results-imagenet.csv (convnext_pico.d1_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_nano",
            15_593_560,
            2_445_528_320,
            (224, 224),
            "convnext_nano",
            None,
            80.762,
            "timm results-imagenet.csv (convnext_nano.d1h_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_tiny",
            28_589_128,
            4_455_531_264,
            (224, 224),
            "convnext_tiny",
            None,
            82.066,
            "timm results-imagenet.csv (convnext_tiny.fb_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_small",
            50_223_688,
            8_683_712_256,
            (224, 224),
            "convnext_small",
            None,
            83.144,
            "timm results-imagenet.csv (convnext_small.fb_in1k @224)",
        ),
        Variant(
            "ConvNeXt",
            "convnext_base",
            88_591_464,
            15_354_729_472,
            (224, 224),
            "convnext_base",
            None,
            83.838,
            "timm results-imagenet.csv (convnext_base.fb_in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        depths, widths, pointwise = CONFIGURATIONS[name]
        return ConvNeXtNet(depths, widths, pointwise, num_classes)
