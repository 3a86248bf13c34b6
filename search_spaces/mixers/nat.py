"""Attention of each position to the window nearest to it, near or spread out (NAT and DiNAT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.layers.convolution import StackedConv


@mixers.register("nat")
@dataclass(frozen=True)
class NAT(OperatorFamily):
    """softmax(q·kᵀ / √d + bias)·v over the `kernel` × `kernel` window nearest to a position, which stays inside the map.

    With `dilated`, neighbours stand as far apart as the map allows, as in DiNAT.

    Attributes:
        kernel: Side of the window, at most the map's.
        dilated: Whether neighbours are spread over the map.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "Neighborhood Attention Transformer",
        "arXiv 2204.07143; dilated: arXiv 2209.15001",
        "neighbours are rows and columns taken by constant indices, in place of a CUDA kernel; a smaller map has a smaller window",
    )

    kernel: int = 7
    dilated: bool = False
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7), "dilated": (False, True), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads, (high, wide) = heads_of(c, self.head_dim), (min(self.kernel, side) for side in (h, w))
        d = c // heads
        q, kv = builder.conv(x, c, name="query"), builder.conv(x, 2 * c, name="key_value")
        for axis, count in ((2, h * high), (3, w * wide)):
            shape = list(builder.shape(kv))
            shape[axis] = count
            rows = Weight((count,), "int64", parameter=False)
            kv = builder.add_operator("Gather", [kv], {"axis": axis}, weights=[rows], shape=shape)
        kv = builder.reshape(kv, (n * 2 * c * h, high, w, wide))
        kv = builder.reshape(builder.transpose(kv, (0, 2, 1, 3)), (n, 2 * heads, d, h * w, high * wide))
        k, v = builder.split(builder.transpose(kv, (0, 1, 3, 2, 4)), (heads, heads))
        q = builder.reshape(builder.transpose(builder.reshape(q, (n, heads, d, h * w)), (0, 1, 3, 2)), (n, heads, h * w, 1, d))
        bias = Weight((heads, h * w, 1, high * wide), parameter=False)
        logits = builder.scale(builder.matmul(q, k), (), parameter=False)
        logits = builder.add_operator("Add", [logits], weights=[bias])
        y = builder.matmul(builder.unary("Softmax", logits, axis=-1), builder.transpose(v, (0, 1, 2, 4, 3)))
        y = builder.transpose(builder.reshape(y, (n, heads, h * w, d)), (0, 1, 3, 2))
        return builder.conv(builder.reshape(y, (n, c, h, w)), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        heads = heads_of(channels, self.head_dim)
        return NeighbourhoodAttention(channels, heads, resolution, self.kernel, dilated=self.dilated)


def neighbours(side: int, kernel: int, dilation: int = 1) -> tuple[Tensor, Tensor]:
    """Return which positions of an axis each one attends to, and how many steps from itself each stands, (side, size) each.

    The window of `size` = min(kernel, ⌊side / dilation⌋) is centred where it fits and moved inside where it does not; all its members
    have a position's remainder by the dilation.

    Raises:
        UsageError: The dilation leaves no neighbour.
    """
    if not 1 <= dilation <= side:
        raise UsageError(f"nat: a dilation between 1 and the map's side, {side}, is needed, got {dilation}.")
    size = min(kernel, side // dilation)
    place = torch.arange(side)
    group, own = place % dilation, place // dilation
    members = (side - group + dilation - 1) // dilation
    start = (own - size // 2).clamp(min=0).minimum(members - size)
    steps = start.view(-1, 1) + torch.arange(size)
    return steps * dilation + group.view(-1, 1), steps - own.view(-1, 1)


class NeighbourhoodAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        resolution: (h, w).
        kernel: Side of the window.
        dilated: Whether neighbours are spread over the map.
    """

    rows: Tensor
    columns: Tensor
    places: Tensor
    elastic_windows = ("table",)

    def __init__(self, channels: int, heads: int, resolution: Resolution, kernel: int, *, dilated: bool = False) -> None:
        super().__init__()
        self.heads = heads
        sizes = [min(kernel, side) for side in resolution]
        axes = [neighbours(side, size, side // size if dilated else 1) for side, size in zip(resolution, sizes, strict=True)]
        self.window = (sizes[0], sizes[1])
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = StackedConv(channels, channels, parts=2)
        self.table = nn.Parameter(torch.zeros(heads, 2 * sizes[0] - 1, 2 * sizes[1] - 1))
        self.project = nn.Conv2d(channels, channels, 1)
        (row, down), (column, across) = axes
        self.register_buffer("rows", row.flatten(), persistent=False)
        self.register_buffer("columns", column.flatten(), persistent=False)
        down, across = down + sizes[0] - 1, across + sizes[1] - 1
        places = down.view(resolution[0], 1, -1, 1) * (2 * sizes[1] - 1) + across.view(1, resolution[1], 1, -1)
        self.register_buffer("places", places.reshape(resolution[0] * resolution[1], -1), persistent=False)

    def bias(self) -> Tensor:
        """Return what is added to the logits, (heads, h·w, 1, window)."""
        return self.table.flatten(1)[:, self.places.flatten()].view(self.heads, len(self.places), 1, -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(_attend(x, self.query, self.key_value, self.bias(), self))

    def fuse(self) -> nn.Module:
        """Return the form whose bias is a constant.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedNeighbourhoodAttention(self)


class BakedNeighbourhoodAttention(nn.Module):
    """`NeighbourhoodAttention` with a constant bias. (n, c, h, w) -> (n, c, h, w)."""

    rows: Tensor
    columns: Tensor
    bias: Tensor

    def __init__(self, trained: NeighbourhoodAttention) -> None:
        from copy import deepcopy

        super().__init__()
        self.heads, self.window = trained.heads, trained.window
        self.query, self.key_value, self.project = (deepcopy(part) for part in (trained.query, trained.key_value, trained.project))
        self.register_buffer("rows", trained.rows, persistent=False)
        self.register_buffer("columns", trained.columns, persistent=False)
        self.register_buffer("bias", trained.bias().detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.project(_attend(x, self.query, self.key_value, self.bias, self))


def _attend(
    x: Tensor, query: nn.Module, key_value: nn.Module, bias: Tensor, owner: NeighbourhoodAttention | BakedNeighbourhoodAttention
) -> Tensor:
    n, c, h, w = x.shape
    heads, (high, wide) = owner.heads, owner.window
    d = c // heads
    kv = key_value(x).index_select(2, owner.rows).index_select(3, owner.columns)  # (n, 2c, h·high, w·wide)
    kv = kv.reshape(n * 2 * c * h, high, w, wide).transpose(1, 2).reshape(n, 2 * heads, d, h * w, high * wide)
    k, v = kv.permute(0, 1, 3, 2, 4).chunk(2, dim=1)  # (n, heads, h·w, d, window)
    q = query(x).reshape(n, heads, d, h * w).transpose(2, 3).reshape(n, heads, h * w, 1, d)
    shares = (q @ k * d**-0.5 + bias).softmax(dim=4)
    y: Tensor = (shares @ v.transpose(3, 4)).reshape(n, heads, h * w, d).transpose(2, 3).reshape(n, c, h, w)
    return y
