"""TransNeXt: aggregated attention in three stages, attention of the whole map in the fourth, convolutional gated units."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.mixers.swin_v2 import unit
from search_spaces.mixers.transnext import TEMPERATURE, AggregatedAttention, PlacesBias
from search_spaces.mixers.transnext import TransNeXt as Family

SIDE = 224
REDUCTIONS = (8, 4, 2, 1)
EXPANSIONS = (8, 8, 4, 4)
HEAD_DIM = 24
# name: width of the first stage, depths
CONFIGURATIONS = {
    "transnext_micro": (48, (2, 2, 15, 2)),
    "transnext_tiny": (72, (2, 2, 15, 2)),
    "transnext_small": (72, (5, 5, 22, 5)),
    "transnext_base": (96, (5, 5, 23, 5)),
}


class CosineAttention(nn.Module):
    """softmax((cos + learned query)·temperature·log(keys) + bias by places)·v of the whole map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int, resolution: Resolution) -> None:
        super().__init__()
        self.heads, self.log_keys = heads, math.log(math.prod(resolution))
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(math.exp(TEMPERATURE) - 1)))
        self.query_embedding = nn.Parameter(torch.randn(heads, 1, channels // heads) * 0.02)
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)
        self.places = PlacesBias(resolution, 1, heads)

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return the scale of queries, (heads, 1, 1), and what is added to the logits, (heads, positions, positions)."""
        return F.softplus(self.temperature) * self.log_keys, self.places()

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, *self.constants())

    def fuse(self) -> nn.Module:
        """Return the form whose scale and bias are constants."""
        return BakedCosineAttention(self)


class BakedCosineAttention(nn.Module):
    """`CosineAttention` with constant scale and bias. (n, c, h, w) -> (n, c, h, w)."""

    scale: Tensor
    bias: Tensor

    def __init__(self, trained: CosineAttention) -> None:
        super().__init__()
        self.heads = trained.heads
        self.query_embedding, self.qkv, self.project = trained.query_embedding, trained.qkv, trained.project
        for name, value in zip(("scale", "bias"), trained.constants(), strict=True):
            self.register_buffer(name, value.detach())

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, self.scale, self.bias)


def _attend(owner: CosineAttention | BakedCosineAttention, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    n, c, h, w = x.shape
    q, k, v = owner.qkv(to_tokens(x)).reshape(n, h * w, 3 * owner.heads, -1).transpose(1, 2).chunk(3, dim=1)
    logits = ((unit(q) + owner.query_embedding) * scale) @ unit(k).transpose(2, 3) + bias
    y = (logits.softmax(dim=3) @ v).transpose(1, 2).reshape(n, h * w, c)
    return to_map(owner.project(y), h, w)


class ConvGLU(nn.Module):
    """PW(GELU(DW3(PW x)) ⊙ PW x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * hidden, 1)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=1)
        return self.project(F.gelu(self.near(gate)) * value)


class Block(nn.Module):
    """Attention and gated unit, each after a norm, with residuals. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, side: int, stage: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (LayerNorm2d(channels, eps=1e-6) for _ in range(2))
        heads, reduction, size = channels // HEAD_DIM, REDUCTIONS[stage], (side, side)
        self.attention = CosineAttention(channels, heads, size) if reduction == 1 else AggregatedAttention(channels, heads, size, reduction)
        self.unit = ConvGLU(channels, 2 * EXPANSIONS[stage] * channels // 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.unit(self.norm2(x))


class TransNeXtNet(nn.Module):
    """Four stages of an overlapping convolution, blocks and a norm; head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for stage, depth in enumerate(depths):
            out, side = width * 2**stage, SIDE // 2 ** (stage + 2)
            kernel, stride = (3, 2) if stage else (7, 4)
            stages += [nn.Conv2d(channels, out, kernel, stride, kernel // 2), LayerNorm2d(out)]
            stages += [Block(out, side, stage) for _ in range(depth)]
            stages.append(LayerNorm2d(out, eps=1e-6))
            channels = out
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x).mean((2, 3)))


@references.register("transnext")
class TransNeXts(ReferenceSystem):
    """TransNeXt Micro, Tiny, Small and Base."""

    source: ClassVar[Source] = Family.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("TransNeXt", "transnext_micro", 12_809_304, 2_532_603_648, (SIDE, SIDE), "", None, 82.5, "official repository's README"),
        Variant("TransNeXt", "transnext_tiny", 28_258_960, 5_556_357_504, (SIDE, SIDE), "", None, 84.0, "official repository's README"),
        Variant("TransNeXt", "transnext_small", 49_741_564, 9_978_888_960, (SIDE, SIDE), "", None, 84.7, "official repository's README"),
        Variant("TransNeXt", "transnext_base", 89_721_496, 17_906_525_184, (SIDE, SIDE), "", None, 84.8, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return TransNeXtNet(*CONFIGURATIONS[name], num_classes)
