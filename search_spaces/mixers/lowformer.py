"""Lowtention (LowFormer): attention of half width on a map of half size, learned ways down and up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import ConvNorm, StackedConv

Output = Literal["fused", "depthwise", "resize"]


@mixers.register("lowformer")
@dataclass(frozen=True)
class LowFormer(OperatorFamily):
    """Depthwise convolution with `stride`, attention in heads of half their share of the channels, and a way back up.

    Attributes:
        stride: By how much the map shrinks; the depthwise kernel is 5 where it shrinks and 3 where it does not.
        output: ``fused`` a transposed convolution that is also the output projection; ``depthwise`` a projection, then a
            depthwise transposed convolution; ``resize`` a projection, then nearest neighbours and a depthwise 3×3, for
            chips without transposed convolutions.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "LowFormer: Hardware Efficient Design for Convolutional Transformer Backbones",
        "arXiv 2409.03460",
        "`resize` is an exportable substitute, another operator than the published two",
    )

    stride: int = 2
    output: Output = "fused"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"stride": (1, 2), "output": ("fused", "depthwise", "resize")}

    @property
    def kernel(self) -> int:
        """Side of the depthwise convolution that shrinks the map."""
        return 3 if self.stride == 1 else 5

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, height, width = builder.shape(x)
        heads, d = lowtention_heads(c)
        y = builder.depthwise(x, self.kernel, stride=self.stride, name="down")
        _, _, h, w = builder.shape(y)
        y = builder.conv(y, 3 * heads * d, bias=False, name="qkv")
        y = builder.transpose(builder.reshape(y, (n, 3 * heads, d, h * w)), (0, 1, 3, 2))
        y = builder.attention(*builder.split(y, (heads, heads, heads)))
        y = builder.reshape(builder.transpose(y, (0, 1, 3, 2)), (n, heads * d, h, w))
        if self.output != "fused":
            y = builder.conv(y, c, name="project")
        if self.output == "resize":
            if self.stride > 1:
                size = (n, c, self.stride * h, self.stride * w)
                y = builder.add_operator("Resize", [y], {"mode": "nearest"}, shape=size)
            return builder.depthwise(lower_crop(builder, y, (height, width)), 3, name="up")
        return lower_crop(builder, self._lower_up(builder, y, c), (height, width))

    def _lower_up(self, builder: GraphBuilder, x: str, channels: int) -> str:
        kernel, s, pad = transposed_window(self.stride)
        inner = builder.shape(x)[1]
        groups = 1 if self.output == "fused" else channels
        window = {"kernel": (kernel, kernel), "stride": (s, s), "pads": (pad,) * 4, "groups": groups}
        weights = [Weight((inner, channels // groups, kernel, kernel)), Weight((channels,))]
        return builder.add_operator("ConvTranspose", [x], window, weights=weights, name="up")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return Lowtention(channels, self)


def lowtention_heads(channels: int) -> tuple[int, int]:
    """Return the number of heads and their width: ⌊c/2 / 30⌋ heads, at least one, each half of its share of the channels.

    Raises:
        UsageError: Fewer than two channels.
    """
    if channels < 2:
        raise UsageError(f"lowformer: needs two channels, got {channels}.")
    heads = max(1, channels // 2 // 30)
    return heads, channels // heads // 2


def transposed_window(stride: int) -> tuple[int, int, int]:
    """Return kernel, stride and padding of the transposed convolution."""
    return (3, 1, 1) if stride == 1 else (2 * stride, stride, stride // 2)


def lower_crop(builder: GraphBuilder, x: str, resolution: Resolution) -> str:
    """Write the removal of what is below and right of `resolution` and return the output; nothing where nothing is."""
    return builder.narrow(builder.narrow(x, 2, 0, resolution[0]), 3, 0, resolution[1])


class Lowtention(nn.Module):
    """The module of `LowFormer`. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        knobs: Of the operator.
        heads_first: Whether the projection's output has parts inside heads, the published order of weights; a narrower member
            slices parts that hold heads.
    """

    def __init__(self, channels: int, knobs: LowFormer, *, heads_first: bool = False) -> None:
        super().__init__()
        self.heads_first = heads_first
        self.heads, self.width = lowtention_heads(channels)
        self.stride, self.resize = knobs.stride, knobs.output == "resize"
        inner = self.heads * self.width
        kernel, stride, pad = transposed_window(knobs.stride)
        self.down = ConvNorm(channels, channels, knobs.kernel, stride=knobs.stride, groups=channels)
        if heads_first:
            self.qkv: nn.Module = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        else:
            self.qkv = StackedConv(channels, inner, parts=3, bias=False)
        self.project: nn.Module = nn.Identity() if knobs.output == "fused" else nn.Conv2d(inner, channels, 1)
        if knobs.output == "resize":
            self.up: nn.Module = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        elif knobs.output == "depthwise":
            self.up = nn.ConvTranspose2d(channels, channels, kernel, stride, pad, groups=channels)
        else:
            self.up = nn.ConvTranspose2d(inner, channels, kernel, stride, pad)

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(self.down(x))
        n, _, h, w = y.shape
        if self.heads_first:
            q, k, v = y.reshape(n, self.heads, 3 * self.width, h * w).transpose(2, 3).chunk(3, dim=3)
        else:
            q, k, v = y.reshape(n, 3 * self.heads, self.width, h * w).transpose(2, 3).chunk(3, dim=1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, -1, h, w)
        y = self.project(y)
        if self.resize:
            if self.stride > 1:
                y = F.interpolate(y, scale_factor=self.stride, mode="nearest")
            return self.up(y[..., : x.shape[2], : x.shape[3]])
        return self.up(y)[..., : x.shape[2], : x.shape[3]]
