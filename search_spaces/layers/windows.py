"""Attention inside windows: how a map is cut, what may attend to what, and where positions come in.

Maps are channels last here, (n, h, w, c), and no step has more than four axes, since many NPUs take no more.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, lower_joined_heads, lower_stacked_heads

MASKED = -100.0
"""What a logit of a pair that must not attend gets added; Swin's own value, and finite in half precision."""


class Partition(Protocol):
    """A way to cut a map into groups of positions that attend to one another."""

    @property
    def window(self) -> Resolution:
        """Height and width of a group, in positions."""

    @property
    def groups(self) -> int:
        """Number of groups in a map."""

    @property
    def plain(self) -> bool:
        """Whether every pair of positions of a group may attend."""

    def cut(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n·groups, positions, c)."""

    def mend(self, windows: Tensor) -> Tensor:
        """(n·groups, positions, c) -> (n, h, w, c)."""

    def mask(self) -> Tensor:
        """Return what is added to the logits, (groups, 1, positions, positions): 0 or `MASKED`."""

    def lower_cut(self, builder: GraphBuilder, x: str) -> str:
        """Write `cut` and return its output."""

    def lower_mend(self, builder: GraphBuilder, x: str) -> str:
        """Write `mend` and return its output."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Windows of neighbouring positions.

    Attributes:
        resolution: Height and width of the map.
        window: Height and width of a window.
        counts: Windows down and across.
        shift: Displacement of the windows down and across.
    """

    resolution: Resolution
    window: Resolution
    counts: Resolution
    shift: Resolution = (0, 0)

    @classmethod
    def of(cls, resolution: Resolution, largest: Resolution, shift: bool = False) -> Tiling:
        """Tile with the fewest, most equal windows of at most `largest`; an axis of one window is not shifted."""
        counts = (-(-resolution[0] // largest[0]), -(-resolution[1] // largest[1]))
        window = (-(-resolution[0] // counts[0]), -(-resolution[1] // counts[1]))
        moved = (window[0] // 2 if shift and counts[0] > 1 else 0, window[1] // 2 if shift and counts[1] > 1 else 0)
        return cls(resolution, window, counts, moved)

    @property
    def groups(self) -> int:
        """Number of windows."""
        return self.counts[0] * self.counts[1]

    @property
    def padded(self) -> Resolution:
        """Height and width of what the windows cover."""
        return self.counts[0] * self.window[0], self.counts[1] * self.window[1]

    @property
    def padding(self) -> Resolution:
        """Rows below and columns to the right that are padding."""
        return self.padded[0] - self.resolution[0], self.padded[1] - self.resolution[1]

    @property
    def plain(self) -> bool:
        """Whether every pair of positions in a window may attend: nothing is shifted and nothing is padding."""
        return not any((*self.shift, *self.padding))

    def cut(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n·windows, positions, c)."""
        n, channels = x.shape[0], x.shape[3]
        (down, across), (high, wide) = self.counts, self.window
        if any(self.padding):
            x = F.pad(x, (0, 0, 0, self.padding[1], 0, self.padding[0]))
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        if across > 1:
            x = x.reshape(n * down, high, across, wide * channels).transpose(1, 2)
        return x.reshape(n * down * across, high * wide, channels)

    def mend(self, windows: Tensor) -> Tensor:
        """(n·windows, positions, c) -> (n, h, w, c)."""
        channels = windows.shape[2]
        (down, across), (high, wide) = self.counts, self.window
        n = windows.shape[0] // (down * across)
        if across > 1:
            windows = windows.reshape(n * down, across, high, wide * channels).transpose(1, 2)
        x = windows.reshape(n, *self.padded, channels)
        if any(self.shift):
            x = x.roll(self.shift, (1, 2))
        return x[:, : self.resolution[0], : self.resolution[1]] if any(self.padding) else x

    def mask(self) -> Tensor:
        """Return what is added to the logits, (windows, 1, positions, positions): 0 or `MASKED`.

        Two positions attend to each other where they are neighbours in the map too: both on the same side of the seam
        that the shift made, neither of them padding.
        """
        sides = []
        for side, size, shift in zip(self.padded, self.window, self.shift, strict=True):
            index = torch.arange(side)
            sides.append((index >= side - size).long() + ((index >= side - shift).long() if shift else 0))
        region = sides[0].view(-1, 1) * 3 + sides[1].view(1, -1)
        real = (torch.arange(self.padded[0]) < self.resolution[0]).view(-1, 1) & (torch.arange(self.padded[1]) < self.resolution[1])
        real = real.roll((-self.shift[0], -self.shift[1]), (0, 1))
        windows = Tiling(self.padded, self.window, self.counts).cut(torch.where(real, region, -1).view(1, *self.padded, 1)).squeeze(2)
        return torch.where(windows.unsqueeze(1) == windows.unsqueeze(2), 0.0, MASKED).unsqueeze(1)

    def lower_cut(self, builder: GraphBuilder, x: str) -> str:
        """Write `cut` and return its output."""
        n, _, _, c = builder.shape(x)
        (down, across), (high, wide) = self.counts, self.window
        if any(self.padding):
            x = lower_pad(builder, x, self.padding)
        if any(self.shift):
            shifts = (-self.shift[0], -self.shift[1])
            x = builder.add_operator("Roll", [x], {"axes": (1, 2), "shifts": shifts}, shape=builder.shape(x))
        if across > 1:
            x = builder.transpose(builder.reshape(x, (n * down, high, across, wide * c)), (0, 2, 1, 3))
        return builder.reshape(x, (n * down * across, high * wide, c))

    def lower_mend(self, builder: GraphBuilder, x: str) -> str:
        """Write `mend` and return its output."""
        (down, across), (high, wide) = self.counts, self.window
        n, c = builder.shape(x)[0] // (down * across), builder.shape(x)[2]
        if across > 1:
            x = builder.transpose(builder.reshape(x, (n * down, across, high, wide * c)), (0, 2, 1, 3))
        x = builder.reshape(x, (n, *self.padded, c))
        if any(self.shift):
            x = builder.add_operator("Roll", [x], {"axes": (1, 2), "shifts": self.shift}, shape=builder.shape(x))
        return lower_crop(builder, x, self.resolution)


@dataclass(frozen=True, slots=True)
class Grid:
    """Groups of positions that stand `step` apart, one of each cell of a grid: attention that is sparse and global.

    Attributes:
        resolution: Height and width of the map.
        window: Positions of a group down and across.
        step: Distance of a group's positions down and across.
    """

    resolution: Resolution
    window: Resolution
    step: Resolution

    @classmethod
    def of(cls, resolution: Resolution, largest: Resolution) -> Grid:
        """Lay the finest grid of at most `largest` cells."""
        step = (-(-resolution[0] // largest[0]), -(-resolution[1] // largest[1]))
        return cls(resolution, (-(-resolution[0] // step[0]), -(-resolution[1] // step[1])), step)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.step[0] * self.step[1]

    @property
    def padded(self) -> Resolution:
        """Height and width of what the grid covers."""
        return self.window[0] * self.step[0], self.window[1] * self.step[1]

    @property
    def padding(self) -> Resolution:
        """Rows below and columns to the right that are padding."""
        return self.padded[0] - self.resolution[0], self.padded[1] - self.resolution[1]

    @property
    def plain(self) -> bool:
        """Whether nothing is padding."""
        return not any(self.padding)

    def cut(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n·groups, positions, c)."""
        n, channels = x.shape[0], x.shape[3]
        (high, wide), (down, across) = self.window, self.step
        if any(self.padding):
            x = F.pad(x, (0, 0, 0, self.padding[1], 0, self.padding[0]))
        if down > 1:
            x = x.reshape(n, high, down, wide * across * channels).transpose(1, 2)
        if across > 1:
            x = x.reshape(n * down, high * wide, across, channels).transpose(1, 2)
        return x.reshape(n * down * across, high * wide, channels)

    def mend(self, windows: Tensor) -> Tensor:
        """(n·groups, positions, c) -> (n, h, w, c)."""
        channels = windows.shape[2]
        (high, wide), (down, across) = self.window, self.step
        n = windows.shape[0] // (down * across)
        if across > 1:
            windows = windows.reshape(n * down, across, high * wide, channels).transpose(1, 2)
        if down > 1:
            windows = windows.reshape(n, down, high, wide * across * channels).transpose(1, 2)
        x = windows.reshape(n, *self.padded, channels)
        return x[:, : self.resolution[0], : self.resolution[1]] if any(self.padding) else x

    def mask(self) -> Tensor:
        """Return what is added to the logits, (groups, 1, positions, positions): `MASKED` where one of the two is padding."""
        real = (torch.arange(self.padded[0]) < self.resolution[0]).view(-1, 1) & (torch.arange(self.padded[1]) < self.resolution[1])
        groups = Grid(self.padded, self.window, self.step).cut(real.view(1, *self.padded, 1)).squeeze(2)
        return torch.where(groups.unsqueeze(1) == groups.unsqueeze(2), 0.0, MASKED).unsqueeze(1)

    def lower_cut(self, builder: GraphBuilder, x: str) -> str:
        """Write `cut` and return its output."""
        n, _, _, c = builder.shape(x)
        (high, wide), (down, across) = self.window, self.step
        if any(self.padding):
            x = lower_pad(builder, x, self.padding)
        if down > 1:
            x = builder.transpose(builder.reshape(x, (n, high, down, wide * across * c)), (0, 2, 1, 3))
        if across > 1:
            x = builder.transpose(builder.reshape(x, (n * down, high * wide, across, c)), (0, 2, 1, 3))
        return builder.reshape(x, (n * down * across, high * wide, c))

    def lower_mend(self, builder: GraphBuilder, x: str) -> str:
        """Write `mend` and return its output."""
        (high, wide), (down, across) = self.window, self.step
        n, c = builder.shape(x)[0] // (down * across), builder.shape(x)[2]
        if across > 1:
            x = builder.transpose(builder.reshape(x, (n * down, across, high * wide, c)), (0, 2, 1, 3))
        if down > 1:
            x = builder.transpose(builder.reshape(x, (n, down, high, wide * across * c)), (0, 2, 1, 3))
        return lower_crop(builder, builder.reshape(x, (n, *self.padded, c)), self.resolution)


class PositionTable(nn.Module):
    """A learned number for each head and displacement inside a window. -> (1, heads, positions, positions).

    Args:
        window: Height and width of the window in use.
        largest: Height and width of the window for which the table, (heads, 2·height − 1, 2·width − 1), is made; a smaller
            window uses its centre.
        heads: Number of heads.

    Source: Liu et al., Swin Transformer, arXiv 2103.14030; the order of axes is ours, so that a smaller table is a centre too.
    """

    index: Tensor
    elastic_windows = ("table",)

    def __init__(self, window: Resolution, largest: Resolution, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, 2 * largest[0] - 1, 2 * largest[1] - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        row, column = displacements(window)
        self.register_buffer("index", (row + largest[0] - 1) * (2 * largest[1] - 1) + column + largest[1] - 1, persistent=False)

    def forward(self) -> Tensor:
        return self.table.flatten(1)[:, self.index.flatten()].view(1, -1, *self.index.shape)


def displacements(window: Resolution) -> tuple[Tensor, Tensor]:
    """Return how far below and how far right of each position each other one is not: query minus key, (positions, positions) each."""
    row = torch.arange(window[0]).view(-1, 1).expand(window).flatten()
    column = torch.arange(window[1]).view(1, -1).expand(window).flatten()
    return row.view(-1, 1) - row.view(1, -1), column.view(-1, 1) - column.view(1, -1)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside the groups of a partition. (n, h, w, c) -> (n, h, w, c).

    Args:
        channels: c.
        heads: Divides c.
        partition: How the map is cut.
        positions: A module that gives what the logits of a group get added, (1, heads, positions, positions).
        heads_first: Whether the projection's output has parts inside heads, not heads inside parts (an order of weights).
        positions_first: Whether `positions` comes before the projection (an order of weights).
    """

    mask: Tensor | None

    def __init__(
        self,
        channels: int,
        heads: int,
        partition: Partition,
        positions: nn.Module,
        *,
        heads_first: bool = False,
        positions_first: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.partition, self.heads_first = heads, partition, heads_first
        if positions_first:
            self.positions = positions
        self.qkv = nn.Linear(channels, 3 * channels) if heads_first else StackedLinear(channels, channels, parts=3)
        self.positions = positions
        self.project = nn.Linear(channels, channels)
        self.register_buffer("mask", None if partition.plain else partition.mask(), persistent=False)

    def bias(self) -> Tensor:
        """Return what is added to the logits, (1 or groups, heads, positions, positions)."""
        bias: Tensor = self.positions()
        return bias if self.mask is None else bias + self.mask.to(bias.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return attend_in_groups(x, self.qkv, self.project, self.heads, self.partition, self.bias(), self.heads_first)

    def fuse(self) -> nn.Module:
        """Return the form whose position bias is a constant.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedWindowAttention(
            deepcopy(self.qkv), deepcopy(self.project), self.heads, self.partition, self.bias().detach(), self.heads_first
        )


class BakedWindowAttention(nn.Module):
    """`WindowAttention` whose position bias and mask are one constant. (n, h, w, c) -> (n, h, w, c)."""

    bias: Tensor
    """(1 or groups, heads, positions, positions), added to the logits."""

    def __init__(self, qkv: nn.Module, project: nn.Module, heads: int, partition: Partition, bias: Tensor, heads_first: bool) -> None:
        super().__init__()
        self.qkv, self.project, self.heads, self.partition, self.heads_first = qkv, project, heads, partition, heads_first
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return attend_in_groups(x, self.qkv, self.project, self.heads, self.partition, self.bias, self.heads_first)


def attend_in_groups(
    x: Tensor, qkv: nn.Module, project: nn.Module, heads: int, partition: Partition, bias: Tensor, heads_first: bool = False
) -> Tensor:
    """Attend inside the groups of a partition. (n, h, w, c) -> (n, h, w, c).

    Args:
        x: The map.
        qkv: Projection c -> 3c.
        project: Projection of the result, c -> c.
        heads: Number of heads.
        partition: How the map is cut.
        bias: (1 or groups, heads, positions, positions), added to the logits.
        heads_first: Whether the projection's output has parts inside heads.
    """
    groups = partition.cut(x)
    b, positions, channels = groups.shape
    if heads_first:
        q, k, v = qkv(groups).reshape(b, positions, heads, 3 * channels // heads).transpose(1, 2).chunk(3, dim=3)
    else:
        q, k, v = qkv(groups).reshape(b, positions, 3 * heads, channels // heads).transpose(1, 2).chunk(3, dim=1)
    y = F.scaled_dot_product_attention(q, k, v, for_batch(bias, b)).transpose(1, 2).reshape(b, positions, channels)
    return partition.mend(project(y))


def for_batch(constant: Tensor, size: int) -> Tensor:
    """Repeat what is stated of one image's groups, (groups, …), for a batch of `size` groups; one for all stays one."""
    return constant.repeat(size // constant.shape[0], *(1 for _ in constant.shape[1:])) if 1 < constant.shape[0] < size else constant


def lower_window_attention(builder: GraphBuilder, x: str, partition: Partition, heads: int) -> str:
    """Write `WindowAttention` with its constant bias and return its output. (n, h, w, c) -> (n, h, w, c)."""
    groups = partition.lower_cut(builder, x)
    _, positions, c = builder.shape(groups)
    q, k, v = lower_stacked_heads(builder, groups, heads)
    bias = Weight((1 if partition.plain else partition.groups, heads, positions, positions), parameter=False)
    y = builder.add_operator("Attention", [q, k, v], weights=[bias])
    return partition.lower_mend(builder, builder.gemm(lower_joined_heads(builder, y), c, name="project"))


def lower_pad(builder: GraphBuilder, x: str, padding: Resolution) -> str:
    """Write zeros below and right of a channels-last map and return the output."""
    n, h, w, c = builder.shape(x)
    below, right = padding
    return builder.add_operator("Pad", [x], {"pads": (0, 0, 0, 0, 0, below, right, 0)}, shape=(n, h + below, w + right, c))


def lower_crop(builder: GraphBuilder, x: str, resolution: Resolution) -> str:
    """Write the removal of what is below and right of `resolution` and return the output; nothing where nothing is."""
    return builder.narrow(builder.narrow(x, 1, 0, resolution[0]), 2, 0, resolution[1])


class ChannelsLast(nn.Module):
    """Runs a module of channels-last maps on a channels-first one. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
