"""Attentive convolution: a depthwise kernel that each picture makes for itself, less a learned share of its mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution


@mixers.register("atconv")
@dataclass(frozen=True)
class ATConv(OperatorFamily):
    """PW(DW_K(PW x)) with K = g − σ(β)·mean(g) and g = Linear(GELU(pool(PW x))) of each channel.

    The pool makes k² means of the map written row after row: its bins are strips, not cells. Where k² does not divide the number of positions
    neighbouring bins overlap.

    Attributes:
        kernel: Odd size k.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Attentive Convolution: Unifying the Expressivity of Self-Attention with Convolutional Efficiency",
        "arXiv 2510.20092, github.com/price112/Attentive-Convolution",
        "the convolution by a kernel of the picture's own is a product of matrices of shifted maps, since NPUs want constant kernels",
    )

    kernel: int = 3

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5, 7)}

    @classmethod
    def searched(cls, stage: int, *, wide: bool = False) -> Mapping[str, tuple[Any, ...]]:  # noqa: ARG003
        return {"kernel": (3, 5, 7) if wide else (3,)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        k, taps = self.kernel, self.kernel**2
        with builder.scope("kernel"):
            strips = builder.reshape(builder.conv(x, c), (n, c, h * w))
            means = [builder.reduce("ReduceMean", builder.narrow(strips, 2, start, end - start), (2,)) for start, end in bins(h * w, taps)]
            made = builder.gemm(builder.unary("Gelu", builder.concat(means, 2), approximate="none"), taps)
            inhibition = builder.scale(builder.reduce("ReduceMean", made, (2,)), (c, 1), name="inhibition")
            made = builder.reshape(builder.binary("Sub", made, inhibition), (n, c, 1, taps))
        padded = builder.add_operator(
            "Pad", [builder.conv(x, c, name="value")], {"pads": (0, 0, k // 2, k // 2) * 2}, shape=(n, c, h + k - 1, w + k - 1)
        )
        shifted = [
            builder.reshape(builder.narrow(builder.narrow(padded, 2, i // k, h), 3, i % k, w), (n, c, 1, h * w)) for i in range(taps)
        ]
        y = builder.matmul(made, builder.concat(shifted, 2))
        return builder.conv(builder.reshape(y, (n, c, h, w)), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return AttentiveConvolution(channels, self.kernel)


def bins(positions: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return (start, end) of each bin of an adaptive pool, ⌊i·n / b⌋ to ⌈(i + 1)·n / b⌉."""
    positions = int(positions)  # a number also while a tracer hands over sizes as tensors
    return tuple((i * positions // count, -(-(i + 1) * positions // count)) for i in range(count))


def own_convolution(x: Tensor, kernels: Tensor, kernel: int) -> Tensor:
    """Convolve each channel of each picture with a kernel of its own, (n, c, h, w) and (n, c, k²) -> (n, c, h, w)."""
    n, c, h, w = x.shape
    padded = F.pad(x, [kernel // 2] * 4)
    taps = [padded.narrow(2, i // kernel, h).narrow(3, i % kernel, w).reshape(n, c, 1, h * w) for i in range(kernel**2)]
    return (kernels.reshape(n, c, 1, kernel**2) @ torch.cat(taps, dim=2)).reshape(n, c, h, w)


class AttentiveConvolution(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        kernel: Odd size.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.inhibition = nn.Parameter(torch.zeros(channels))
        self.key = nn.Conv2d(channels, channels, 1)
        self.make = nn.Linear(kernel**2, kernel**2)
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        strips = self.key(x).flatten(2)
        means = torch.cat([strips[:, :, start:end].mean(2, keepdim=True) for start, end in bins(strips.shape[2], self.kernel**2)], dim=2)
        kernels = self.make(F.gelu(means))
        kernels = kernels - kernels.mean(2, keepdim=True) * torch.sigmoid(self.inhibition)[:, None]
        return self.project(own_convolution(self.value(x), kernels, self.kernel))
