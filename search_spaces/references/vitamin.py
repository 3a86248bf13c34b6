"""ViTamin: two stages of inverted residuals with layer norms, then a plain transformer with gated perceptrons."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import PreNorm, TokenAttention, to_tokens

DEPTHS = (2, 4, 14)
SIDE = 14
# name: (widths of the three stages, heads)
CONFIGURATIONS = {"vitamin_small_224": ((64, 128, 384), 6), "vitamin_base_224": ((128, 256, 768), 12)}


class InvertedResidual(nn.Module):
    """PW(GELU(DW3(GELU(PW(LN(x)))))), with a pooled shortcut where it halves the map. (n, c, h, w) -> (n, c', h', w')."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else None
        self.norm = LayerNorm2d(channels, eps=1e-6)
        self.expand = nn.Conv2d(channels, 4 * out, 1)
        self.depthwise = nn.Conv2d(4 * out, 4 * out, 3, stride, 1, groups=4 * out)
        self.project = nn.Conv2d(4 * out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.gelu(self.depthwise(F.gelu(self.expand(self.norm(x))))))
        if self.stride == 2:
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return y + (x if self.shortcut is None else self.shortcut(x))


class GatedPerceptron(nn.Module):
    """W₂(GELU(W₀ y) ⊙ W₁ y) with y = LN(x). (…, c) -> (…, c)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.gate = nn.Linear(channels, hidden)
        self.value = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.project(F.gelu(self.gate(y)) * self.value(y))


class ViTaminNet(nn.Module):
    """Stem, three stages, mean of the tokens, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], heads: int, num_classes: int) -> None:
        super().__init__()
        first, second, last = widths
        self.positions = nn.Parameter(torch.randn(1, SIDE * SIDE, last) * 0.02)
        self.stem = nn.Sequential(nn.Conv2d(3, first, 3, 2, 1), LayerNorm2d(first, eps=1e-6), nn.GELU(), nn.Conv2d(first, first, 3, 1, 1))
        stages = [InvertedResidual(first, first, 2 if i == 0 else 1) for i in range(DEPTHS[0])]
        stages += [InvertedResidual(second if i else first, second, 1 if i else 2) for i in range(DEPTHS[1])]
        self.stages = nn.Sequential(*stages)
        self.embedding = nn.Conv2d(second, last, 3, 2, 1)
        self.embedding_norm = LayerNorm2d(second, eps=1e-6)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(PreNorm(TokenAttention(last, heads), last), PreNorm(GatedPerceptron(last, 2 * last), last))
                for _ in range(DEPTHS[2])
            )
        )
        self.norm = nn.LayerNorm(last, eps=1e-6)
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(self.embedding_norm(self.stages(self.stem(x))))
        return self.head(self.norm(self.blocks(to_tokens(x) + self.positions).mean(1)))


@references.register("vitamin")
class ViTamin(ReferenceSystem):
    """ViTamin S and B; their published weights are those of CLIP, without a top-1 on ImageNet-1k."""

    source: ClassVar[Source] = Source("ViTamin: Designing Scalable Vision Models in the Vision-Language Era", "arXiv 2404.02132")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("ViTamin", "vitamin_small_224", 22_262_696, 5_887_835_136, (224, 224), "vitamin_small_224", source="no top-1 is published"),
        Variant("ViTamin", "vitamin_base_224", 87_901_032, 22_623_320_064, (224, 224), "vitamin_base_224", source="no top-1 is published"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ViTaminNet(*CONFIGURATIONS[name], num_classes)
