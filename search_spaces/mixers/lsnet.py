"""LS convolution: a large kernel perceives, and a small kernel, other at each position, aggregates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import ConvNorm, affine
from search_spaces.layers.norm import ChannelAffine


def aggregate(x: Tensor, weight: Tensor, kernel: int) -> Tensor:
    """Return y[c, p] = Σ_q weight[c mod g, q, p] · x[c, p + q] over the k·k offsets q, zero outside the map.

    Shape:
        x: (n, c, h, w); weight: (n, g·k², h, w), the offsets of one set side by side -> (n, c, h, w)

    Source: the exact shift-multiply-add form of LSNet's kernel; slices, products and sums alone.
    """
    n, c, h, w = x.shape
    sets = weight.shape[1] // kernel**2
    taps = weight.reshape(n, sets, kernel**2, h, w)
    padded = F.pad(x, [kernel // 2] * 4).reshape(n, c // sets, sets, h + kernel - 1, w + kernel - 1)
    y = None
    for i in range(kernel**2):
        row, column = divmod(i, kernel)
        shifted = padded[:, :, :, row : row + h, column : column + w]
        term = shifted * taps[:, :, i : i + 1].reshape(n, 1, sets, h, w)
        y = term if y is None else y + term
    assert y is not None
    return y.reshape(n, c, h, w)


class LSConv(nn.Module):
    """BN(aggregation of x with weights perceived from x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, large: int, small: int, sets: int) -> None:
        super().__init__()
        half = channels // 2
        self.small = small
        self.perceive = nn.Sequential(
            ConvNorm(channels, half), nn.ReLU(), ConvNorm(half, half, large, groups=half), ConvNorm(half, half), nn.ReLU()
        )
        self.weights = nn.Conv2d(half, small**2 * sets, 1)
        self.weights_norm = nn.GroupNorm(sets, small**2 * sets)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(aggregate(x, self.weights_norm(self.weights(self.perceive(x))), self.small))

    def fuse(self) -> nn.Module:
        """Return the deploy form: convolutions folded; the last norm, after a product of activations, stays as scale and shift."""
        from nas.spaces.operator_family import fuse

        fused = LSConvDeployed(self)
        fused.perceive = fuse(self.perceive)
        return fused


class LSConvDeployed(nn.Module):
    """The deploy form of `LSConv`. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, trained: LSConv) -> None:
        super().__init__()
        refuse_training(trained.training)
        self.small = trained.small
        self.perceive: nn.Module = trained.perceive
        self.weights, self.weights_norm = trained.weights, trained.weights_norm
        self.norm = ChannelAffine(*affine(trained.norm), trained.weights.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(aggregate(x, self.weights_norm(self.weights(self.perceive(x))), self.small))


@mixers.register("lsnet")
@dataclass(frozen=True)
class LSNet(OperatorFamily):
    """LS convolution; the published residual around it is the block's.

    Attributes:
        large: Odd kernel of the perception.
        small: Odd kernel of the aggregation.
        share: Channels that share a set of weights; channel c uses set c mod (C / share).
    """

    large: int = 7
    small: int = 3
    share: int = 8

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "LSNet: See Large, Focus Small", "arXiv 2503.23135", "aggregation as shifts, products and sums in place of a CUDA kernel"
    )

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"large": (5, 7, 9, 11), "small": (3, 5), "share": (4, 8)}

    def _sets(self, channels: int) -> int:
        if channels % self.share:
            raise UsageError(f"lsnet: channels must divide by {self.share}, got {channels}.")
        return channels // self.share

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        sets, k = self._sets(c), self.small
        with builder.scope("perceive"):
            u = builder.unary("Relu", builder.conv(x, c // 2))
            u = builder.conv(builder.depthwise(u, self.large), c // 2)
            u = builder.unary("Relu", u)
        taps = builder.norm("GroupNormalization", builder.conv(u, k**2 * sets, name="weights"), k**2 * sets, num_groups=sets)
        taps = builder.reshape(taps, (n, sets, k**2, h, w))
        padded = builder.add_operator("Pad", [x], {"pads": (0, 0, k // 2, k // 2) * 2}, shape=(n, c, h + k - 1, w + k - 1))
        padded = builder.reshape(padded, (n, c // sets, sets, h + k - 1, w + k - 1))
        y = ""
        with builder.scope("aggregate"):
            for i in range(k**2):
                row, column = divmod(i, k)
                tap = builder.reshape(builder.narrow(taps, 2, i, 1), (n, 1, sets, h, w))
                shifted = builder.narrow(builder.narrow(padded, 3, row, h), 4, column, w)
                term = builder.binary("Mul", shifted, tap)
                y = builder.binary("Add", y, term) if y else term
        return builder.batch_norm(builder.reshape(y, (n, c, h, w)), name="norm")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return LSConv(channels, self.large, self.small, self._sets(channels))
