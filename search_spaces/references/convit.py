"""ConViT: gated positional attention in the first ten blocks, then self-attention with a class token."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.tokens import ClassTokenHead, TokenAttention, to_tokens
from search_spaces.mixers.gated_positional import GatedAttention, GatedPositional

LOCAL, DEPTH, PATCH, SIDE = 10, 12, 16, 14
# name: heads of 48 channels
CONFIGURATIONS = {"convit_tiny": 4, "convit_small": 9, "convit_base": 16}


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ConViTNet(nn.Module):
    """Patches with learned positions, twelve blocks, head on the class token. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, heads: int, num_classes: int) -> None:
        super().__init__()
        channels = 48 * heads
        self.class_token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, SIDE * SIDE, channels) * 0.02)
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH)
        self.local = nn.Sequential(*(Block(channels, GatedAttention(channels, heads, (SIDE, SIDE))) for _ in range(LOCAL)))
        self.late = nn.Sequential(*(Block(channels, TokenAttention(channels, heads, bias=False)) for _ in range(DEPTH - LOCAL)))
        self.head = ClassTokenHead(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(to_tokens(self.patches(x)) + self.positions)
        return self.head(self.late(torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)))


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("ConViT", name, params, macs, (224, 224), name, None, top1_pct, f"timm results-imagenet.csv ({name}.fb_in1k)")


@references.register("convit")
class ConViT(ReferenceSystem):
    """ConViT Ti, S and B."""

    source: ClassVar[Source] = GatedPositional.source
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("convit_tiny", 5_710_512, 1_247_750_400, 73.14),
        _variant("convit_small", 27_777_322, 5_736_191_040, 81.412),
        _variant("convit_base", 86_540_040, 17_487_012_864, 82.296),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ConViTNet(CONFIGURATIONS[name], num_classes)
