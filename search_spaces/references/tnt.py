"""TNT: a small transformer among the sub-patches of each patch, inside a transformer of patches."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear

PATCH, SIDE, DEPTH, INNER_HEADS = 16, 14, 12, 4
INNER = 16
"""Sub-patches of a patch, four a side."""
# name: (width of a patch, of a sub-patch, heads of the outer transformer)
CONFIGURATIONS = {"tnt_s_patch16_224": (384, 24, 6), "tnt_b_patch16_224": (640, 40, 10)}


class Attention(nn.Module):
    """Self-attention with a projection for queries and keys and one for values. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key = StackedLinear(channels, channels, parts=2, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        parts = (*self.query_key(x).chunk(2, dim=2), self.value(x))
        q, k, v = (part.reshape(n, tokens, self.heads, c // self.heads).transpose(1, 2) for part in parts)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c))


class Block(nn.Module):
    """The inner transformer's block, its result added to the patches, the outer one's block.

    Shape: pixels (n·patches, 16, inner), tokens (n, 1 + patches, c) -> the same.
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(inner)
        self.attention_in = Attention(inner, INNER_HEADS)
        self.norm_mlp_in = nn.LayerNorm(inner)
        self.mlp_in = TokenPerceptron(inner, 4 * inner, "gelu")
        self.norm1 = nn.LayerNorm(inner * INNER)
        self.join = nn.Linear(inner * INNER, channels, bias=False)
        self.norm2 = nn.LayerNorm(channels)
        self.norm_out = nn.LayerNorm(channels)
        self.attention_out = Attention(channels, heads)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels + self.attention_in(self.norm_in(pixels))
        pixels = pixels + self.mlp_in(self.norm_mlp_in(pixels))
        n, count, _ = tokens.shape
        patches = tokens[:, 1:] + self.norm2(self.join(self.norm1(pixels.reshape(n, count - 1, -1))))
        tokens = torch.cat([tokens[:, :1], patches], dim=1)
        tokens = tokens + self.attention_out(self.norm_out(tokens))
        return pixels, tokens + self.mlp(self.norm_mlp(tokens))


class TNTNet(nn.Module):
    """Sub-patches and patches, twelve blocks, head on the class token. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, channels: int, inner: int, heads: int, num_classes: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + SIDE * SIDE, channels) * 0.02)
        self.inner_positions = nn.Parameter(torch.randn(1, inner, 4, 4) * 0.02)
        self.pixels = nn.Conv2d(3, inner, 7, 4, 3)
        self.norm1 = nn.LayerNorm(inner * INNER)
        self.join = nn.Linear(inner * INNER, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Block(channels, inner, heads) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        patches = x.reshape(n, 3, SIDE, PATCH, SIDE, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(n * SIDE * SIDE, 3, PATCH, PATCH)
        pixels = (self.pixels(patches) + self.inner_positions).flatten(2).transpose(1, 2)
        tokens = self.norm2(self.join(self.norm1(pixels.reshape(n, SIDE * SIDE, -1))))
        tokens = torch.cat([self.class_token.expand(n, -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            pixels, tokens = block(pixels, tokens)
        return self.head(self.norm(tokens)[:, 0])


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("TNT", name, params, macs, (224, 224), name, None, top1_pct, f"timm results-imagenet.csv ({name}.in1k)")


@references.register("tnt")
class TNT(ReferenceSystem):
    """TNT S and B."""

    source: ClassVar[Source] = Source("Transformer in Transformer", "arXiv 2103.00112")
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("tnt_s_patch16_224", 23_768_584, 5_216_875_008, 81.506),
        _variant("tnt_b_patch16_224", 65_428_680, 14_049_082_880, 82.864),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return TNTNet(*CONFIGURATIONS[name], num_classes)
