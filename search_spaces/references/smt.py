"""SMT: scale-aware modulation early, self-attention late, both in turn between."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.mixers.scale_aware import ScaleAware, ScaleAwareModulation

WIDTHS = (64, 128, 256, 512)
HEADS = (0, 0, 8, 16)
"""Heads of self-attention by stage; modulation alone in the first two."""
SIZES = 4
# name: (depths, perceptron's expansion by stage, kernel of the first convolution)
CONFIGURATIONS = {
    "smt_t": ((2, 2, 8, 1), (4, 4, 4, 2), 3),
    "smt_s": ((3, 4, 18, 2), (4, 4, 4, 2), 3),
    "smt_b": ((4, 6, 28, 2), (8, 6, 4, 2), 7),
}


class LocalValueAttention(nn.Module):
    """Self-attention plus a depthwise 3 × 3 of the values. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = StackedLinear(channels, channels, parts=2)
        self.project = nn.Linear(channels, channels)
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = to_tokens(x)
        k, value = self.key_value(tokens).chunk(2, dim=2)
        q, k, v = (part.reshape(n, h * w, self.heads, -1).transpose(1, 2) for part in (self.query(tokens), k, value))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return to_map(self.project(y + to_tokens(self.near(to_map(value, h, w)))), h, w)


class DepthwisePerceptron(nn.Module):
    """PW → GELU(y + DW3 y) → PW. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        return self.project(F.gelu(y + self.near(y)))


class Block(nn.Module):
    """Mixer and perceptron, each after a layer norm, with residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, mixer: nn.Module, expansion: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.mixer = mixer
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.mlp = DepthwisePerceptron(channels, expansion * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SMTNet(nn.Module):
    """Convolutional stem, four stages, each with a norm at its end, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, depths: tuple[int, ...], expansions: tuple[int, ...], kernel: int, num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            if stage:
                stages += [nn.Conv2d(WIDTHS[stage - 1], width, 3, 2, 1)]
            else:
                stages += [nn.Conv2d(3, width, kernel, 2, kernel // 2), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 2, 2)]
            stages.append(LayerNorm2d(width, eps=1e-6 if stage == 0 else 1e-5))
            for i in range(depth):
                attends = HEADS[stage] and (stage == 3 or i % 2 == 1)
                mixer = LocalValueAttention(width, HEADS[stage]) if attends else ScaleAwareModulation(width, SIZES, 2)
                stages.append(Block(width, mixer, expansions[stage]))
            stages.append(LayerNorm2d(width, eps=1e-6))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean((2, 3)))


@references.register("smt")
class SMT(ReferenceSystem):
    """SMT T, S and B."""

    source: ClassVar[Source] = ScaleAware.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("SMT", "smt_t", 11_506_600, 2_461_268_480, (224, 224), "", None, 82.2, "official repository's README"),
        Variant("SMT", "smt_s", 22_551_016, 4_838_833_152, (224, 224), "", None, 83.7, "official repository's README"),
        Variant("SMT", "smt_b", 32_037_416, 7_965_901_824, (224, 224), "", None, 84.3, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SMTNet(*CONFIGURATIONS[name], num_classes)
