"""Dilated large-kernel block: one large depthwise convolution and dilated small ones that fold into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, reparam
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import DILATED_BRANCHES, depthwise_branches


@reparam.register("dilated")
@dataclass(frozen=True)
class Dilated(OperatorFamily):
    """BN(DW K) + Σ BN(DW k_i, dilation r_i) with the published table of (k_i, r_i).

    Attributes:
        kernel: K, a key of `DILATED_BRANCHES`.
    """

    kernel: int = 13

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("UniRepLKNet: A Universal Perception Large-Kernel ConvNet", "arXiv 2311.15599")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": tuple(sorted(DILATED_BRANCHES))}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        return builder.depthwise(x, self.kernel)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return depthwise_branches(channels, self.kernel, "dilated")
