"""Relations learned for each channel and place nearby: a depthwise convolution between projections (UniFormer's local block)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution


@mixers.register("uniformer")
@dataclass(frozen=True)
class UniFormer(OperatorFamily):
    """PW → DW k → PW, without an activation: attention whose affinity is a parameter of the displacement.

    The global half of the system is plain self-attention: `spatial-reduction` with reduction 1.

    Attributes:
        kernel: Side of the neighbourhood.
    """

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "UniFormer: Unifying Convolution and Self-attention for Visual Recognition",
        "arXiv 2201.09450, github.com/Sense-X/UniFormer",
        "the dynamic position encoding, x + DW3(x), belongs to the block and is in the reference only",
    )

    kernel: int = 5

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        y = builder.depthwise(builder.conv(x, channels, name="value"), self.kernel, name="affinity")
        return builder.conv(y, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return LocalRelations(channels, self.kernel)


class LocalRelations(nn.Module):
    """Value, affinity of neighbours, projection. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.affinity = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.affinity(self.value(x)))
