"""A large kernel taken apart into identity, square and two bands, each on a part of the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import convolution, dirac, enlarge

Deploy = Literal["bands", "square"]


class InceptionDepthwise(nn.Module):
    """Identity, k×k, 1×band and band×1 depthwise convolutions with bias side by side. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: In and out.
        part: Channels of each convolution.
        kernel: Odd size of the square.
        band: Odd length of the bands.
    """

    def __init__(self, channels: int, part: int, kernel: int, band: int) -> None:
        super().__init__()
        self.parts = [channels - 3 * part, part, part, part]
        self.square = nn.Conv2d(part, part, kernel, padding=kernel // 2, groups=part)
        self.row = nn.Conv2d(part, part, (1, band), padding=(0, band // 2), groups=part)
        self.column = nn.Conv2d(part, part, (band, 1), padding=(band // 2, 0), groups=part)

    def forward(self, x: Tensor) -> Tensor:
        same, square, row, column = torch.split(x, self.parts, dim=1)
        return torch.cat([same, self.square(square), self.row(row), self.column(column)], dim=1)


class MergedInceptionDepthwise(InceptionDepthwise):
    """The same map, which deploys as one depthwise convolution of the largest extent."""

    def fuse(self) -> nn.Module:
        """Return the one depthwise convolution with bias."""
        channels, size = sum(self.parts), max(self.square.kernel_size[0], self.row.kernel_size[1])
        convs = (self.square, self.row, self.column)
        eye = dirac(self.parts[0], self.parts[0], size).to(self.square.weight.device)
        weight = torch.cat([eye, *(enlarge(conv.weight.double(), (size, size)) for conv in convs)])
        bias = torch.cat([eye.new_zeros(self.parts[0]), *(conv.bias.double() for conv in convs if conv.bias is not None)])
        like = nn.Conv2d(channels, channels, 1, groups=channels, device=self.square.weight.device, dtype=self.square.weight.dtype)
        return convolution(like, weight, bias, training=self.training)


@mixers.register("inception-next")
@dataclass(frozen=True)
class InceptionNeXt(OperatorFamily):
    """Channels split as identity, k×k, 1×band, band×1; most channels pass unchanged.

    Attributes:
        band: Odd length of the bands.
        divisor: Each convolution takes channels // divisor.
        kernel: Odd size of the square.
        deploy: ``bands`` as published; ``square`` merges all into one band×band depthwise convolution, an equal map that
            devices without fast one-dimensional kernels prefer.
    """

    band: int = 11
    divisor: int = 8
    kernel: int = 3
    deploy: Deploy = "bands"

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("InceptionNeXt: When Inception Meets ConvNeXt", "arXiv 2303.16900", "the merged deploy form is ours")
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"band": (11,)}

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"band": (7, 9, 11, 15), "divisor": (4, 8), "deploy": ("bands", "square")}

    def _part(self, channels: int) -> int:
        part = channels // self.divisor
        if part < 1 or 3 * part >= channels:
            raise UsageError(f"inception-next: too few channels, got {channels}. Expected at least the divisor {self.divisor}.")
        return part

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        part = self._part(channels)
        if self.deploy == "square":
            return builder.depthwise(x, max(self.band, self.kernel), name="dw")
        same, square, row, column = builder.split(x, (channels - 3 * part, part, part, part))
        square = builder.depthwise(square, self.kernel, name="square")
        row = builder.depthwise(row, (1, self.band), name="row")
        column = builder.depthwise(column, (self.band, 1), name="column")
        return builder.concat([same, square, row, column])

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        kind = InceptionDepthwise if self.deploy == "bands" else MergedInceptionDepthwise
        return kind(channels, self._part(channels), self.kernel, self.band)
