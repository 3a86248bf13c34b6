"""Average pooling as a token mixer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution


class PoolMixer(nn.Module):
    """Mean of the window's positions inside the map, minus the input. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel, 1, kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


@mixers.register("pool")
@dataclass(frozen=True)
class Pool(OperatorFamily):
    """AvgPool_k(x) − x; it has no parameters.

    Attributes:
        kernel: Odd window.
    """

    kernel: int = 3

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("MetaFormer Is Actually What You Need for Vision", "arXiv 2111.11418")
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"kernel": (3,)}

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7, 9)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        half = self.kernel // 2
        mean = builder.pool("AveragePool", x, self.kernel, stride=1, pads=(half,) * 4, count_include_pad=0)
        return builder.binary("Sub", mean, x)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return PoolMixer(self.kernel)
