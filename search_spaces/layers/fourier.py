"""The real two-dimensional Fourier transform and its inverse, as FFT and as products with constant matrices."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.space import Resolution

FourierForm = Literal["fft", "matmul"]


class FourierTransform(nn.Module):
    """Orthonormal rfft2 and irfft2 of one size. (n, c, h, w) <-> (n, c, m, 2·h), m = w // 2 + 1, real beside imaginary part.

    The transposed, real layout is that of the product form, in which every step is a product of the last axis with a
    constant matrix; both forms give the same numbers.

    Args:
        resolution: (h, w).
        form: ``fft`` uses the operator ``DFT``, which NPUs lack; ``matmul`` uses products alone.
    """

    def __init__(self, resolution: Resolution, form: FourierForm) -> None:
        super().__init__()
        self.resolution, self.form = resolution, form
        if form == "matmul":
            for name, matrix in zip(("rows", "columns", "back_rows"), dft_matrices(resolution), strict=True):
                self.register_buffer(name, matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the spectrum of an image."""
        if tuple(x.shape[2:]) != self.resolution:
            raise UsageError(f"fourier: a filter of one size, got an input of {tuple(x.shape[2:])}. Expected {self.resolution}.")
        if self.form == "fft":
            spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))  # (n, c, h, m, 2)
            return spectrum.permute(0, 1, 3, 4, 2).flatten(3)
        a = x @ self._matrix("rows", x)  # (n, c, h, 2·m)
        real, imaginary = torch.chunk(a.transpose(2, 3), 2, dim=2)  # (n, c, m, h) each
        return torch.cat([real, imaginary], dim=3) @ self._matrix("columns", x)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the image of a spectrum."""
        if self.form == "fft":
            spectrum = z.unflatten(3, (2, self.resolution[0])).permute(0, 1, 4, 2, 3)  # (n, c, h, m, 2)
            return torch.fft.irfft2(torch.view_as_complex(spectrum.contiguous()), s=self.resolution, norm="ortho")
        y = z @ self._matrix("columns", z).T
        y = torch.cat(torch.chunk(y, 2, dim=3), dim=2).transpose(2, 3)  # (n, c, h, 2·m)
        return y @ self._matrix("back_rows", z)

    def _matrix(self, name: str, like: Tensor) -> Tensor:
        matrix: Tensor = self.get_buffer(name)
        return matrix.to(like.dtype)


def dft_matrices(resolution: Resolution) -> tuple[Tensor, Tensor, Tensor]:
    """Return, in float64, the matrices (w, 2·m) of the rows, (2·h, 2·h) of the columns, and (2·m, w) back along the rows.

    Source: derived from the definition; S = −sin, so that rows are x·[C | S], columns [a_r | a_i]·[[C, S], [−S, C]], and back
    [y_r | y_i]·[k·C; k·S] with k = 2 except at frequency 0 and, for even w, at w / 2.
    """
    h, w = resolution
    m = w // 2 + 1
    index = {n: torch.arange(n, dtype=torch.float64) for n in {h, w, m}}
    turn_w = 2 * torch.pi * torch.outer(index[w], index[m]) / w
    turn_h = 2 * torch.pi * torch.outer(index[h], index[h]) / h
    cos_w, sin_w = turn_w.cos() / w**0.5, -turn_w.sin() / w**0.5  # (w, m)
    cos_h, sin_h = turn_h.cos() / h**0.5, -turn_h.sin() / h**0.5  # (h, h)
    twice = torch.full((m,), 2.0, dtype=torch.float64)
    twice[0] = 1.0
    if w % 2 == 0:
        twice[-1] = 1.0
    rows = torch.cat([cos_w, sin_w], dim=1)
    columns = torch.cat([torch.cat([cos_h, sin_h], 1), torch.cat([-sin_h, cos_h], 1)])
    back = torch.cat([(cos_w * twice).T, (sin_w * twice).T])
    return rows, columns, back


def complex_product(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the product of a spectrum (n, c, m, 2·h) with complex numbers a + ib, a and b (c or n, c, m, h)."""
    real, imaginary = torch.chunk(z, 2, dim=-1)
    return torch.cat([real * a - imaginary * b, real * b + imaginary * a], dim=-1)


def lower_fourier(builder: GraphBuilder, x: str, form: FourierForm) -> str:
    """Write the transform (1, c, h, w) -> (1, c, m, 2·h) and return its output."""
    n, c, h, w = builder.shape(x)
    m = w // 2 + 1
    with builder.scope("fourier"):
        if form == "fft":
            z = builder.add_operator("DFT", [x], {"onesided": 1, "axis": 3}, shape=(n, c, h, m, 2), name="rows")
            z = builder.add_operator("DFT", [z], {"axis": 2}, shape=(n, c, h, m, 2), name="columns")
            return builder.reshape(builder.transpose(z, (0, 1, 3, 4, 2)), (n, c, m, 2 * h))
        a = builder.transpose(_constant_gemm(builder, x, 2 * m, "rows"), (0, 1, 3, 2))
        return _constant_gemm(builder, builder.concat(builder.split(a, (m, m), axis=2), axis=3), 2 * h, "columns")


def lower_inverse_fourier(builder: GraphBuilder, z: str, width: int, form: FourierForm) -> str:
    """Write the inverse (1, c, m, 2·h) -> (1, c, h, w) and return its output."""
    n, c, m, twice = builder.shape(z)
    h = twice // 2
    with builder.scope("inverse"):
        if form == "fft":
            y = builder.transpose(builder.reshape(z, (n, c, m, 2, h)), (0, 1, 4, 2, 3))
            y = builder.add_operator("DFT", [y], {"inverse": 1, "axis": 2}, shape=(n, c, h, m, 2), name="columns")
            return builder.add_operator("DFT", [y], {"inverse": 1, "axis": 3}, shape=(n, c, h, width), name="rows")
        y = builder.concat(builder.split(_constant_gemm(builder, z, 2 * h, "columns"), (h, h), axis=3), axis=2)
        return _constant_gemm(builder, builder.transpose(y, (0, 1, 3, 2)), width, "rows")


def _constant_gemm(builder: GraphBuilder, x: str, features: int, name: str) -> str:
    return builder.add_operator("Gemm", [x], weights=[Weight((features, builder.shape(x)[-1]), parameter=False)], name=name)


def lower_complex_product(builder: GraphBuilder, z: str, other: str = "") -> str:
    """Write `complex_product` of a spectrum with another, or with weights of its own shape, and return its output.

    Each part of the weights is read by two operators and is a parameter of the first alone.
    """
    _, c, m, twice = builder.shape(z)
    h = twice // 2
    with builder.scope("product"):
        real, imaginary = builder.split(z, (h, h), axis=3)
        if other:
            a, b = builder.split(other, (h, h), axis=3)
            ra, rb, ia, ib = (builder.binary("Mul", x, y) for x, y in ((real, a), (real, b), (imaginary, a), (imaginary, b)))
        else:
            ra, rb = builder.scale(real, (c, m, h)), builder.scale(real, (c, m, h))
            ia, ib = (builder.scale(imaginary, (c, m, h), parameter=False) for _ in "ab")
        return builder.concat([builder.binary("Sub", ra, ib), builder.binary("Add", rb, ia)], axis=3)
