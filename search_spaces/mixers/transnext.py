"""One softmax over a position's neighbours and a pooled map, by the angle between queries and keys (TransNeXt)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.layers.windows import MASKED
from search_spaces.mixers.spatial_reduction import CoveringPool, pooling_pads
from search_spaces.mixers.swin_v2 import unit

WINDOW = 3
NEAR = WINDOW**2
HIDDEN = 512
"""Width of the network that gives the position bias."""
TEMPERATURE = 1 / 0.24
"""Start of the learned factor of the cosines."""
EPSILON = 1e-12


@mixers.register("transnext")
@dataclass(frozen=True)
class TransNeXt(OperatorFamily):
    """Aggregated attention: each position attends to its 3 × 3 neighbours and to a pooled map in one softmax.

    Cosines, to which a learned query is added, are scaled by a temperature and by the logarithm of the number of keys; the neighbours'
    shares get q·(learned tokens) besides.

    Attributes:
        reduction: Positions a side of a cell of the pooled map.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "TransNeXt: Robust Foveal Visual Perception for Vision Transformers",
        "arXiv 2311.17132, github.com/DaiShiResearch/TransNeXt",
        "cells of the pooled map cover a map of any size; what depends on places alone is a constant when deployed",
    )

    reduction: int = 2
    head_dim: int = 24

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"reduction": (2, 4, 8), "head_dim": (16, 24, 32)}

    @classmethod
    def searched(cls, stage: int, *, wide: bool = False) -> Mapping[str, tuple[Any, ...]]:  # noqa: ARG003
        return {"reduction": ((8, 4, 2, 2)[min(stage, 3)],)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads = heads_of(c, self.head_dim)
        d, positions, r = c // heads, h * w, self.reduction
        tokens = builder.transpose(builder.reshape(x, (n, c, positions)), (0, 2, 1))
        q = builder.transpose(builder.reshape(builder.gemm(tokens, c, name="query"), (n, positions, heads, d)), (0, 2, 1, 3))
        q = _lower_unit(builder, q)
        scaled = builder.scale(builder.scale(q, (heads, 1, d), op="Add", name="query_embedding"), (heads, positions, 1), parameter=False)
        k, v = builder.split(builder.gemm(tokens, 2 * c, name="key_value"), (c, c), axis=2)
        k = builder.reshape(_lower_unit(builder, builder.reshape(k, (n, positions, heads, d))), (n, positions, c))
        k, v = (_lower_near(builder, part, (h, w), heads) for part in (k, v))  # (n, heads, positions, d, near)
        near = builder.matmul(builder.reshape(scaled, (n, heads, positions, 1, d)), k)
        near = builder.scale(builder.reshape(near, (n, heads, positions, NEAR)), (heads, positions, NEAR), op="Add", parameter=False)
        pooled = builder.unary("Gelu", builder.conv(x, c, name="reduce"), approximate="none")
        pads = pooling_pads((h, w), r)
        pooled = builder.pool("AveragePool", pooled, r, pads=(*pads, *pads), count_include_pad=0)
        count = math.prod(builder.shape(pooled)[2:])
        pooled = builder.transpose(builder.reshape(pooled, (n, c, count)), (0, 2, 1))
        pooled = builder.norm("LayerNormalization", pooled, c, axis=-1, name="norm")
        shared = [Weight((2 * c, c), parameter=False), Weight((2 * c,), parameter=False)]  # those of key_value, counted once
        both = builder.add_operator("Gemm", [pooled], {"activation": None}, weights=shared, name="key_value_pooled")
        both = builder.transpose(builder.reshape(both, (n, count, 2 * heads, d)), (0, 2, 1, 3))
        k_pool, v_pool = builder.split(both, (heads, heads))
        far = builder.matmul(scaled, builder.transpose(_lower_unit(builder, k_pool), (0, 1, 3, 2)))
        far = builder.scale(far, (heads, positions, count), op="Add", parameter=False)
        shares = builder.unary("Softmax", builder.concat([near, far], 3), axis=-1)
        near, far = builder.split(shares, (NEAR, count), axis=3)
        learned = builder.add_operator("MatMul", [q], weights=[Weight((heads, d, NEAR))], name="tokens")
        near = builder.binary("Add", builder.scale(learned, (heads, 1, NEAR), op="Add", name="bias"), near)
        near = builder.matmul(builder.reshape(near, (n, heads, positions, 1, NEAR)), builder.transpose(v, (0, 1, 2, 4, 3)))
        y = builder.binary("Add", builder.reshape(near, (n, heads, positions, d)), builder.matmul(far, v_pool))
        y = builder.gemm(builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n, positions, c)), c, name="project")
        return builder.reshape(builder.transpose(y, (0, 2, 1)), (n, c, h, w))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return AggregatedAttention(channels, heads_of(channels, self.head_dim), resolution, self.reduction)


def _lower_unit(builder: GraphBuilder, x: str) -> str:
    return builder.binary("Div", x, builder.unary("Clip", builder.reduce("ReduceL2", x, (3,)), min=EPSILON))


def _lower_near(builder: GraphBuilder, tokens: str, size: Resolution, heads: int) -> str:
    n, positions, c = builder.shape(tokens)
    (h, w), half = size, WINDOW // 2
    x = builder.reshape(builder.transpose(tokens, (0, 2, 1)), (n, c, h, w))
    x = builder.add_operator("Pad", [x], {"pads": (0, 0, half, half) * 2}, shape=(n, c, h + 2 * half, w + 2 * half))
    parts = [builder.narrow(builder.narrow(x, 2, row, h), 3, column, w) for row in range(WINDOW) for column in range(WINDOW)]
    parts = [builder.reshape(part, (n, heads, c // heads, positions, 1)) for part in parts]
    return builder.transpose(builder.concat(parts, 4), (0, 1, 3, 2, 4))


class PlacesBias(nn.Module):
    """A bias of the logits by displacement on a logarithmic scale. -> (heads, queries, keys).

    Args:
        resolution: Of the queries' map.
        reduction: Positions a side of a key's cell.
        heads: Number of heads.

    Source: the official code's `get_relative_position_cpb`; Swin V2 (arXiv 2111.09883), section 3.3.
    """

    steps: Tensor

    def __init__(self, resolution: Resolution, reduction: int, heads: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, HIDDEN)
        self.out = nn.Linear(HIDDEN, heads)
        axes = []
        for side in resolution:
            place = torch.arange(side, dtype=torch.float64)
            cell = F.avg_pool1d(place.view(1, 1, -1), reduction, reduction, pooling_pads((side,), reduction)[0], count_include_pad=False)
            axes.append((place.view(-1, 1) - cell.view(1, -1)) / max(side - 1, 1) * 8)
        (h, a), (w, b) = axes[0].shape, axes[1].shape
        down = axes[0].view(h, 1, a, 1).expand(h, w, a, b)
        across = axes[1].view(1, w, 1, b).expand(h, w, a, b)
        steps = torch.stack([down, across], dim=4).reshape(h * w, a * b, 2)
        self.register_buffer("steps", steps.sign() * (steps.abs() + 1).log2() / 3, persistent=False)

    def forward(self) -> Tensor:
        y: Tensor = self.out(torch.relu(self.hidden(self.steps.to(self.out.weight.dtype)))).permute(2, 0, 1)
        return y


class AggregatedAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Parameters stand in the official code's order.

    Args:
        channels: c.
        heads: Divides `channels`.
        resolution: (h, w).
        reduction: Positions a side of a cell of the pooled map.
    """

    log_keys: Tensor
    edge: Tensor

    def __init__(self, channels: int, heads: int, resolution: Resolution, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        d = channels // heads
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(math.exp(TEMPERATURE) - 1)))
        self.query_embedding = nn.Parameter(torch.randn(heads, 1, d) * 0.02)
        self.near_bias = nn.Parameter(torch.randn(heads, NEAR) * 0.0004)
        self.tokens = nn.Parameter(torch.randn(heads, d, NEAR) * 0.02)
        self.bias = nn.Parameter(torch.zeros(heads, 1, NEAR))
        self.query = nn.Linear(channels, channels)
        self.key_value = StackedLinear(channels, channels, parts=2)
        self.project = nn.Linear(channels, channels)
        self.reduce = nn.Conv2d(channels, channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.places = PlacesBias(resolution, reduction, heads)
        self.pool = CoveringPool(reduction)
        inside = F.unfold(torch.ones(1, 1, *resolution, dtype=torch.float64), WINDOW, padding=WINDOW // 2)[0].T  # (positions, near)
        count = math.prod(-(-side // reduction) for side in resolution)
        self.register_buffer("log_keys", (inside.sum(1, keepdim=True) + count).log(), persistent=False)
        self.register_buffer("edge", (1 - inside) * MASKED, persistent=False)

    def constants(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scale of queries, (heads, positions, 1), and what is added to near and far logits, (heads, positions, keys)."""
        scale = F.softplus(self.temperature) * self.log_keys.to(self.temperature.dtype)
        return scale, self.near_bias.unsqueeze(1) + self.edge.to(scale.dtype), self.places()

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, *self.constants())

    def fuse(self) -> nn.Module:
        """Return the form whose scale and biases are constants.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedAggregatedAttention(self)


class BakedAggregatedAttention(nn.Module):
    """`AggregatedAttention` with constant scale and biases. (n, c, h, w) -> (n, c, h, w)."""

    scale: Tensor
    near: Tensor
    far: Tensor

    def __init__(self, trained: AggregatedAttention) -> None:
        from copy import deepcopy

        super().__init__()
        self.heads = trained.heads
        self.query_embedding, self.tokens, self.bias = (
            nn.Parameter(part.detach().clone()) for part in (trained.query_embedding, trained.tokens, trained.bias)
        )
        self.query, self.key_value, self.project, self.reduce, self.norm, self.pool = (
            deepcopy(part) for part in (trained.query, trained.key_value, trained.project, trained.reduce, trained.norm, trained.pool)
        )
        for name, value in zip(("scale", "near", "far"), trained.constants(), strict=True):
            self.register_buffer(name, value.detach())

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, self.scale, self.near, self.far)


def _attend(owner: AggregatedAttention | BakedAggregatedAttention, x: Tensor, scale: Tensor, near_bias: Tensor, far_bias: Tensor) -> Tensor:
    n, c, h, w = x.shape
    heads, d = owner.heads, c // owner.heads
    tokens = to_tokens(x)
    q = unit(owner.query(tokens).reshape(n, h * w, heads, d).transpose(1, 2))
    scaled = (q + owner.query_embedding) * scale
    k, v = owner.key_value(tokens).chunk(2, dim=2)
    k = unit(k.reshape(n, h * w, heads, d)).reshape(n, h * w, c)
    k, v = (neighbourhood(part, (h, w), heads) for part in (k, v))
    near = (scaled.reshape(n, heads, h * w, 1, d) @ k).reshape(n, heads, h * w, NEAR) + near_bias
    pooled = owner.norm(to_tokens(owner.pool(F.gelu(owner.reduce(x)))))
    k_pool, v_pool = owner.key_value(pooled).reshape(n, -1, 2 * heads, d).transpose(1, 2).chunk(2, dim=1)
    far = scaled @ unit(k_pool).transpose(2, 3) + far_bias
    near, far = torch.cat([near, far], dim=3).softmax(dim=3).split((NEAR, far.shape[3]), dim=3)
    near = q @ owner.tokens + owner.bias + near
    y = (near.reshape(n, heads, h * w, 1, NEAR) @ v.transpose(3, 4)).reshape(n, heads, h * w, d) + far @ v_pool
    return to_map(owner.project(y.transpose(1, 2).reshape(n, h * w, c)), h, w)


def neighbourhood(tokens: Tensor, size: Resolution, heads: int) -> Tensor:
    """Return each position's 3 × 3 neighbours, zero beyond the edge: (n, h·w, c) -> (n, heads, h·w, c / heads, 9)."""
    n, positions, c = tokens.shape
    (h, w), half = size, WINDOW // 2
    x = F.pad(to_map(tokens, h, w), (half,) * 4)
    parts = [x[:, :, row : row + h, column : column + w] for row in range(WINDOW) for column in range(WINDOW)]
    return torch.stack([part.reshape(n, heads, c // heads, positions) for part in parts], dim=4).transpose(2, 3)
