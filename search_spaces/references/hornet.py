"""HorNet: recursive gated convolutions of rising order, in the depthwise and the global-filter form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.hornet import Filter
from search_spaces.mixers.hornet import HorNet as Operator

DEPTHS, ORDERS, SIZES = (2, 3, 18, 2), (2, 3, 4, 5), (56, 28, 14, 7)
# name: (width of the first stage, filter of the last two stages)
CONFIGURATIONS: dict[str, tuple[int, Filter]] = {
    "hornet_tiny_7x7": (64, "depthwise"),
    "hornet_tiny_gf": (64, "global"),
    "hornet_small_7x7": (96, "depthwise"),
    "hornet_small_gf": (96, "global"),
    "hornet_base_7x7": (128, "depthwise"),
}


class Block(nn.Module):
    """x + γ₁·gⁿConv(LN x), then x + γ₂·MLP(LN x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__()
        self.gamma1 = nn.Parameter(torch.full((channels,), 1e-6))
        self.gamma2 = nn.Parameter(torch.full((channels,), 1e-6))
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x)) * self.gamma1.view(-1, 1, 1)
        y = self.mlp(self.norm2(x.permute(0, 2, 3, 1))) * self.gamma2
        return x + y.permute(0, 3, 1, 2)


class HorNetNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, 224, 224) -> (n, num_classes); any size for the depthwise form."""

    def __init__(self, width: int, last: Filter, num_classes: int) -> None:
        super().__init__()
        widths = [width << i for i in range(4)]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), LayerNorm2d(width, eps=1e-6))
        stages: list[nn.Module] = []
        for i, (channels, depth) in enumerate(zip(widths, DEPTHS, strict=True)):
            down = [LayerNorm2d(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], channels, 2, 2)] if i else []
            operator = Operator(order=ORDERS[i], filter=last if i >= 2 else "depthwise", form="fft")
            size = (SIZES[i], SIZES[i])
            stages.append(nn.Sequential(*down, *(Block(channels, operator.build(channels, size)) for _ in range(depth))))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x)).mean((2, 3))))


@references.register("hornet")
class HorNet(ReferenceSystem):
    """HorNet tiny and small in both forms, base with depthwise 7×7."""

    source: ClassVar[Source] = Source(
        "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions", "arXiv 2207.14284"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("HorNet", "hornet_tiny_7x7", 22_409_512, 3_968_389_312, (224, 224), "", None, 82.8, "repo README"),
        Variant("HorNet", "hornet_tiny_gf", 22_991_848, 3_888_705_120, (224, 224), "", None, 83.0, "repo README"),
        Variant("HorNet", "hornet_small_7x7", 49_528_264, 8_813_970_720, (224, 224), "", None, 83.8, "repo README"),
        Variant("HorNet", "hornet_small_gf", 50_401_768, 8_694_444_432, (224, 224), "", None, 84.0, "repo README"),
        Variant("HorNet", "hornet_base_7x7", 87_256_680, 15_567_143_296, (224, 224), "", None, 84.2, "repo README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return HorNetNet(*CONFIGURATIONS[name], num_classes)
