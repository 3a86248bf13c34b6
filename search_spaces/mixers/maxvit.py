"""Attention in blocks and in grids (MaxViT): the same parameters, near neighbours or a sparse view of the whole map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of
from search_spaces.layers.windows import ChannelsLast, Grid, Partition, PositionTable, Tiling, WindowAttention, lower_window_attention


@mixers.register("maxvit")
@dataclass(frozen=True)
class MaxViT(OperatorFamily):
    """Multi-head self-attention inside blocks of `size` neighbours a side, or among `size` × `size` positions of a grid.

    Attributes:
        partition: ``block`` or ``grid``; the published block has one after the other, each with its channel mixer.
        size: Positions of a group a side; a map that is no multiple gets smaller groups before it is padded.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "MaxViT: Multi-Axis Vision Transformer", "arXiv 2204.01697", "a map that is no multiple of the size is taken, its padding masked"
    )

    partition: Literal["block", "grid"] = "grid"
    size: int = 7
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return the values that make sense."""
        return {"partition": ("block", "grid"), "size": (7, 8), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: channels last, the position bias a constant."""
        _, c, h, w = builder.shape(x)
        y = builder.transpose(x, (0, 2, 3, 1))
        y = lower_window_attention(builder, y, self._partition((h, w)), heads_of(c, self.head_dim))
        return builder.transpose(y, (0, 3, 1, 2))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        """Return the training form."""
        partition, heads = self._partition(resolution), heads_of(channels, self.head_dim)
        positions = PositionTable(partition.window, (self.size, self.size), heads)
        return ChannelsLast(WindowAttention(channels, heads, partition, positions))

    def _partition(self, resolution: Resolution) -> Partition:
        size = (self.size, self.size)
        return Grid.of(resolution, size) if self.partition == "grid" else Tiling.of(resolution, size)
