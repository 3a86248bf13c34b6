"""Recursive gated convolution: features of growing width gate one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import convolution
from search_spaces.layers.fourier import FourierForm, lower_complex_product, lower_fourier, lower_inverse_fourier
from search_spaces.layers.norm import LayerNorm2d, lower_norm
from search_spaces.mixers.spectral import GlobalFilter

SCALE = 1 / 3
Filter = Literal["depthwise", "global"]


class ConvList(nn.Module):
    """Convolutions of one input, or of the parts of one, run as one with stacked weights; deploys as that one.

    Kept apart as parameters, so that a narrower member slices each of them and not their stack.
    (n, c, h, w) -> (n, Σ c_i, h, w)
    """

    def __init__(self, channels: int, widths: tuple[int, ...], kernel: int = 1, *, depthwise: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.groups, self.scale = (sum(widths) if depthwise else 1), scale
        self.convs = nn.ModuleList(
            nn.Conv2d(width if depthwise else channels, width, kernel, padding=kernel // 2, groups=width if depthwise else 1)
            for width in widths
        )

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of the one convolution."""
        weight, bias = (torch.cat([getattr(conv, name) for conv in self.convs]) for name in ("weight", "bias"))
        return weight * self.scale, bias * self.scale

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.stacked()
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=self.groups)

    def fuse(self) -> nn.Module:
        """Return the one convolution."""
        weight, bias = self.stacked()
        like = nn.Conv2d(weight.shape[1] * self.groups, weight.shape[0], 1, groups=self.groups, device=weight.device, dtype=weight.dtype)
        return convolution(like, weight, bias, training=self.training)


class GlobalLocalFilter(nn.Module):
    """LN → depthwise 3×3 on one half, global filter on the other, interleaved → LN. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, resolution: Resolution, form: FourierForm, scale: float) -> None:
        super().__init__()
        half = channels // 2
        self.scale = scale
        self.before = LayerNorm2d(channels, eps=1e-6)
        self.local = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.filter = GlobalFilter(half, resolution, form)
        self.after = LayerNorm2d(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        first, second = torch.chunk(self.before(x), 2, dim=1)
        x = torch.stack([self.local(first), self.filter(second)], dim=2).reshape(n, c, h, w)
        return self.after(x) * self.scale

    def fuse(self) -> nn.Module:
        """Return the deploy form: the scale goes into the second norm."""
        import copy

        fused = copy.deepcopy(self)
        with torch.no_grad():
            fused.after.weight.mul_(self.scale)
            fused.after.bias.mul_(self.scale)
        fused.scale = 1.0
        return fused


def widths(channels: int, order: int) -> tuple[int, ...]:
    """Return the widths C / 2^(n − 1), …, C / 2, C of the gated features.

    Raises:
        UsageError: The channels do not halve so often.
    """
    if channels % 2 ** (order - 1):
        raise UsageError(f"hornet: channels must divide by {2 ** (order - 1)} at order {order}, got {channels}.")
    return tuple(channels >> i for i in reversed(range(order)))


class RecursiveGatedConv(nn.Module):
    """gⁿConv. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, order: int, spatial: nn.Module) -> None:
        super().__init__()
        self.widths = widths(channels, order)
        self.expand = ConvList(channels, (self.widths[0], *self.widths))
        self.spatial = spatial
        self.project = nn.Conv2d(channels, channels, 1)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(self.widths, self.widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        p, q = torch.split(self.expand(x), [self.widths[0], sum(self.widths)], dim=1)
        first, *rest = torch.split(self.spatial(q), list(self.widths), dim=1)
        p = p * first
        for step, gate in zip(self.steps, rest, strict=True):
            p = step(p) * gate
        return self.project(p)


@mixers.register("hornet")
@dataclass(frozen=True)
class HorNet(OperatorFamily):
    """Recursive gated convolution.

    Attributes:
        order: Number of gated features.
        kernel: Odd size of the depthwise convolution.
        filter: ``depthwise``, or ``global``: half depthwise 3×3, half global filter, between layer norms.
        form: Of the global filter; see `spectral`.
    """

    order: int = 3
    kernel: int = 7
    filter: Filter = "depthwise"
    form: FourierForm = "matmul"

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions", "arXiv 2207.14284"
    )

    @property
    def grade(self) -> Grade:
        return "red" if (self.filter, self.form) == ("global", "fft") else "amber"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"order": (2, 3, 4, 5), "kernel": (3, 5, 7, 9, 11), "filter": ("depthwise", "global"), "form": ("matmul", "fft")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        parts = widths(channels, self.order)
        p, q = builder.split(builder.conv(x, 2 * channels, name="expand"), (parts[0], sum(parts)))
        q = builder.depthwise(q, self.kernel, name="spatial") if self.filter == "depthwise" else self._lower_global(builder, q)
        first, *rest = builder.split(q, parts)
        p = builder.binary("Mul", p, first)
        for i, gate in enumerate(rest):
            p = builder.binary("Mul", builder.conv(p, parts[i + 1], name=f"steps.{i}"), gate)
        return builder.conv(p, channels, name="project")

    def _lower_global(self, builder: GraphBuilder, q: str) -> str:
        n, c, h, w = builder.shape(q)
        first, second = builder.split(lower_norm(builder, q, "layer"), (c // 2, c // 2))
        first = builder.depthwise(first, 3, bias=False, name="local")
        z = lower_complex_product(builder, lower_fourier(builder, second, self.form))
        second = lower_inverse_fourier(builder, z, w, self.form)
        both = builder.concat([builder.reshape(part, (n, c // 2, 1, h, w)) for part in (first, second)], axis=2)
        return lower_norm(builder, builder.reshape(both, (n, c, h, w)), "layer")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        parts = widths(channels, self.order)
        if self.filter == "global":
            return RecursiveGatedConv(channels, self.order, GlobalLocalFilter(sum(parts), resolution, self.form, SCALE))
        return RecursiveGatedConv(channels, self.order, ConvList(sum(parts), parts, self.kernel, depthwise=True, scale=SCALE))
