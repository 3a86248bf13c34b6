"""SOFT: three stages of attention by a Gaussian of distances through a few bottleneck tokens, then attention by softmax."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.mixers.soft import SOFT, kernel

HEAD_DIM, STEM, SIDE, ITERATIONS = 32, 32, 224, 20
SMALLEST = 7
"""Bottleneck tokens along a side."""

CONVOLUTIONS = (9, 5, 3)
"""Kernel of the convolution of the values in each stage, one filter a head."""

# name: width of the third stage, depths
CONFIGURATIONS = {
    "soft_tiny": (320, (1, 2, 3, 2)),
    "soft_medium": (288, (1, 3, 29, 5)),
    "soft_large": (320, (1, 3, 40, 5)),
    "soft_huge": (352, (1, 5, 49, 5)),
}


def inverse(a: Tensor) -> Tensor:
    """Return Newton's approximation to the inverse of symmetric matrices (…, m, m), from 2·A / |A|₁²."""
    x = a * (2 / a.sum(-1).amax((-2, -1), keepdim=True).unsqueeze(-1) ** 2)
    for _ in range(ITERATIONS):
        x = 2 * x - x @ a @ x
    return x


class GaussianAttention(nn.Module):
    """P·A⁻¹·(Pᵀ·v) + DW(v) with P = κ(q, b), A = κ(b, b); b is a strided convolution of q. (n, h·w, c) -> (n, h·w, c).

    Args:
        channels: c.
        side: h and w.
        convolution: Odd kernel of the filters of the values.
    """

    def __init__(self, channels: int, side: int, convolution: int) -> None:
        super().__init__()
        self.heads, self.side = channels // HEAD_DIM, side
        reduction = side // SMALLEST
        self.query, self.value = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.landmarks = nn.Conv2d(HEAD_DIM, HEAD_DIM, reduction, reduction, bias=False)
        self.norm = nn.LayerNorm(HEAD_DIM)
        self.near = nn.Conv2d(self.heads, self.heads, convolution, padding=convolution // 2, bias=False, groups=self.heads)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, positions, c = x.shape
        q, v = (part(x).reshape(n, positions, self.heads, HEAD_DIM).transpose(1, 2) for part in (self.query, self.value))
        q = q * HEAD_DIM**-0.25
        grid = q.reshape(n * self.heads, self.side, self.side, HEAD_DIM).permute(0, 3, 1, 2)
        b = F.gelu(self.norm(to_tokens(self.landmarks(grid)))).reshape(n, self.heads, -1, HEAD_DIM)
        p = kernel(q, b)
        y = p @ inverse(kernel(b, b)) @ (p.transpose(2, 3) @ v)
        maps = v.reshape(n, self.heads, self.side, self.side, HEAD_DIM).permute(0, 4, 1, 2, 3)
        near = self.near(maps.reshape(n * HEAD_DIM, self.heads, self.side, self.side))
        y = y + near.reshape(n, HEAD_DIM, self.heads, positions).permute(0, 2, 3, 1)
        return self.project(y.transpose(1, 2).reshape(n, positions, c))


class SoftBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + MLP(x)). (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, side: int, convolution: int) -> None:
        super().__init__()
        self.attention = GaussianAttention(channels, side, convolution)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        self.mlp.act = nn.GELU("tanh")
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class PlainBlock(nn.Module):
    """x + attention(norm x), then x + MLP(norm x). (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.query = nn.Linear(channels, channels)
        self.key_value = StackedLinear(channels, channels, parts=2)
        self.project = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        y = self.norm1(x)
        k, v = self.key_value(y).chunk(2, dim=2)
        q, k, v = (part.reshape(n, tokens, self.heads, HEAD_DIM).transpose(1, 2) for part in (self.query(y), k, v))
        x = x + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c))
        return x + self.mlp(self.norm2(x))


class Stage(nn.Module):
    """A strided stem with positions, then blocks. (n, c, h, w) -> (n, c', h', w'), or tokens after the last.

    Args:
        channels: c.
        out: c'.
        stage: Index, from 0.
        depth: Number of blocks.
    """

    def __init__(self, channels: int, out: int, stage: int, depth: int) -> None:
        super().__init__()
        self.side, self.last = SIDE >> stage + 2, stage == 3
        self.positions = nn.Parameter(torch.randn(1, self.side**2 + self.last, out) * 0.02)
        self.token = nn.Parameter(torch.randn(1, 1, out) * 0.02) if self.last else None
        steps = [(channels, out, 2)] if stage else [(3, STEM, 2), (STEM, STEM, 1), (STEM, out, 2)]
        layers = [layer for a, b, stride in steps for layer in (nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())]
        self.embedding = nn.Sequential(*layers)
        blocks = [PlainBlock(out) if self.last else SoftBlock(out, self.side, CONVOLUTIONS[stage]) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(self.embedding(x))
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.blocks(x + self.positions)
        return x if self.last else to_map(x, self.side, self.side)


class SOFTNet(nn.Module):
    """Four stages, norm and head of the class token. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, third: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        widths = (64, 128, third, 512)
        self.stages = nn.Sequential(*(Stage((3, *widths)[i], widths[i], i, depths[i]) for i in range(4)))
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x))[:, 0])


@references.register("soft")
class SOFTs(ReferenceSystem):
    """SOFT Tiny to Huge."""

    source: ClassVar[Source] = Source(
        SOFT.source.title, "arXiv 2110.11945, github.com/fudan-zvg/SOFT", "the start of the iteration is not halved where it diverges"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("SOFT", "soft_tiny", 13_069_056, 2_157_019_192, (224, 224), "", None, 79.3, "official repository's README"),
        Variant("SOFT", "soft_medium", 45_812_707, 8_820_116_332, (224, 224), "", None, 82.9, "official repository's README"),
        Variant("SOFT", "soft_large", 64_700_646, 13_373_673_200, (224, 224), "", None, 83.1, "official repository's README"),
        Variant("SOFT", "soft_huge", 87_108_273, 18_917_839_156, (224, 224), "", None, 83.3, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SOFTNet(*CONFIGURATIONS[name], num_classes)
