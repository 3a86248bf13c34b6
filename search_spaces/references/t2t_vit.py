"""T2T-ViT: tokens made step by step from overlapping patches, then a deep and narrow transformer."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.tokens import ClassTokenHead, PreNorm, TokenAttention

Kind = Literal["performer", "transformer"]
INNER = 64
"""Width of the transformers between the splits."""
FEATURES = 32
"""Random features of the performer."""
EPSILON = 1e-8
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
"""Kernel, stride and padding of each soft split."""
SIDE = 14
# name: (width, depth, heads, what stands between the splits, expansion of the perceptrons)
CONFIGURATIONS: dict[str, tuple[int, int, int, Kind, int]] = {
    "t2t_vit_7": (256, 7, 4, "performer", 2),
    "t2t_vit_10": (256, 10, 4, "performer", 2),
    "t2t_vit_12": (256, 12, 4, "performer", 2),
    "t2t_vit_14": (384, 14, 6, "performer", 3),
    "t2t_vit_19": (448, 19, 7, "performer", 3),
    "t2t_vit_24": (512, 24, 8, "performer", 3),
    "t2t_vit_t_14": (384, 14, 6, "transformer", 3),
    "t2t_vit_t_19": (448, 19, 7, "transformer", 3),
    "t2t_vit_t_24": (512, 24, 8, "transformer", 3),
}


class TokenPerformer(nn.Module):
    """Attention by random positive features, the values added, then a perceptron. (n, tokens, c) -> (n, tokens, 64).

    Source: Choromanski et al., Rethinking Attention with Performers, arXiv 2009.14794.
    """

    features: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kqv = StackedLinear(channels, INNER, parts=3)
        self.project = nn.Linear(INNER, INNER)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(INNER)
        self.mlp = TokenPerceptron(INNER, INNER, "gelu")
        draws = nn.init.orthogonal_(torch.empty(INNER, FEATURES)).T * math.sqrt(FEATURES)
        self.features = nn.Parameter(draws.contiguous(), requires_grad=False)

    def _positive(self, x: Tensor) -> Tensor:
        return torch.exp(x @ self.features.T - x.square().sum(2, keepdim=True) / 2) / math.sqrt(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=2)
        k, q = self._positive(k), self._positive(q)
        below = q @ k.sum(1).unsqueeze(2)
        y = v + self.project(q @ (k.transpose(1, 2) @ v) / (below + EPSILON))
        return y + self.mlp(self.norm2(y))


class TokenTransformer(nn.Module):
    """Attention with one head of 64, the values added, then a perceptron. (n, tokens, c) -> (n, tokens, 64)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = StackedLinear(channels, INNER, parts=3, bias=False)
        self.project = nn.Linear(INNER, INNER)
        self.norm2 = nn.LayerNorm(INNER)
        self.mlp = TokenPerceptron(INNER, INNER, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=2)
        y = v + self.project(F.scaled_dot_product_attention(q, k, v, scale=x.shape[2] ** -0.5))
        return y + self.mlp(self.norm2(y))


class TokensToTokens(nn.Module):
    """Three soft splits with a transformer between them. (n, 3, h, w) -> (n, h·w / 256, c)."""

    def __init__(self, channels: int, kind: Kind) -> None:
        super().__init__()
        body = TokenPerformer if kind == "performer" else TokenTransformer
        first, second, third = (k * k for k, _, _ in SPLITS)
        self.first, self.second = body(3 * first), body(INNER * second)
        self.project = nn.Linear(INNER * third, channels)

    def forward(self, x: Tensor) -> Tensor:
        for split, body in zip(SPLITS, (self.first, self.second, None), strict=True):
            kernel, stride, padding = split
            side = (x.shape[2] + 2 * padding - kernel) // stride + 1
            tokens = overlapping_patches(F.pad(x, (padding,) * 4), kernel, stride, side)
            if body is None:
                return self.project(tokens)
            x = body(tokens).transpose(1, 2).reshape(x.shape[0], INNER, side, side)
        raise AssertionError


class T2TNet(nn.Module):
    """Tokens, fixed positions, blocks, head on the class token. (n, 3, 224, 224) -> (n, num_classes)."""

    positions: Tensor

    def __init__(self, channels: int, depth: int, heads: int, kind: Kind, expansion: int, num_classes: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.positions = nn.Parameter(sinusoids(1 + SIDE * SIDE, channels), requires_grad=False)
        self.tokens = TokensToTokens(channels, kind)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    PreNorm(TokenAttention(channels, heads, bias=False), channels),
                    PreNorm(TokenPerceptron(channels, expansion * channels, "gelu"), channels),
                )
                for _ in range(depth)
            )
        )
        self.head = ClassTokenHead(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        return self.head(self.blocks(torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.positions))


def overlapping_patches(x: Tensor, kernel: int, stride: int, side: int) -> Tensor:
    """Return the patches of a padded map as tokens, by slices: many NPUs lack an unfold. (n, c, h, w) -> (n, side², c·kernel²)."""
    n, c = x.shape[:2]
    reach = stride * (side - 1) + 1
    parts = [x[:, :, i : i + reach : stride, j : j + reach : stride] for i in range(kernel) for j in range(kernel)]
    columns = torch.cat([part.reshape(n, c, 1, side * side) for part in parts], dim=2)
    return columns.reshape(n, c * kernel * kernel, side * side).transpose(1, 2)


def sinusoids(count: int, channels: int) -> Tensor:
    """Return fixed positions (1, count, channels), a sine and a cosine for each rate."""
    angle = torch.arange(count).view(-1, 1) / 10_000 ** (torch.arange(channels) // 2 * 2 / channels)
    return torch.where(torch.arange(channels) % 2 == 0, angle.sin(), angle.cos())[None]


def _variant(name: str, params: int, macs: int, top1_pct: float, printed: tuple[str, str] | None) -> Variant:
    return Variant("T2T-ViT", name, params, macs, (224, 224), "", None, top1_pct, "official repository's README", printed)


@references.register("t2t-vit")
class T2TViT(ReferenceSystem):
    """T2T-ViT with performers, T2T-ViTt with transformers; counts within the README's rounding, but for the 13.8 billion of -24 (here 13.7)."""

    source: ClassVar[Source] = Source("Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet", "arXiv 2101.11986")
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("t2t_vit_7", 4_310_222, 1_146_863_616, 71.7, ("4.3", "1.1")),
        _variant("t2t_vit_10", 5_889_230, 1_516_328_448, 75.2, ("5.9", "1.5")),
        _variant("t2t_vit_12", 6_941_902, 1_762_638_336, 76.5, ("6.9", "1.8")),
        _variant("t2t_vit_14", 21_545_550, 4_783_468_544, 81.5, ("21.5", "4.8")),
        _variant("t2t_vit_19", 39_177_422, 8_479_682_176, 81.9, ("39.2", "8.5")),
        _variant("t2t_vit_24", 64_105_934, 13_661_874_688, 82.3, None),
        _variant("t2t_vit_t_14", 21_541_070, 6_088_721_920, 81.7, ("21.5", "6.1")),
        _variant("t2t_vit_t_19", 39_172_942, 9_784_935_552, 82.4, ("39.2", "9.8")),
        _variant("t2t_vit_t_24", 64_101_454, 14_967_128_064, 82.6, ("64.1", "15.0")),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return T2TNet(*CONFIGURATIONS[name], num_classes)
