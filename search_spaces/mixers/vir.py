"""Retention: products of queries and keys fade with the distance along the scan, without a softmax (ViR)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of, lower_joined_heads, lower_stacked_heads, stacked_heads
from search_spaces.layers.tokens import to_map, to_tokens


@mixers.register("vir")
@dataclass(frozen=True)
class ViR(OperatorFamily):
    """LN((q·kᵀ / √d ⊙ D)·v) in each head, D(i, j) = γ^(i − j) for j ≤ i, else 0; rows of the map one after another.

    Attributes:
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "ViR: Towards Efficient Vision Retention Backbones",
        "arXiv 2310.19731",
        "the parallel form; γ of head i is 1 − 2^(−5 − i), as in RetNet (arXiv 2307.08621), and fixed",
    )

    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads, positions = heads_of(c, self.head_dim), h * w
        tokens = builder.transpose(builder.reshape(x, (n, c, positions)), (0, 2, 1))
        q, k, v = lower_stacked_heads(builder, tokens, heads)
        scores = builder.matmul(q, builder.transpose(k, (0, 1, 3, 2)))
        scores = builder.add_operator("Mul", [scores], weights=[Weight((heads, positions, positions), parameter=False)])
        y = lower_joined_heads(builder, builder.matmul(scores, v))
        y = builder.gemm(builder.norm("LayerNormalization", y, c, axis=-1, name="norm"), c, name="project")
        return builder.reshape(builder.transpose(y, (0, 2, 1)), (n, c, h, w))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return Retention(channels, heads_of(channels, self.head_dim), resolution)


def decay(heads: int, positions: int, head_dim: int) -> Tensor:
    """Return D / √d, (heads, positions, positions)."""
    rates = 1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float64)).view(-1, 1, 1)
    distance = torch.arange(positions).view(-1, 1) - torch.arange(positions)
    return torch.where(distance >= 0, rates ** distance.clamp(min=0), 0.0) / math.sqrt(head_dim)


class Retention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        resolution: (h, w).
    """

    decay: Tensor

    def __init__(self, channels: int, heads: int, resolution: Resolution) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, channels)
        self.register_buffer("decay", decay(heads, math.prod(resolution), channels // heads), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = stacked_heads(self.qkv, to_tokens(x), self.heads)
        y = (q @ k.transpose(2, 3) * self.decay.to(x.dtype)) @ v
        return to_map(self.project(self.norm(y.transpose(1, 2).reshape(n, h * w, c))), h, w)
