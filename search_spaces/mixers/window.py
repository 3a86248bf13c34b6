"""Attention in windows with a table of relative positions (Swin)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.layers.windows import ChannelsLast, PositionTable, Tiling, WindowAttention, lower_window_attention


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
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"window": (7,)}

    window: int = 7
    shift: bool = False
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return the values that make sense."""
        return {"window": (7, 14), "shift": (False, True), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: channels last, the position bias a constant."""
        _, c, h, w = builder.shape(x)
        y = builder.transpose(x, (0, 2, 3, 1))
        y = lower_window_attention(builder, y, self._tiling((h, w)), heads_of(c, self.head_dim))
        return builder.transpose(y, (0, 3, 1, 2))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        """Return the training form."""
        tiling, heads = self._tiling(resolution), heads_of(channels, self.head_dim)
        positions = PositionTable(tiling.window, (self.window, self.window), heads)
        return ChannelsLast(WindowAttention(channels, heads, tiling, positions))

    def _tiling(self, resolution: Resolution) -> Tiling:
        return Tiling.of(resolution, (self.window, self.window), self.shift)
