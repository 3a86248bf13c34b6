"""Depthwise convolution with a batch norm and, in training, parallel branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import DILATED_BRANCHES, Branches, depthwise_branches

if TYPE_CHECKING:
    from torch import nn


@mixers.register("depthwise")
@dataclass(frozen=True)
class Depthwise(OperatorFamily):
    """BN(DW k) plus branches that fold into it; deploys as one depthwise convolution with bias.

    Attributes:
        kernel: Odd size.
        branches: ``plain``, ``repvgg`` (1×1 and identity) or ``dilated`` (UniRepLKNet's table), or ``deep``: several 3×3 one
            after another; a matter of training alone.
    """

    kernel: int = 3
    branches: Branches = "repvgg"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "RepViT: Revisiting Mobile CNN From ViT Perspective",
        "arXiv 2307.09283",
        "any odd kernel; the dilated branches are those of UniRepLKNet, arXiv 2311.15599; the branches fold with a batch norm each",
    )

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": tuple(sorted(k for k in DILATED_BRANCHES if k <= 11)), "branches": ("plain", "repvgg", "dilated", "deep")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        return builder.depthwise(x, self.kernel, name="dw")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return depthwise_branches(channels, self.kernel, self.branches)
