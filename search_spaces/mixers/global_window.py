"""Attention in windows whose queries come from the whole map, the same for all windows (GC ViT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.activation import lower_activation
from search_spaces.layers.attention import StackedLinear, heads_of
from search_spaces.layers.windows import PositionTable, Tiling, for_batch, lower_pad


@mixers.register("global-window")
@dataclass(frozen=True)
class GlobalWindow(OperatorFamily):
    """softmax(q·kᵀ / √d + bias)·v inside windows, with one window of queries pooled from the map.

    Attributes:
        window: Largest window, in positions a side.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Global Context Vision Transformers",
        "arXiv 2206.09959, github.com/NVlabs/GCViT",
        "the queries are pooled in one step, by DW3 → GELU → PW and a maximum, at any size; the paper halves the map step by step with "
        "squeeze-and-excite, and shares the queries among the blocks of a stage (the reference does both)",
    )

    window: int = 7
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"window": (7, 14), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        tiling, heads = self._tiling((h, w)), heads_of(c, self.head_dim)
        y = lower_activation(builder, builder.depthwise(x, 3, name="near"), "gelu")
        y = builder.transpose(builder.binary("Add", x, builder.conv(y, c, name="mix")), (0, 2, 3, 1))
        y = builder.transpose(lower_pad(builder, y, tiling.padding) if any(tiling.padding) else y, (0, 3, 1, 2))
        if tiling.groups > 1:
            y = builder.pool("MaxPool", y, tiling.counts)
        groups = tiling.lower_cut(builder, builder.transpose(x, (0, 2, 3, 1)))
        b, positions, _ = builder.shape(groups)
        q = builder.reshape(y, (n, 1, c, positions))
        if tiling.groups > 1:
            q = builder.add_operator("Expand", [q], {"shape": (n, tiling.groups, c, positions)}, shape=(n, tiling.groups, c, positions))
        q = builder.transpose(builder.reshape(q, (b, heads, c // heads, positions)), (0, 1, 3, 2))
        parts = builder.reshape(builder.gemm(groups, 2 * c, name="key_value"), (b, positions, 2 * heads, c // heads))
        k, v = builder.split(builder.transpose(parts, (0, 2, 1, 3)), (heads, heads))
        bias = Weight((1 if tiling.plain else tiling.groups, heads, positions, positions), parameter=False)
        y = builder.add_operator("Attention", [q, k, v], weights=[bias])
        y = builder.gemm(builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (b, positions, c)), c, name="project")
        return builder.transpose(tiling.lower_mend(builder, y), (0, 3, 1, 2))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        tiling, heads = self._tiling(resolution), heads_of(channels, self.head_dim)
        return GlobalQueryAttention(channels, heads, tiling, PositionTable(tiling.window, (self.window, self.window), heads))

    def _tiling(self, resolution: Resolution) -> Tiling:
        return Tiling.of(resolution, (self.window, self.window))


class GlobalQueryAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        tiling: How the map is cut.
        positions: What the logits of a window get added, (1, heads, positions, positions).
    """

    mask: Tensor | None

    def __init__(self, channels: int, heads: int, tiling: Tiling, positions: nn.Module) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.positions = positions
        self.key_value = StackedLinear(channels, channels, parts=2)
        self.project = nn.Linear(channels, channels)
        self.register_buffer("mask", None if tiling.plain else tiling.mask(), persistent=False)

    def bias(self) -> Tensor:
        """Return what is added to the logits, (1 or windows, heads, positions, positions)."""
        bias: Tensor = self.positions()
        return bias if self.mask is None else bias + self.mask.to(bias.dtype)

    def queries(self, x: Tensor) -> Tensor:
        """Return one window of queries for each image and window, (n·windows, heads, positions, d)."""
        y = x + self.mix(F.gelu(self.near(x)))
        if any(self.tiling.padding):
            y = F.pad(y.permute(0, 2, 3, 1), (0, 0, 0, self.tiling.padding[1], 0, self.tiling.padding[0])).permute(0, 3, 1, 2)
        return spread(F.max_pool2d(y, self.tiling.counts) if self.tiling.groups > 1 else y, self.tiling.groups, self.heads)

    def forward(self, x: Tensor) -> Tensor:
        groups = self.tiling.cut(x.permute(0, 2, 3, 1))
        y = attend_with(self.queries(x), self.key_value(groups), self.heads, self.bias())
        return self.tiling.mend(self.project(y)).permute(0, 3, 1, 2)

    def fuse(self) -> nn.Module:
        """Return the form whose position bias is a constant.

        Raises:
            UsageError: The module is in training mode.
        """
        from copy import deepcopy

        refuse_training(self.training)
        fused = deepcopy(self)
        fused.positions = Constant(self.bias().detach())
        fused.mask = None
        return fused


class Constant(nn.Module):
    """A position bias and mask that are one constant."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value


def spread(queries: Tensor, windows: int, heads: int) -> Tensor:
    """Give every window of an image the queries of the image. (n, c, h, w) -> (n·windows, heads, h·w, c / heads)."""
    n, c, h, w = queries.shape
    q = queries.reshape(n, 1, c, h * w).expand(n, windows, c, h * w)
    return q.reshape(n * windows, heads, c // heads, h * w).transpose(2, 3)


def attend_with(q: Tensor, key_value: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Attend from given queries. q (b, heads, positions, d), key_value (b, positions, 2c) -> (b, positions, c)."""
    b, positions, width = key_value.shape
    k, v = key_value.reshape(b, positions, 2 * heads, width // (2 * heads)).transpose(1, 2).chunk(2, dim=1)
    return F.scaled_dot_product_attention(q, k, v, for_batch(bias, b)).transpose(1, 2).reshape(b, positions, width // 2)
