"""Global filter: every channel is multiplied, frequency by frequency, with learned complex numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
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


class GlobalFilter(nn.Module):
    """irfft2(rfft2(x) ⊙ W), a circular depthwise convolution as large as the map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, resolution: Resolution, form: FourierForm) -> None:
        super().__init__()
        self.fourier = FourierTransform(resolution, form)
        # real and imaginary part on an axis of their own, so that the others interpolate to another resolution
        self.weight = nn.Parameter(torch.randn(channels, 2, resolution[1] // 2 + 1, resolution[0]) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.unbind(self.weight, dim=1)
        return self.fourier.inverse(complex_product(self.fourier(x), a, b))


@mixers.register("spectral")
@dataclass(frozen=True)
class Spectral(OperatorFamily):
    """Spectral gating of GFNet and SpectFormer; its weights belong to one resolution.

    Attributes:
        form: ``fft`` as published, which needs the operator ``DFT``; ``matmul`` is the same map as products with constant
            matrices, cheap at 28×28 and below.
    """

    form: FourierForm = "fft"

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "Global Filter Networks for Image Classification", "arXiv 2107.00645; SpectFormer, arXiv 2304.06446", "the product form is ours"
    )

    @property
    def grade(self) -> Grade:
        return "amber" if self.form == "matmul" else "red"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"form": ("fft", "matmul")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        z = lower_complex_product(builder, lower_fourier(builder, x, self.form))
        return lower_inverse_fourier(builder, z, builder.shape(x)[3], self.form)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return GlobalFilter(channels, resolution, self.form)
