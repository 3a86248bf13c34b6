"""Multi-group pointwise convolution: 1×1 convolutions of several group counts that deploy as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, reparam
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import ConvBranches, ConvNorm


def multi_group(channels: int, out: int, most: int, least: int = 1) -> ConvBranches:
    """Return Σ_g BN(PW with g groups) for g = least, 2·least, … up to `most`, plus a batch norm of the input where `out` is `channels`.

    Raises:
        UsageError: The channels do not divide into the groups.
    """
    if channels % most or out % most:
        raise UsageError(f"multi-group: channels must divide by {most}, got {channels} to {out}.")
    groups = [least << i for i in range((most // least).bit_length())]
    convs = [ConvNorm(channels, out, groups=g) for g in groups]
    return ConvBranches(convs, nn.BatchNorm2d(out) if channels == out else None, groups=least)


@reparam.register("multi-group")
@dataclass(frozen=True)
class MultiGroup(OperatorFamily):
    """Pointwise convolution trained as a sum over group counts.

    Attributes:
        most: Largest number of groups, a power of two.
        least: Smallest, and that of the deployed convolution.
    """

    most: int = 8
    least: int = 1

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "FMViT: A Multiple-Frequency Mixing Vision Transformer",
        "arXiv 2311.05707",
        "the set of group counts is not published; ours is 1, 2, 4, 8",
    )

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"most": (4, 8), "least": (1, 2)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        if channels % self.most:
            raise UsageError(f"multi-group: channels must divide by {self.most}, got {channels}.")
        return builder.conv(x, channels, groups=self.least)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return multi_group(channels, channels, self.most, self.least)
