"""Adaptive frequency filter: a small complex network reads the spectrum and returns the filter to multiply it with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.fourier import (
    FourierForm,
    FourierTransform,
    complex_product,
    lower_complex_product,
    lower_fourier,
    lower_inverse_fourier,
)

SHRINK = 0.01


class ComplexPointwise(nn.Module):
    """Block-diagonal complex linear map of the channels of a spectrum. (n, c, m, 2·h) -> (n, c, m, 2·h).

    Two grouped real convolutions, each of real and imaginary part at once, give all four products.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.real = nn.Conv2d(channels, channels, 1, groups=blocks, bias=False)
        self.imaginary = nn.Conv2d(channels, channels, 1, groups=blocks, bias=False)
        self.bias = nn.Parameter(torch.randn(channels, 2) * 0.02)

    def forward(self, z: Tensor) -> Tensor:
        a, b = torch.chunk(self.real(z), 2, dim=3)
        c, d = torch.chunk(self.imaginary(z), 2, dim=3)
        first, second = torch.chunk(self.bias.view(1, -1, 1, 2), 2, dim=3)
        return torch.cat([a - d + first, b + c + second], dim=3)


class AdaptiveFrequencyFilter(nn.Module):
    """irfft2(shrink(W₂·relu(W₁·X)) ⊙ X) + x with X = rfft2(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, resolution: Resolution, blocks: int, form: FourierForm) -> None:
        super().__init__()
        self.fourier = FourierTransform(resolution, form)
        self.expand = ComplexPointwise(channels, blocks)
        self.project = ComplexPointwise(channels, blocks)

    def forward(self, x: Tensor) -> Tensor:
        z = self.fourier(x)
        o = self.project(F.relu(self.expand(z)))
        mask = F.relu(o - SHRINK) - F.relu(-o - SHRINK)  # soft shrinkage, in plain operators
        return self.fourier.inverse(complex_product(z, *torch.chunk(mask, 2, dim=3))) + x


def _lower_complex_pointwise(builder: GraphBuilder, z: str, blocks: int) -> str:
    channels, h = builder.shape(z)[1], builder.shape(z)[3] // 2
    a, b = builder.split(builder.conv(z, channels, groups=blocks, bias=False, name="real"), (h, h), axis=3)
    c, d = builder.split(builder.conv(z, channels, groups=blocks, bias=False, name="imaginary"), (h, h), axis=3)
    parts = [builder.binary("Sub", a, d), builder.binary("Add", b, c)]
    return builder.concat([builder.scale(part, (channels, 1, 1), op="Add") for part in parts], axis=3)


@mixers.register("affnet")
@dataclass(frozen=True)
class AFFNet(OperatorFamily):
    """Adaptive frequency filter token mixer; the filter follows the input, so its weights serve any resolution.

    Attributes:
        blocks: Blocks of the channels' block-diagonal maps.
        form: ``fft`` as published, or ``matmul``, the same map as products with constant matrices.
    """

    blocks: int = 8
    form: FourierForm = "fft"

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "Adaptive Frequency Filters As Efficient Global Token Mixers", "arXiv 2307.14008", "the product form is ours"
    )

    @property
    def grade(self) -> Grade:
        return "amber" if self.form == "matmul" else "red"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"blocks": (4, 8), "form": ("fft", "matmul")}

    def _check(self, channels: int) -> None:
        if channels % self.blocks:
            raise UsageError(f"affnet: channels must divide by {self.blocks} blocks, got {channels}.")

    def lower(self, builder: GraphBuilder, x: str) -> str:
        self._check(builder.shape(x)[1])
        z = lower_fourier(builder, x, self.form)
        with builder.scope("expand"):
            o = builder.unary("Relu", _lower_complex_pointwise(builder, z, self.blocks))
        with builder.scope("project"):
            o = _lower_complex_pointwise(builder, o, self.blocks)
        with builder.scope("shrink"):
            above = builder.unary("Relu", builder.add_operator("Sub", [o], weights=[Weight((1,), parameter=False)]))
            below = builder.add_operator("Sub", [builder.unary("Neg", o)], weights=[Weight((1,), parameter=False)])
            mask = builder.binary("Sub", above, builder.unary("Relu", below))
        y = lower_inverse_fourier(builder, lower_complex_product(builder, z, mask), builder.shape(x)[3], self.form)
        return builder.binary("Add", y, x)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        self._check(channels)
        return AdaptiveFrequencyFilter(channels, resolution, self.blocks, self.form)
