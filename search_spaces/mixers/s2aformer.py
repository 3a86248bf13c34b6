"""Strip self-attention (S2AFormer): keys and values from a reduced map, queries and keys only a few channels a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import attend, heads_of, lower_attend
from search_spaces.layers.convolution import ConvNorm


@mixers.register("s2aformer")
@dataclass(frozen=True)
class S2AFormer(OperatorFamily):
    """PW(softmax(q·kᵀ / √s)·v), plus a local path, with s = `strip` channels a head for q and k.

    With one channel a head the logits are an outer product, so their cost does not grow with the width.

    Attributes:
        reduction: By how much the map of keys and values is smaller a side (rounded up).
        strip: Channels of q and k a head.
        local: Whether PW(GELU(BN(DW3(x)))), the local interaction module, is added to the output.
        head_dim: Least width of a head's values (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "S2AFormer: Strip Self-Attention for Efficient Vision Transformer",
        "arXiv 2505.22195",
        "no code is public: the widths, the reduction (depthwise convolution with batch norm, then a projection) and the local "
        "module are our reading",
    )

    reduction: int = 2
    strip: int = 1
    local: bool = True
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"reduction": (1, 2, 4, 8), "strip": (1, 4, 8, 16), "local": (False, True)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        c = builder.shape(x)[1]
        heads, y, r = heads_of(c, self.head_dim), x, self.reduction
        if r > 1:
            y = builder.conv(x, c, r + 1, stride=r, groups=c, name="reduce.depthwise")
            y = builder.conv(y, c, name="reduce.project")
        q = builder.conv(x, heads * self.strip, name="query")
        k = builder.conv(y, heads * self.strip, name="key")
        v = builder.conv(y, c, name="value")
        y = builder.conv(lower_attend(builder, q, k, v, heads), c, name="project")
        if not self.local:
            return y
        near = builder.depthwise(x, 3, activation="Gelu", name="local.depthwise")
        return builder.binary("Add", y, builder.conv(near, c, name="local.project"))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return StripAttention(channels, self)


class StripAttention(nn.Module):
    """The module of `S2AFormer`. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, knobs: S2AFormer) -> None:
        super().__init__()
        self.heads, r = heads_of(channels, knobs.head_dim), knobs.reduction
        reduce = [ConvNorm(channels, channels, r + 1, stride=r, groups=channels), nn.Conv2d(channels, channels, 1)]
        self.reduce = nn.Sequential(*(reduce if r > 1 else ()))
        self.query = nn.Conv2d(channels, self.heads * knobs.strip, 1)
        self.key = nn.Conv2d(channels, self.heads * knobs.strip, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        near = [ConvNorm(channels, channels, 3, groups=channels), nn.GELU(), nn.Conv2d(channels, channels, 1)]
        self.local = nn.Sequential(*near) if knobs.local else None

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        y = self.project(attend(self.query(x), self.key(reduced), self.value(reduced), self.heads))
        return y if self.local is None else y + self.local(x)
