"""Pyramid Vision Transformer, both versions: full queries, keys and values of a reduced map."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.tokens import to_map, to_tokens

Version = Literal["v1", "v2", "v2-linear"]
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EXPANSIONS = (8, 8, 4, 4)
POOL = 7
"""Side of the map of keys and values in the linear variant."""

_WIDTHS = (64, 128, 320, 512)
# name: (depths, widths, version)
CONFIGURATIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Version]] = {
    "pvt_tiny": ((2, 2, 2, 2), _WIDTHS, "v1"),
    "pvt_small": ((3, 4, 6, 3), _WIDTHS, "v1"),
    "pvt_medium": ((3, 4, 18, 3), _WIDTHS, "v1"),
    "pvt_large": ((3, 8, 27, 3), _WIDTHS, "v1"),
    "pvt_v2_b0": ((2, 2, 2, 2), (32, 64, 160, 256), "v2"),
    "pvt_v2_b1": ((2, 2, 2, 2), _WIDTHS, "v2"),
    "pvt_v2_b2": ((3, 4, 6, 3), _WIDTHS, "v2"),
    "pvt_v2_b2_li": ((3, 4, 6, 3), _WIDTHS, "v2-linear"),
    "pvt_v2_b3": ((3, 4, 18, 3), _WIDTHS, "v2"),
}


class ReducedAttention(nn.Module):
    """Attention of tokens to a reduced map of them. (n, h·w or more, c), h, w -> (n, h·w or more, c)."""

    def __init__(self, channels: int, heads: int, reduction: int, linear: bool) -> None:
        super().__init__()
        self.heads, self.linear = heads, linear
        self.query = nn.Linear(channels, channels)
        self.key_value = StackedLinear(channels, channels, parts=2)
        self.project = nn.Linear(channels, channels)
        self.reduce: nn.Module | None = None
        if linear or reduction > 1:
            size = 1 if linear else reduction
            self.reduce = nn.Conv2d(channels, channels, size, size)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        n, tokens, c = x.shape
        source = x
        if self.reduce is not None:
            source = to_map(source, height, width)
            source = self.norm(to_tokens(self.reduce(F.adaptive_avg_pool2d(source, POOL) if self.linear else source)))
            source = F.gelu(source) if self.linear else source
        k, v = self.key_value(source).chunk(2, dim=2)
        q, k, v = (part.reshape(n, -1, self.heads, c // self.heads).transpose(1, 2) for part in (self.query(x), k, v))
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c))


class DepthwisePerceptron(nn.Module):
    """PW → [ReLU →] DW3 → GELU → PW, of tokens. (n, h·w, c), h, w -> (n, h·w, c)."""

    def __init__(self, channels: int, hidden: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = to_map(self.expand(x), height, width)
        x = to_tokens(self.depthwise(torch.relu(x) if self.linear else x))
        return self.project(F.gelu(x))


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, tokens, c), h, w -> (n, tokens, c)."""

    def __init__(self, channels: int, stage: int, version: Version) -> None:
        super().__init__()
        linear, hidden = version == "v2-linear", EXPANSIONS[stage] * channels
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = ReducedAttention(channels, HEADS[stage], REDUCTIONS[stage], linear)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        first = version == "v1"
        self.mlp = TokenPerceptron(channels, hidden, "gelu") if first else DepthwisePerceptron(channels, hidden, linear)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.attention(self.norm1(x), height, width)
        y = self.norm2(x)
        return x + (self.mlp(y) if isinstance(self.mlp, TokenPerceptron) else self.mlp(y, height, width))


class Stage(nn.Module):
    """Embedding of patches, then blocks. (n, c, h, w) -> (n, c', h / stride, w / stride), or tokens after the last of version 1.

    Args:
        channels: Of the input.
        out: Of the output.
        stage: Index, from 0.
        depth: Number of blocks.
        version: 1 has positions and patches side by side, 2 overlapping patches and a norm after the blocks.
    """

    def __init__(self, channels: int, out: int, stage: int, depth: int, version: Version) -> None:
        super().__init__()
        stride = 2 if stage else 4
        self.last = version == "v1" and stage == 3
        self.positions: nn.Parameter | None = None
        self.class_token: nn.Parameter | None = None
        if version == "v1":
            self.positions = nn.Parameter(torch.randn(1, (224 >> stage + 2) ** 2 + self.last, out) * 0.02)
        if self.last:
            self.class_token = nn.Parameter(torch.randn(1, 1, out) * 0.02)
        kernel, pad = (stride, 0) if version == "v1" else (7, 3) if stage == 0 else (3, 1)
        self.embedding = nn.Conv2d(channels, out, kernel, stride, pad)
        self.embedding_norm = nn.LayerNorm(out)
        self.blocks = nn.ModuleList(Block(out, stage, version) for _ in range(depth))
        self.norm = nn.LayerNorm(out, eps=1e-6) if version != "v1" or self.last else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        height, width = x.shape[2:]
        x = self.embedding_norm(to_tokens(x))
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.positions is not None:
            x = x + self.positions
        for block in self.blocks:
            x = block(x, height, width)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.last else to_map(x, height, width)


class PVTNet(nn.Module):
    """Four stages and a head, on a class token in version 1. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], version: Version, num_classes: int) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.stages = nn.Sequential(*(Stage(inputs[i], widths[i], i, depths[i], version) for i in range(4)))
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        return self.head(x[:, 0] if x.ndim == 3 else x.mean((2, 3)))


@references.register("pvt")
class PVT(ReferenceSystem):
    """PVT Tiny to Large, PVT v2 B0 to B3 and B2-Li."""

    source: ClassVar[Source] = Source(
        "Pyramid Vision Transformer", "arXiv 2102.12122; v2: arXiv 2106.13797", "positions of version 1 are those of 224 × 224, not resized"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("PVT v1", "pvt_tiny", 13_229_288, 1_932_911_616, (224, 224), "", None, 75.1, "official repository's README"),
        Variant("PVT v1", "pvt_small", 24_485_864, 3_815_701_504, (224, 224), "", None, 79.8, "official repository's README"),
        Variant("PVT v1", "pvt_medium", 44_208_104, 6_659_175_424, (224, 224), "", None, 81.2, "official repository's README"),
        Variant("PVT v1", "pvt_large", 61_369_320, 9_813_765_632, (224, 224), "", None, 81.7, "official repository's README"),
        Variant(
            "PVT v2",
            "pvt_v2_b0",
            3_666_760,
            566_065_664,
            (224, 224),
            "pvt_v2_b0",
            None,
            70.654,
            "timm results-imagenet.csv (pvt_v2_b0.in1k)",
        ),
        Variant(
            "PVT v2",
            "pvt_v2_b1",
            14_009_000,
            2_108_355_584,
            (224, 224),
            "pvt_v2_b1",
            None,
            78.698,
            "timm results-imagenet.csv (pvt_v2_b1.in1k)",
        ),
        Variant(
            "PVT v2",
            "pvt_v2_b2",
            25_362_856,
            4_026_734_592,
            (224, 224),
            "pvt_v2_b2",
            None,
            82.062,
            "timm results-imagenet.csv (pvt_v2_b2.in1k)",
        ),
        Variant(
            "PVT v2",
            "pvt_v2_b2_li",
            22_553_512,
            3_888_850_944,
            (224, 224),
            "pvt_v2_b2_li",
            None,
            82.2,
            "timm results-imagenet.csv (pvt_v2_b2_li.in1k)",
        ),
        Variant(
            "PVT v2",
            "pvt_v2_b3",
            45_238_696,
            6_897_303_552,
            (224, 224),
            "pvt_v2_b3",
            None,
            83.12,
            "timm results-imagenet.csv (pvt_v2_b3.in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return PVTNet(*CONFIGURATIONS[name], num_classes)
