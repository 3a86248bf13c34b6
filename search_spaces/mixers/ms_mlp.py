"""Groups of channels shifted by different distances, along either axis, and mixed near by depthwise convolutions (MS-MLP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution

DISTANCES = (-2, -1, 0, 1, 2)
"""Positions by which each group of channels is shifted."""

REGIONS: Mapping[str, tuple[int, ...]] = {
    "near": (1, 1, 3, 5, 7),
    "middle": (1, 3, 3, 5, 7),
    "wide": (1, 5, 5, 5, 7),
    "widest": (1, 7, 7, 7, 7),
}
"""Kernels of the groups, as the official configurations have them in the four stages."""


def group_sizes(channels: int) -> tuple[int, ...]:
    """Return the channels of each group: equal but for the last, which has what is left.

    Raises:
        UsageError: Some group would have none.
    """
    size = -(-channels // len(DISTANCES))
    last = channels - size * (len(DISTANCES) - 1)
    if last < 1:
        raise UsageError(f"ms-mlp: {len(DISTANCES)} groups of equal width need more channels, got {channels}.")
    return (size,) * (len(DISTANCES) - 1) + (last,)


@mixers.register("ms-mlp")
@dataclass(frozen=True)
class MSMLP(OperatorFamily):
    """PW(DW(shift along the rows) + DW(shift along the columns)), with five groups of channels; shifts go round the edge.

    Attributes:
        regions: Kernels of the groups, see `REGIONS`.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Mixing and Shifting: Exploiting Global and Local Dependencies in Vision MLPs",
        "arXiv 2202.06510, github.com/JegZheng/MS-MLP",
        "a pointwise convolution mixes the groups, since here a channel mixer with its own residual follows; the references have none",
    )

    regions: str = "wide"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"regions": tuple(REGIONS)}

    @classmethod
    def searched(cls, stage: int, *, wide: bool = False) -> Mapping[str, tuple[Any, ...]]:
        return {"regions": tuple(REGIONS) if wide else (tuple(REGIONS)[min(stage, 3)],)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        _, c, h, w = builder.shape(x)
        sizes = group_sizes(c)
        groups = builder.split(x, sizes)
        along = []
        for axis, side in ((3, w), (2, h)):
            parts = []
            for group, distance, kernel in zip(groups, DISTANCES, REGIONS[self.regions], strict=True):
                moved = group
                if offset := distance % side:
                    moved = builder.concat(
                        [builder.narrow(group, axis, side - offset, offset), builder.narrow(group, axis, 0, side - offset)], axis
                    )
                parts.append(builder.depthwise(moved, kernel))
            along.append(builder.concat(parts))
        return builder.conv(builder.binary("Add", *along), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return nn.Sequential(MixShift(channels, REGIONS[self.regions]), nn.Conv2d(channels, channels, 1))


class MixShift(nn.Module):
    """Sum over both axes of shifted groups, each through its depthwise convolution. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        kernels: Of the groups.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = group_sizes(channels)
        self.across, self.down = (
            nn.ModuleList(nn.Conv2d(size, size, k, padding=k // 2, groups=size) for size, k in zip(self.sizes, kernels, strict=True))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        groups = x.split(self.sizes, dim=1)
        across, down = (
            torch.cat([conv(rolled(group, d, axis)) for conv, group, d in zip(convs, groups, DISTANCES, strict=True)], dim=1)
            for convs, axis in ((self.across, 3), (self.down, 2))
        )
        return across + down


def rolled(x: Tensor, distance: int, axis: int) -> Tensor:
    """Shift along an axis; what leaves at one end comes in at the other."""
    side = x.shape[axis]
    offset = distance % side
    return torch.cat([x.narrow(axis, side - offset, offset), x.narrow(axis, 0, side - offset)], dim=axis) if offset else x
