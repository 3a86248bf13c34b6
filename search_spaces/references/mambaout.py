"""MambaOut: gated convolutions, the blocks of Mamba without its state space."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references

EPSILON = 1e-6
# name: widths, depths
CONFIGURATIONS = {
    "mambaout_kobe": ((48, 96, 192, 288), (3, 3, 15, 3)),
    "mambaout_tiny": ((96, 192, 384, 576), (3, 3, 9, 3)),
}


class Convolution(nn.Module):
    """A strided 3×3 convolution of a map with channels last, then a layer norm. (n, h, w, c) -> (n, h / 2, w / 2, c')."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, 2, 1)
        self.norm = nn.LayerNorm(out, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """x + W₂(GELU(g) ⊙ [i, DW7 c]) with [g, i, c] = W₁(norm x). (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 8 * channels // 3
        self.sizes = [hidden, hidden - channels, channels]
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.expand = nn.Linear(channels, 2 * hidden)
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate, same, local = self.expand(self.norm(x)).split(self.sizes, dim=3)
        local = self.depthwise(local.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.project(F.gelu(gate) * torch.cat([same, local], dim=3))


class MambaOutNet(nn.Module):
    """Two strided convolutions, four stages, a perceptron as head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.stem = nn.ModuleList([Convolution(3, widths[0] // 2), Convolution(widths[0] // 2, widths[0])])
        layers: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += [Convolution(widths[stage - 1], width)] if stage else []
            layers += [Block(width) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1], eps=EPSILON)
        self.features = nn.Linear(widths[-1], 4 * widths[-1])
        self.features_norm = nn.LayerNorm(4 * widths[-1], eps=EPSILON)
        self.head = nn.Linear(4 * widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem[0](x.permute(0, 2, 3, 1)))
        x = self.norm(self.layers(self.stem[1](x)).mean((1, 2)))
        return self.head(self.features_norm(F.gelu(self.features(x))))


@references.register("mambaout")
class MambaOut(ReferenceSystem):
    """MambaOut Kobe and Tiny."""

    source: ClassVar[Source] = Source("MambaOut: Do We Really Need Mamba for Vision?", "arXiv 2405.07992")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "MambaOut",
            "mambaout_kobe",
            9_141_208,
            1_505_865_312,
            (224, 224),
            "mambaout_kobe",
            None,
            79.986,
            "timm results-imagenet.csv (mambaout_kobe.in1k @224)",
        ),
        Variant(
            "MambaOut",
            "mambaout_tiny",
            26_545_096,
            4_469_655_744,
            (224, 224),
            "mambaout_tiny",
            None,
            82.742,
            "timm results-imagenet.csv (mambaout_tiny.in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return MambaOutNet(*CONFIGURATIONS[name], num_classes)
