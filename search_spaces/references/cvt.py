"""CvT: overlapping embeddings and attention from convolutional projections, a class token in the last stage."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.mixers.conv_projection import ConvProjection

WIDTHS = (64, 192, 384)
HEADS = (1, 3, 6)
STRIDE = 2
"""Of keys and values."""
# name: depths
CONFIGURATIONS = {"cvt_13": (1, 2, 10), "cvt_21": (1, 4, 16)}


class TokenProjection(nn.Module):
    """Depthwise 3 × 3 with batch norm of the map; tokens in front of it pass. (n, extra + h·w, c) -> (n, extra + h'·w', c)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.near = ConvNorm(channels, channels, 3, stride=stride, groups=channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        extra = x.shape[1] - height * width
        tokens = to_tokens(self.near(to_map(x[:, extra:], height, width)))
        return torch.cat([x[:, :extra], tokens], dim=1) if extra else tokens


class Attention(nn.Module):
    """Attention of tokens. (n, extra + h·w, c), h, w -> (n, extra + h·w, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.near = nn.ModuleList(TokenProjection(channels, stride) for stride in (1, STRIDE, STRIDE))
        self.points = nn.ModuleList(nn.Linear(channels, channels) for _ in range(3))
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        n, tokens, c = x.shape
        maps = [point(near(x, height, width)) for near, point in zip(self.near, self.points, strict=True)]
        q, k, v = (part.reshape(n, -1, self.heads, c // self.heads).transpose(1, 2) for part in maps)
        y = F.scaled_dot_product_attention(q, k, v, scale=c**-0.5)
        return self.project(y.transpose(1, 2).reshape(n, tokens, c))


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, tokens, c), h, w -> (n, tokens, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.attention(self.norm1(x), height, width)
        return x + self.mlp(self.norm2(x))


class CvTNet(nn.Module):
    """Three stages and a head on the class token. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Conv2d(before, width, 7 if before == 3 else 3, 4 if before == 3 else 2, 2 if before == 3 else 1)
            for before, width in zip((3, *WIDTHS), WIDTHS, strict=False)
        )
        self.embedding_norms = nn.ModuleList(nn.LayerNorm(width) for width in WIDTHS)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTHS[-1]) * 0.02)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(width, heads) for _ in range(depth)) for width, heads, depth in zip(WIDTHS, HEADS, depths, strict=True)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        last = len(WIDTHS) - 1
        for i, (embedding, norm, blocks) in enumerate(zip(self.embeddings, self.embedding_norms, self.stages, strict=True)):
            x = embedding(x)
            height, width = x.shape[2:]
            x = norm(to_tokens(x))
            if i == last:
                x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, height, width)
            x = x if i == last else to_map(x, height, width)
        return self.head(self.norm(x)[:, 0])


@references.register("cvt")
class CvT(ReferenceSystem):
    """CvT-13 and CvT-21: 20 and 32 million parameters as printed; our MACs, 4.57 and 7.18 billion, are .8 % above the paper's 4.53 and 7.13."""

    source: ClassVar[Source] = ConvProjection.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("CvT", "cvt_13", 19_997_480, 4_566_089_216, (224, 224), "", None, 81.6, "official repository's README"),
        Variant("CvT", "cvt_21", 31_622_696, 7_177_985_024, (224, 224), "", None, 82.5, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return CvTNet(CONFIGURATIONS[name], num_classes)
