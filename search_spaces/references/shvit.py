"""SHViT: single-head attention of a part of the channels, in the last two of three stages from stride 16."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.layers.channel_attention import SqueezeExcite
from search_spaces.layers.convolution import ConvBranches, ConvNorm
from search_spaces.references.lsnet import NormLinear
from search_spaces.references.repvit import eighths

KEYS = 16
# name: widths, depths, channels that attend (none in the first stage)
CONFIGURATIONS = {
    "shvit_s1": ((128, 224, 320), (2, 4, 5), (0, 48, 68)),
    "shvit_s4": ((224, 336, 448), (4, 7, 6), (0, 72, 96)),
}


class SingleHeadAttention(nn.Module):
    """Attention of the first channels of a map beside the others, then a projection of all. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, part: int) -> None:
        super().__init__()
        self.sizes = [part, channels - part]
        self.norm = nn.GroupNorm(1, part)
        self.qkv = ConvNorm(part, 2 * KEYS + part)
        self.project = nn.Sequential(nn.ReLU(), ConvNorm(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x.split(self.sizes, dim=1)
        n, part, h, w = first.shape
        q, k, v = self.qkv(self.norm(first)).flatten(2).split([KEYS, KEYS, part], dim=1)
        logits = q.transpose(1, 2) @ k * KEYS**-0.5
        y = (v @ logits.softmax(2).transpose(1, 2)).reshape(n, part, h, w)
        return self.project(torch.cat([y, rest], dim=1))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def local(channels: int) -> nn.Module:
    """Return x + BN(DW3 x), one convolution when deployed."""
    return ConvBranches([ConvNorm(channels, channels, 3, groups=channels)], identity=True)


def perceptron(channels: int) -> nn.Module:
    """Return x + MLP(x) with twice the channels inside."""
    return Residual(Perceptron(channels, 2 * channels, "relu", "batch"))


def merging(channels: int, out: int) -> nn.Module:
    """Return the inverted residual of stride 2 between stages, (n, c, h, w) -> (n, c', h / 2, w / 2)."""
    hidden = 4 * channels
    return nn.Sequential(
        ConvNorm(channels, hidden),
        nn.ReLU(),
        ConvNorm(hidden, hidden, 3, stride=2, groups=hidden),
        nn.ReLU(),
        SqueezeExcite(hidden, eighths(hidden // 4)),
        ConvNorm(hidden, out),
    )


class SHViTNet(nn.Module):
    """Stem of stride 16, three stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], parts: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for divisor in (8, 4, 2, 1):
            layers += [ConvNorm(channels, widths[0] // divisor, 3, stride=2), *([nn.ReLU()] if divisor > 1 else [])]
            channels = widths[0] // divisor
        for width, depth, part in zip(widths, depths, parts, strict=True):
            if width != channels:
                layers += [local(channels), perceptron(channels), merging(channels, width), local(width), perceptron(width)]
            for _ in range(depth):
                attention = [Residual(SingleHeadAttention(width, part))] if part else []
                layers += [local(width), *attention, perceptron(width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = NormLinear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("shvit")
class SHViT(ReferenceSystem):
    """SHViT S1 and S4."""

    source: ClassVar[Source] = Source("SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design", "arXiv 2401.16456")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "SHViT",
            "shvit_s1",
            6_330_808,
            241_320_768,
            (224, 224),
            "shvit_s1",
            None,
            72.78,
            "timm results-imagenet.csv (shvit_s1.in1k @224)",
        ),
        Variant(
            "SHViT",
            "shvit_s4",
            16_588_484,
            986_216_960,
            (256, 256),
            "shvit_s4",
            None,
            79.362,
            "timm results-imagenet.csv (shvit_s4.in1k @256)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SHViTNet(*CONFIGURATIONS[name], num_classes)
