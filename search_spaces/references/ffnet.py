"""FFNet: convolutional attention and a perceptron behind a depthwise convolution."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.convolution import ConvNorm, NormConv
from search_spaces.mixers.metamixer import ConvAttention, rep_depthwise

KERNELS = (3, 3, 7, 7)
# name: (width of the first stage, depths, kernel of the channel mixer, layer scale)
CONFIGURATIONS = {
    "ffnet_1": (80, (2, 2, 8, 2), 3, False),
    "ffnet_2": (88, (3, 3, 15, 3), 7, False),
    "ffnet_3": (96, (4, 4, 22, 5), 7, True),
}
STEM = 64


class ChannelMixer(nn.Module):
    """PW(gelu(PW(DW(x)))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = rep_depthwise(channels, channels) if kernel == 7 else ConvNorm(channels, channels, kernel, groups=channels)
        self.expand = nn.Conv2d(channels, 3 * channels, 1)
        self.act = nn.GELU()
        self.project = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(self.depthwise(x))))


class Residual(nn.Module):
    """x + [γ·]f(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, inner: nn.Module, channels: int, *, scaled: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), 1e-6)) if scaled else None
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return x + (y if self.gamma is None else y * self.gamma)


class FFNetNet(nn.Module):
    """Stem of two strided convolutions, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], kernel: int, scaled: bool, num_classes: int) -> None:
        super().__init__()
        widths = [width << i for i in range(4)]
        layers: list[nn.Module] = [ConvNorm(3, STEM, 3, stride=2), nn.GELU(), ConvNorm(STEM, width, 3, stride=2)]
        for i, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                layers += [rep_depthwise(widths[i - 1], channels, stride=2), NormConv(channels, channels, skip=True, bias=False)]
            for _ in range(depth):
                layers += [
                    Residual(ConvAttention(channels, KERNELS[i], KERNELS[i], "gelu"), channels, scaled=scaled),
                    Residual(ChannelMixer(channels, kernel), channels, scaled=scaled),
                ]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(x)).mean((2, 3)))


@references.register("ffnet")
class FFNet(ReferenceSystem):
    """FFNet-1 to 3."""

    source: ClassVar[Source] = Source("MetaMixer: A Generalizable Token Mixer", "arXiv 2406.02021")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("MetaMixer/FFNet", "ffnet_1", 13_660_152, 2_984_829_952, (256, 256), "", 13_775_656, 81.3, "repo README"),
        Variant("MetaMixer/FFNet", "ffnet_2", 26_908_440, 6_003_351_040, (256, 256), "", 27_208_408, 82.9, "repo README"),
        Variant("MetaMixer/FFNet", "ffnet_3", 48_330_632, 10_146_232_320, (256, 256), "", 48_817_896, 83.9, "repo README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return FFNetNet(*CONFIGURATIONS[name], num_classes)
