"""Self-attention that each head mixes, by a learned gate, with an attention to places alone (ConViT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of, lower_joined_heads
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.layers.windows import displacements


@mixers.register("gated-positional")
@dataclass(frozen=True)
class GatedPositional(OperatorFamily):
    """((1 − σ(λ))·softmax(q·kᵀ / √d) + σ(λ)·softmax(u·r))·v over the whole map; r are the displacements of two places.

    The second softmax does not depend on the picture: deployed, it is a constant.

    Attributes:
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases",
        "arXiv 2103.10697",
        "the published division by the sum of a row, which is one, is left out; places are a grid of any size, not a square",
    )

    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads, positions = heads_of(c, self.head_dim), h * w
        tokens = builder.transpose(builder.reshape(x, (n, c, positions)), (0, 2, 1))

        def split(y: str, count: int) -> str:
            return builder.transpose(builder.reshape(y, (n, positions, count * heads, c // heads)), (0, 2, 1, 3))

        q, k = builder.split(split(builder.gemm(tokens, 2 * c, bias=False, name="query_key"), 2), (heads, heads))
        v = split(builder.gemm(tokens, c, bias=False, name="value"), 1)
        logits = builder.scale(builder.matmul(q, builder.transpose(k, (0, 1, 3, 2))), (), parameter=False)
        near = builder.scale(builder.unary("Softmax", logits, axis=-1), (heads, 1, 1), parameter=False)
        mixed = builder.add_operator("Add", [near], weights=[Weight((1, heads, positions, positions), parameter=False)])
        y = lower_joined_heads(builder, builder.matmul(mixed, v))
        y = builder.gemm(y, c, name="project")
        return builder.reshape(builder.transpose(y, (0, 2, 1)), (n, c, h, w))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return MapAttention(GatedAttention(channels, heads_of(channels, self.head_dim), resolution))


class MapAttention(nn.Module):
    """Runs an attention of tokens on a map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.body(to_tokens(x)), *x.shape[2:])


class GatedAttention(nn.Module):
    """The operator on tokens, in its training form. (n, h·w, c) -> (n, h·w, c).

    Args:
        channels: c.
        heads: Divides `channels`.
        resolution: (h, w).
    """

    places: Tensor

    def __init__(self, channels: int, heads: int, resolution: Resolution) -> None:
        super().__init__()
        self.heads = heads
        self.gate = nn.Parameter(torch.ones(heads))
        self.query_key = StackedLinear(channels, channels, parts=2, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.project = nn.Linear(channels, channels)
        self.place = nn.Linear(3, heads)
        row, column = (-part.float() for part in displacements(resolution))
        self.register_buffer("places", torch.stack([column, row, row * row + column * column], dim=2), persistent=False)

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return the share of the picture's attention, (heads, 1, 1), and the attention to places times its share, (1, heads, h·w, h·w)."""
        share = self.gate.sigmoid().view(-1, 1, 1)
        places = self.place(self.places.to(self.gate.dtype)).permute(2, 0, 1).softmax(dim=2)
        return 1 - share, (share * places).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        return _attend(x, self.query_key, self.value, self.project, self.heads, *self.constants())

    def fuse(self) -> nn.Module:
        """Return the form whose attention to places is a constant.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedGatedAttention(self)


class BakedGatedAttention(nn.Module):
    """`GatedAttention` with a constant attention to places. (n, h·w, c) -> (n, h·w, c)."""

    share: Tensor
    places: Tensor

    def __init__(self, trained: GatedAttention) -> None:
        from copy import deepcopy

        super().__init__()
        self.heads = trained.heads
        self.query_key, self.value, self.project = (deepcopy(part) for part in (trained.query_key, trained.value, trained.project))
        share, places = trained.constants()
        self.register_buffer("share", share.detach())
        self.register_buffer("places", places.detach())

    def forward(self, x: Tensor) -> Tensor:
        return _attend(x, self.query_key, self.value, self.project, self.heads, self.share, self.places)


def _attend(x: Tensor, query_key: nn.Module, value: nn.Module, project: nn.Module, heads: int, share: Tensor, places: Tensor) -> Tensor:
    n, positions, c = x.shape
    q, k = query_key(x).reshape(n, positions, 2 * heads, c // heads).transpose(1, 2).chunk(2, dim=1)
    v = value(x).reshape(n, positions, heads, c // heads).transpose(1, 2)
    near = (q @ k.transpose(2, 3) * (c // heads) ** -0.5).softmax(dim=3)
    y: Tensor = project(((near * share + places) @ v).transpose(1, 2).reshape(n, positions, c))
    return y
