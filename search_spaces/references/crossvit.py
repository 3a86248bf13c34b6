"""CrossViT: two transformers of different patches, whose class tokens attend to each other's patches."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.tokens import PreNorm, TokenAttention, to_tokens

SIDES = (240, 224)
"""Side of the image that each branch sees, in pixels; the second is resized inside the network."""
PATCHES = (12, 16)
EXPANSION = 3
ROUNDS = 3
# name: (widths of the branches, heads, blocks of the second branch in a round, whether patches are made by three convolutions)
CONFIGURATIONS = {
    "crossvit_9_240": ((128, 256), 4, 3, False),
    "crossvit_15_240": ((192, 384), 6, 5, False),
    "crossvit_15_dagger_240": ((192, 384), 6, 5, True),
}


def embedding(channels: int, patch: int, deep: bool) -> nn.Module:
    """Return what makes the patches of a branch, (n, 3, h, w) -> (n, channels, h / patch, w / patch)."""
    if not deep:
        return nn.Conv2d(3, channels, patch, patch)
    rest = ((3, 3, 0), (3, 1, 1)) if patch == 12 else ((3, 2, 1), (3, 2, 1))
    widths = (channels // 4, channels // 2, channels)
    (k1, s1, p1), (k2, s2, p2) = rest
    return nn.Sequential(
        nn.Conv2d(3, widths[0], 7, 4, 3),
        nn.ReLU(),
        nn.Conv2d(widths[0], widths[1], k1, s1, p1),
        nn.ReLU(),
        nn.Conv2d(widths[1], widths[2], k2, s2, p2),
    )


def block(channels: int, heads: int) -> nn.Module:
    """Return self-attention and perceptron, each after a layer norm, with residuals."""
    return nn.Sequential(
        PreNorm(TokenAttention(channels, heads), channels), PreNorm(TokenPerceptron(channels, EXPANSION * channels, "gelu"), channels)
    )


def projection(channels: int, out: int) -> nn.Module:
    """Return what brings a class token from one branch's width to the other's."""
    return nn.Sequential(nn.LayerNorm(channels, eps=1e-6), nn.GELU(), nn.Linear(channels, out))


class ClassAttention(nn.Module):
    """x₀ + attention of the first token to all of norm(x). (n, tokens, c) -> (n, 1, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.query, self.key, self.value, self.project = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, _, c = x.shape
        y = self.norm(x)
        parts = (self.query(y[:, :1]), self.key(y), self.value(y))
        q, k, v = (part.reshape(n, -1, self.heads, c // self.heads).transpose(1, 2) for part in parts)
        return x[:, :1] + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, 1, c))


class Round(nn.Module):
    """Blocks of each branch, then each class token looks at the other branch. Two (n, tokens, c) -> two of the same."""

    def __init__(self, widths: tuple[int, ...], heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(*(block(w, heads) for _ in range(d))) for w, d in zip(widths, (1, depth), strict=True))
        self.there = nn.ModuleList([projection(widths[0], widths[1]), projection(widths[1], widths[0])])
        self.fusion = nn.ModuleList([ClassAttention(widths[1], heads), ClassAttention(widths[0], heads)])
        self.back = nn.ModuleList([projection(widths[1], widths[0]), projection(widths[0], widths[1])])

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        branches = [self.blocks[0](first), self.blocks[1](second)]
        tokens = [there(branch[:, :1]) for there, branch in zip(self.there, branches, strict=True)]
        outputs = []
        for i in (0, 1):
            mixed = self.fusion[i](torch.cat([tokens[i], branches[1 - i][:, 1:]], dim=1))
            outputs.append(torch.cat([self.back[i](mixed), branches[i][:, 1:]], dim=1))
        return outputs[0], outputs[1]


class CrossViTNet(nn.Module):
    """Two branches, three rounds, the mean of two heads. (n, 3, 240, 240) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], heads: int, depth: int, deep: bool, num_classes: int) -> None:
        super().__init__()
        counts = [(side // patch) ** 2 for side, patch in zip(SIDES, PATCHES, strict=True)]
        self.tokens = nn.ParameterList()
        for width, count in zip(widths, counts, strict=True):  # positions, then the class token, of each branch
            self.tokens += [nn.Parameter(torch.randn(1, 1 + count, width) * 0.02), nn.Parameter(torch.randn(1, 1, width) * 0.02)]
        self.embeddings = nn.ModuleList(embedding(width, patch, deep) for width, patch in zip(widths, PATCHES, strict=True))
        self.rounds = nn.ModuleList(Round(widths, heads, depth) for _ in range(ROUNDS))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths)
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        tokens = []
        for i, (embed, side) in enumerate(zip(self.embeddings, SIDES, strict=True)):
            resized = x if x.shape[2] == side else F.interpolate(x, size=(side, side), mode="bicubic", align_corners=False)
            first = self.tokens[2 * i + 1].expand(x.shape[0], -1, -1)
            tokens.append(torch.cat([first, to_tokens(embed(resized))], dim=1) + self.tokens[2 * i])
        first, second = tokens
        for exchange in self.rounds:
            first, second = exchange(first, second)
        scores = [head(norm(y)[:, 0]) for head, norm, y in zip(self.heads, self.norms, (first, second), strict=True)]
        return (scores[0] + scores[1]) * 0.5


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("CrossViT", name, params, macs, (240, 240), name, None, top1_pct, f"timm results-imagenet.csv ({name}.in1k)")


@references.register("crossvit")
class CrossViT(ReferenceSystem):
    """CrossViT-9, -15 and -15†."""

    source: ClassVar[Source] = Source(
        "CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification", "arXiv 2103.14899"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("crossvit_9_240", 8_553_296, 1_840_796_160, 73.994),
        _variant("crossvit_15_240", 27_528_464, 5_790_571_776, 81.522),
        _variant("crossvit_15_dagger_240", 28_209_008, 6_112_304_640, 82.3),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return CrossViTNet(*CONFIGURATIONS[name], num_classes)
