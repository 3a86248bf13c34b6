"""GLNet: convolutions of the grid beside attention among soft clusters, attention to all positions at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.convolution import ResidualDepthwise
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.mixers.atconv import bins
from search_spaces.mixers.global_local import GlobalLocal

HEAD_DIM, SLOTS, KERNEL, EPSILON = 32, 8, 5, 1e-6
"""Width of a head, clusters along a side, kernel of the depthwise convolution; of the norms before attention to all."""


@dataclass(frozen=True)
class Configuration:
    """One network.

    Attributes:
        width: Of the first stage; it doubles.
        depths: Of the stages.
        expansion: Of the perceptrons.
        plain: Whether it has Swin's layout: patches that do not overlap, no convolution in perceptrons nor for positions.
        scaled: Whether residuals are scaled.
    """

    width: int
    depths: tuple[int, int, int, int]
    expansion: int
    plain: bool = False
    scaled: bool = False


CONFIGURATIONS = {
    "glnet_stl": Configuration(96, (2, 2, 6, 2), 4, plain=True),
    "glnet_4g": Configuration(64, (4, 4, 18, 4), 3),
    "glnet_9g": Configuration(96, (4, 4, 18, 4), 3),
    "glnet_16g": Configuration(128, (4, 4, 18, 4), 3, scaled=True),
}
Kind = Literal["clusters", "all"]


class TokenAttention(nn.Module):
    """Attention of tokens with the weights of the three projections in one. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        q, k, v = (part.reshape(n, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c))


def cells(x: Tensor) -> Tensor:
    """Return the means of `SLOTS` × `SLOTS` cells, which overlap where they do not divide a side. (n, c, h, w) -> (n, c, SLOTS, SLOTS)."""
    for axis in (2, 3):
        x = torch.cat([x.narrow(axis, a, b - a).mean(axis, keepdim=True) for a, b in bins(x.shape[axis], SLOTS)], dim=axis)
    return x


class Clusters(nn.Module):
    """Aᵀ·attention(softmax(τ·cos(s, x))·x) + PW·DW·PW(x), s being means of x before its norm. (n, c, h, w) twice -> (n, c, h, w).

    Args:
        channels: c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(channels**-0.5))
        self.attention = TokenAttention(channels)
        self.near = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        height, width = x.shape[2:]
        start = to_tokens(cells(before))
        tokens = to_tokens(x)
        logits = F.normalize(start, dim=2) @ (F.normalize(tokens, dim=2) * self.temperature).transpose(1, 2)
        clusters = self.attention(logits.softmax(2) @ tokens)
        return to_map(logits.transpose(1, 2).softmax(2) @ clusters, height, width) + self.near(x)


class Scale(nn.Module):
    """x ⊙ γ of each channel of a map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """[x + DW3 x,] x + mixer(norm x), x + MLP(norm x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kind: Kind, configuration: Configuration) -> None:
        super().__init__()
        hidden, plain = configuration.expansion * channels, configuration.plain
        self.positions = nn.Identity() if plain else ResidualDepthwise(channels)
        self.norm1: nn.Module = nn.BatchNorm2d(channels) if kind == "clusters" else nn.LayerNorm(channels, eps=EPSILON)
        self.clusters = Clusters(channels) if kind == "clusters" else None
        self.attention = None if kind == "clusters" else TokenAttention(channels)
        # Swin's layout ends in plain transformer blocks, whose second norm is a layer norm too
        self.norm2: nn.Module = nn.LayerNorm(channels, eps=EPSILON) if plain and kind == "all" else nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Identity() if plain else ResidualDepthwise(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )
        self.scale1, self.scale2 = (Scale(channels) if configuration.scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        before, x = x, self.positions(x)
        height, width = x.shape[2:]
        if self.clusters is not None:
            y = self.clusters(self.norm1(x), before)
        else:
            assert self.attention is not None
            y = to_map(self.attention(self.norm1(to_tokens(x))), height, width)
        x = x + self.scale1(y)
        normed = to_map(self.norm2(to_tokens(x)), height, width) if isinstance(self.norm2, nn.LayerNorm) else self.norm2(x)
        return x + self.scale2(self.mlp(normed))


class GLNetNet(nn.Module):
    """Four stages, norm, head on the mean. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, num_classes: int) -> None:
        super().__init__()
        widths = [configuration.width * 2**stage for stage in range(4)]
        layers: list[nn.Module] = []
        for stage, (channels, depth) in enumerate(zip(widths, configuration.depths, strict=True)):
            layers += reduction(([3, *widths])[stage], channels, first=not stage, plain=configuration.plain)
            for i in range(depth):
                everything = stage == 3 or (stage == 2 and not configuration.plain and i % 2 == 1)
                layers.append(Block(channels, "all" if everything else "clusters", configuration))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(x)).mean((2, 3)))


def reduction(channels: int, out: int, *, first: bool, plain: bool) -> list[nn.Module]:
    """Return what stands before a stage: patches in Swin's layout, overlapping convolutions else."""
    if plain:
        return [nn.Conv2d(3, out, 4, 4), nn.BatchNorm2d(out)] if first else [nn.BatchNorm2d(channels), nn.Conv2d(channels, out, 2, 2)]
    if not first:
        return [nn.Conv2d(channels, out, 3, 2, 1), nn.BatchNorm2d(out)]
    half = [nn.Conv2d(channels, out // 2, 3, 2, 1), nn.BatchNorm2d(out // 2), nn.GELU()]
    return [*half, nn.Conv2d(out // 2, out, 3, 2, 1), nn.BatchNorm2d(out)]


@references.register("glnet")
class GLNet(ReferenceSystem):
    """GLNet in Swin's layout, and of 4, 9 and 16 billion multiply-adds."""

    source: ClassVar[Source] = Source(GlobalLocal.source.title, GlobalLocal.source.reference)
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("GLMix/GLNet", "glnet_stl", 30_296_786, 4_347_432_960, (224, 224), "", None, 82.5, "official repository's README"),
        Variant(
            "GLMix/GLNet", "glnet_4g", 27_001_593, 4_482_122_752, (224, 224), "", None, 83.7, "official repository's README", ("27", "4.5")
        ),
        Variant("GLMix/GLNet", "glnet_9g", 60_010_617, 9_588_155_904, (224, 224), "", None, 84.5, "official repository's README"),
        Variant("GLMix/GLNet", "glnet_16g", 106_055_161, 16_604_170_240, (224, 224), "", None, 85.0, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return GLNetNet(CONFIGURATIONS[name], num_classes)
