"""Attention in windows with a table of relative positions (Swin)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graph import GraphBuilder, Weight
from nas.mixer import Grade, OperatorFamily, Source, mixers
from nas.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of

MASKED = -100.0
"""What a logit of a pair that must not attend gets added; Swin's own value, and finite in half precision."""


@mixers.register("window")
@dataclass(frozen=True)
class Window(OperatorFamily):
    """Multi-head self-attention inside windows of at most `window` positions a side.

    Windows tile the map as equally as they can: 28 positions with windows of 8 make four of 7, 9 with 7 make two of 5,
    one position of which is padding that nothing attends to. A map no larger than the window is one window.

    Attributes:
        window: Largest window, in positions a side; the table of positions has (2·window − 1)² rows at any resolution.
        shift: Whether the windows are displaced by half a window, as in every second block of Swin.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        "arXiv 2103.14030",
        "where the map is no multiple of the window, windows shrink to fit before anything is padded, and padding is masked",
    )

    window: int = 7
    shift: bool = False
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return the values that make sense."""
        return {"window": (7, 14), "shift": (False, True), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: channels last, no tensor of more than four axes, the position bias a constant."""
        _, c, *resolution = builder.shape(x)
        tiling = Tiling.of((resolution[0], resolution[1]), self.window, self.shift)
        y = builder.transpose(x, (0, 2, 3, 1))
        y = lower_window_attention(builder, y, tiling, heads_of(c, self.head_dim))
        return builder.transpose(y, (0, 3, 1, 2))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        """Return the training form."""
        tiling = Tiling.of(resolution, self.window, self.shift)
        return ChannelsLast(WindowAttention(channels, heads_of(channels, self.head_dim), tiling, self.window))


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a map is cut into windows.

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
    def of(cls, resolution: Resolution, largest: int, shift: bool = False) -> Tiling:
        """Tile with the fewest, most equal windows of at most `largest` a side; an axis of one window is not shifted."""
        count = tuple(-(-side // largest) for side in resolution)
        window = tuple(-(-side // n) for side, n in zip(resolution, count, strict=True))
        moved = tuple(size // 2 if shift and n > 1 else 0 for size, n in zip(window, count, strict=True))
        return cls(resolution, (window[0], window[1]), (count[0], count[1]), (moved[0], moved[1]))

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
        """Cut a map into windows. (n, h, w, c) -> (n·windows, positions, c)."""
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
        """Put windows back. (n·windows, positions, c) -> (n, h, w, c)."""
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
        rows, columns = torch.arange(self.padded[0]), torch.arange(self.padded[1])
        region = torch.zeros(*self.padded, dtype=torch.int64)
        for axis, index in ((0, rows), (1, columns)):
            side, size, shift = self.padded[axis], self.window[axis], self.shift[axis]
            after_seam = (index >= side - shift) if shift else torch.zeros_like(index, dtype=torch.bool)
            before_last = index < side - size
            part = torch.where(before_last, 0, torch.where(after_seam, 2, 1))
            region += (part * 3**axis).view(-1, 1) if axis == 0 else (part * 3**axis).view(1, -1)
        real = torch.zeros(*self.padded, dtype=torch.bool)
        real[: self.resolution[0], : self.resolution[1]] = True
        region[~real.roll((-self.shift[0], -self.shift[1]), (0, 1))] = -1
        windows = Tiling(self.padded, self.window, self.counts).cut(region.view(1, *self.padded, 1)).squeeze(2)
        return torch.where(windows.unsqueeze(1) == windows.unsqueeze(2), 0.0, MASKED).unsqueeze(1)


def relative_index(window: Resolution, largest: Resolution) -> Tensor:
    """Return the row of the table of positions for each pair in a window, (positions, positions).

    Args:
        window: Height and width of the window in use.
        largest: Height and width of the window for which the table, (2·height − 1)·(2·width − 1) rows, was made.
    """
    row = torch.arange(window[0]).view(-1, 1).expand(window).flatten()
    column = torch.arange(window[1]).view(1, -1).expand(window).flatten()
    down = row.view(-1, 1) - row.view(1, -1) + largest[0] - 1
    right = column.view(-1, 1) - column.view(1, -1) + largest[1] - 1
    return down * (2 * largest[1] - 1) + right


class BakedWindowAttention(nn.Module):
    """Window attention whose position bias and mask are one constant. (n, h, w, c) -> (n, h, w, c)."""

    bias: Tensor
    """(1 or windows, heads, positions, positions), added to the logits."""

    def __init__(self, qkv: nn.Module, project: nn.Module, heads: int, tiling: Tiling, bias: Tensor) -> None:
        super().__init__()
        self.qkv, self.project, self.heads, self.tiling = qkv, project, heads, tiling
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return windowed_attention(x, self.qkv, self.project, self.heads, self.tiling, self.bias)


class WindowAttention(nn.Module):
    """Window attention with a table of relative positions. (n, h, w, c) -> (n, h, w, c).

    Args:
        channels: c.
        heads: Divides c.
        tiling: How the map is cut.
        largest: Side of the window for which the table is made; at least the tiling's.
    """

    index: Tensor
    mask: Tensor | None

    def __init__(self, channels: int, heads: int, tiling: Tiling, largest: int) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.table = nn.Parameter(torch.empty((2 * largest - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)
        self.register_buffer("index", relative_index(tiling.window, (largest, largest)), persistent=False)
        self.register_buffer("mask", None if tiling.plain else tiling.mask(), persistent=False)

    def bias(self) -> Tensor:
        """Return what is added to the logits, (1 or windows, heads, positions, positions)."""
        bias = self.table[self.index.flatten()].view(*self.index.shape, self.heads).permute(2, 0, 1).unsqueeze(0)
        return bias if self.mask is None else bias + self.mask.to(bias.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return windowed_attention(x, self.qkv, self.project, self.heads, self.tiling, self.bias())

    def fuse(self) -> nn.Module:
        """Return the form whose position bias is a constant.

        Raises:
            UsageError: The module is in training mode.
        """
        if self.training:
            raise UsageError("fuse: the module is in training mode. Do this: call .eval() first.")
        qkv, project = deepcopy(self.qkv), deepcopy(self.project)
        return BakedWindowAttention(qkv, project, self.heads, self.tiling, self.bias().detach())


def windowed_attention(x: Tensor, qkv: nn.Module, project: nn.Module, heads: int, tiling: Tiling, bias: Tensor) -> Tensor:
    """Attend inside windows. (n, h, w, c) -> (n, h, w, c).

    Args:
        x: The map.
        qkv: Projection c -> 3c, heads inside parts.
        project: Projection of the result, c -> c.
        heads: Number of heads.
        tiling: How the map is cut.
        bias: (1 or windows, heads, positions, positions), added to the logits.
    """
    windows = tiling.cut(x)
    b, positions, channels = windows.shape
    parts = qkv(windows).reshape(b, positions, 3 * heads, channels // heads).transpose(1, 2)
    q, k, v = parts.chunk(3, dim=1)  # (n·windows, heads, positions, d)
    if 1 < bias.shape[0] < b:
        bias = bias.repeat(b // bias.shape[0], 1, 1, 1)
    y = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).reshape(b, positions, channels)
    return tiling.mend(project(y))


class ChannelsLast(nn.Module):
    """Runs a module of channels-last maps on a channels-first one. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def lower_cut(builder: GraphBuilder, x: str, tiling: Tiling) -> str:
    """Write `Tiling.cut` and return its output."""
    n, _, _, c = builder.shape(x)
    (down, across), (high, wide) = tiling.counts, tiling.window
    if any(tiling.padding):
        below, right = tiling.padding
        x = builder.add_operator("Pad", [x], {"pads": (0, 0, 0, 0, 0, below, right, 0)}, shape=(n, *tiling.padded, c))
    if any(tiling.shift):
        shifts = (-tiling.shift[0], -tiling.shift[1])
        x = builder.add_operator("Roll", [x], {"axes": (1, 2), "shifts": shifts}, shape=builder.shape(x))
    if across > 1:
        x = builder.transpose(builder.reshape(x, (n * down, high, across, wide * c)), (0, 2, 1, 3))
    return builder.reshape(x, (n * down * across, high * wide, c))


def lower_mend(builder: GraphBuilder, x: str, tiling: Tiling) -> str:
    """Write `Tiling.mend` and return its output."""
    (down, across), (high, wide) = tiling.counts, tiling.window
    n, c = builder.shape(x)[0] // (down * across), builder.shape(x)[2]
    if across > 1:
        x = builder.transpose(builder.reshape(x, (n * down, across, high, wide * c)), (0, 2, 1, 3))
    x = builder.reshape(x, (n, *tiling.padded, c))
    if any(tiling.shift):
        x = builder.add_operator("Roll", [x], {"axes": (1, 2), "shifts": tiling.shift}, shape=builder.shape(x))
    if any(tiling.padding):
        ends = {"axes": (1, 2), "starts": (0, 0), "ends": tiling.resolution}
        x = builder.add_operator("Slice", [x], ends, shape=(n, *tiling.resolution, c))
    return x


def lower_window_attention(builder: GraphBuilder, x: str, tiling: Tiling, heads: int) -> str:
    """Write `windowed_attention` with its constant bias and return its output. (n, h, w, c) -> (n, h, w, c)."""
    windows = lower_cut(builder, x, tiling)
    b, positions, c = builder.shape(windows)
    parts = builder.reshape(builder.gemm(windows, 3 * c, name="qkv"), (b, positions, 3 * heads, c // heads))
    q, k, v = builder.split(builder.transpose(parts, (0, 2, 1, 3)), (heads, heads, heads))
    count = 1 if tiling.plain else tiling.counts[0] * tiling.counts[1]
    bias = Weight((count, heads, positions, positions), parameter=False)
    y = builder.add_operator("Attention", [q, k, v], weights=[bias])
    y = builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (b, positions, c))
    return lower_mend(builder, builder.gemm(y, c, name="project"), tiling)
