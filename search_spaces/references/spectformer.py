"""SpectFormer: spectral gating first, attention after; as a plain stack and as a pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.tokens import TokenAttention, to_map, to_tokens
from search_spaces.mixers.spectral import GlobalFilter
from search_spaces.references.gfnet import RESOLUTION, SpectralBlock

EPSILON = 1e-6
SPECTRAL_LAYERS, HEAD_DIM = 4, 32
EXPANSIONS, STRIDES = (8, 8, 4, 4), (4, 8, 16, 32)


@dataclass(frozen=True)
class Plain:
    """A stack at stride 16; heads as in the authors' file, and a divisor of the width for the largest, where 12 is none."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True)
class Pyramid:
    """Four stages; the first two are spectral."""

    stem: int
    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


CONFIGURATIONS: dict[str, Plain | Pyramid] = {
    "spectformer_t": Plain(256, 12, 4),
    "spectformer_xs": Plain(384, 12, 6),
    "spectformer_s": Plain(384, 19, 6),
    "spectformer_b": Plain(512, 19, 8),
    "spectformer_h_s": Pyramid(32, (64, 128, 320, 448), (3, 4, 6, 3)),
    "spectformer_h_b": Pyramid(64, (64, 128, 320, 512), (3, 4, 12, 3)),
    "spectformer_h_l": Pyramid(64, (96, 192, 384, 512), (3, 6, 18, 3)),
}


class AttentionBlock(nn.Module):
    """x + MHSA(LN x), then x + MLP(LN x). (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = TokenAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainNet(nn.Module):
    """Patches with learned positions, spectral then attention blocks, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, plain: Plain, num_classes: int) -> None:
        super().__init__()
        side = RESOLUTION // 16
        self.embed = nn.Conv2d(3, plain.width, 16, 16)
        self.positions = nn.Parameter(torch.randn(1, side, side, plain.width) * 0.02)
        self.spectral = nn.Sequential(*(SpectralBlock(plain.width, side) for _ in range(SPECTRAL_LAYERS)))
        self.attention = nn.Sequential(*(AttentionBlock(plain.width, plain.heads) for _ in range(plain.depth - SPECTRAL_LAYERS)))
        self.norm = nn.LayerNorm(plain.width, eps=EPSILON)
        self.head = nn.Linear(plain.width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spectral(self.embed(x).permute(0, 2, 3, 1) + self.positions)
        return self.head(self.norm(self.attention(x.flatten(1, 2))).mean(1))


class LocalPerceptron(nn.Module):
    """Linear → depthwise 3×3 → GELU → linear, of tokens of a map. (n, h·w, c) -> (n, h·w, c)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        y = to_tokens(self.depthwise(to_map(self.expand(x), height, width)))
        return self.project(F.gelu(y))


class PyramidBlock(nn.Module):
    """x + mixer(LN x), then x + local MLP(LN x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, expansion: int, side: int, *, spectral: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.filter = GlobalFilter(channels, (side, side), "fft") if spectral else None
        self.attention = None if spectral else TokenAttention(channels, channels // HEAD_DIM)
        self.mlp = LocalPerceptron(channels, expansion * channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        tokens = to_tokens(x)
        y = self.norm1(tokens)
        if self.attention is not None:
            y = self.attention(y)
        elif self.filter is not None:
            y = to_tokens(self.filter(to_map(y, height, width)))
        tokens = tokens + y
        return to_map(tokens + self.mlp(self.norm2(tokens), height, width), height, width)


class TokenNorm(nn.LayerNorm):
    """Layer norm of the channels of a map. (n, c, h, w) -> (n, c, h, w)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the method that it overrides
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ClassBlock(nn.Module):
    """Class attention: the first token attends to all, then a perceptron of it. (n, tokens, c) -> (n, 1, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.kv = StackedLinear(channels, channels, parts=2)
        self.q = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        first, y = x[:, :1], self.norm1(x)
        q, k, v = (
            part.view(x.shape[0], part.shape[1], self.heads, HEAD_DIM).transpose(1, 2)
            for part in (self.q(y[:, :1]), *torch.chunk(self.kv(y), 2, dim=2))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(first.shape)
        first = first + self.project(attended)
        return first + self.mlp(self.norm2(first))


class PyramidNet(nn.Module):
    """Convolutional stem, four stages, class attention over the mean and all tokens, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, pyramid: Pyramid, num_classes: int) -> None:
        super().__init__()
        stem, widths = pyramid.stem, pyramid.widths
        layers: list[nn.Module] = [ConvNorm(3, stem, 7, stride=2), nn.ReLU()]
        layers += [ConvNorm(stem, stem, 3), nn.ReLU(), ConvNorm(stem, stem, 3), nn.ReLU()]
        before = stem
        for i, (channels, depth) in enumerate(zip(widths, pyramid.depths, strict=True)):
            layers += [nn.Conv2d(before, channels, 3, 2, 1), TokenNorm(channels)]
            side = RESOLUTION // STRIDES[i]
            layers += [PyramidBlock(channels, EXPANSIONS[i], side, spectral=i < 2) for _ in range(depth)]
            layers += [TokenNorm(channels, eps=EPSILON)] if i < 3 else []
            before = channels
        self.layers = nn.Sequential(*layers)
        self.classify = ClassBlock(before)
        self.norm = nn.LayerNorm(before, eps=EPSILON)
        self.head = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(self.layers(x))
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
        return self.head(self.norm(self.classify(tokens))[:, 0])


@references.register("spectformer")
class SpectFormer(ReferenceSystem):
    """SpectFormer T, XS, S and B, and the pyramids H-S, H-B and H-L without the auxiliary head of token labelling."""

    source: ClassVar[Source] = Source("SpectFormer: Frequency and Attention is what you need in a Vision Transformer", "arXiv 2304.06446")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "SpectFormer",
            "spectformer_t",
            9_158_376,
            1_840_310_272,
            (224, 224),
            "",
            None,
            76.9,
            "repo training log last epoch; heads must be 4 (hard-coded 6 in the file)",
        ),
        Variant("SpectFormer", "spectformer_xs", 20_028_520, 3_993_590_784, (224, 224), "", None, 80.17, "repo training log last epoch"),
        Variant("SpectFormer", "spectformer_s", 32_449_768, 6_627_830_784, (224, 224), "", None, 81.57, "repo training log last epoch"),
        Variant("SpectFormer", "spectformer_b", 57_159_656, 11_560_259_584, (224, 224), "", None, 82.12, "repo training log last epoch"),
        Variant(
            "SpectFormer",
            "spectformer_h_s",
            21_777_928,
            4_043_768_960,
            (224, 224),
            "",
            None,
            84.3,
            "repo README, trained with token labeling (README 22.2/33.1/54.7M, 3.9/6.3/12.7G; +0.4-0.6M aux head)",
        ),
        Variant(
            "SpectFormer",
            "spectformer_h_b",
            32_539_880,
            6_585_846_784,
            (224, 224),
            "",
            None,
            85.0,
            "repo README, trained with token labeling (README 22.2/33.1/54.7M, 3.9/6.3/12.7G; +0.4-0.6M aux head)",
        ),
        Variant(
            "SpectFormer",
            "spectformer_h_l",
            54_162_792,
            13_179_374_592,
            (224, 224),
            "",
            None,
            85.7,
            "repo README, trained with token labeling (README 22.2/33.1/54.7M, 3.9/6.3/12.7G; +0.4-0.6M aux head)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        configuration = CONFIGURATIONS[name]
        if isinstance(configuration, Plain):
            return PlainNet(configuration, num_classes)
        return PyramidNet(configuration, num_classes)
