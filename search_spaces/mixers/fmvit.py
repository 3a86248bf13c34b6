"""Multi-frequency mixing (FMViT): attention for the low frequencies, convolution for the high, both fusible."""

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
from search_spaces.layers.attention import attend, heads_of, lower_attend
from search_spaces.layers.convolution import ConvNorm
from search_spaces.mixers.spatial_reduction import CoveringPool, pooling_pads
from search_spaces.reparam.multi_group import multi_group

GROUP_WIDTH = 32
"""Least channels a group of the 3×3 convolution, as in Next-ViT."""


@mixers.register("fmvit")
@dataclass(frozen=True)
class FMViT(OperatorFamily):
    """A convolutional path and an attentive path on parts of the channels, joined by a multi-group projection.

    All projections are multi-group pointwise convolutions, Σ_g BN(PW with g groups), which deploy as one.

    Attributes:
        path: ``mix`` gives each path half of the channels; ``convolution`` (CFB) or ``attention`` (RLMHSA) gives it all.
        reduction: By how much keys and values are average-pooled a side (rounded up).
        groups: Largest group count of the projections, 1, 2, 4, … up to it being summed.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "FMViT: A Multiple-Frequency Mixing Vision Transformer",
        "arXiv 2311.05707",
        "no code is public: group counts, the split of the channels and the convolutional block are our reading, after Next-ViT",
    )

    path: Literal["mix", "convolution", "attention"] = "mix"
    reduction: int = 2
    groups: int = 4
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"path": ("mix", "convolution", "attention"), "reduction": (1, 2, 4), "groups": (2, 4, 8)}

    @property
    def grade(self) -> Grade:
        """Convolutions alone are green."""
        return "green" if self.path == "convolution" else "amber"

    def widths(self, channels: int) -> tuple[int, int]:
        """Return the channels of the attentive and of the convolutional path.

        Raises:
            UsageError: A path's channels do not divide into the groups.
        """
        parts = 2 if self.path == "mix" else 1
        if channels % (parts * self.groups):
            raise UsageError(f"fmvit: channels must divide by {parts * self.groups} for path {self.path!r}, got {channels}.")
        return {"mix": (channels // 2, channels // 2), "convolution": (0, channels), "attention": (channels, 0)}[self.path]

    def lower(self, builder: GraphBuilder, x: str) -> str:
        c = builder.shape(x)[1]
        low, high = self.widths(c)
        parts = builder.split(x, (low, high)) if low and high else (x,)
        paths = []
        if low:
            with builder.scope("attention"):
                paths.append(self._lower_attention(builder, parts[0]))
        if high:
            groups = heads_of(high, GROUP_WIDTH)
            with builder.scope("convolution"):
                y = builder.conv(parts[-1], high, 3, groups=groups, activation="Relu", name="group")
                paths.append(builder.conv(y, high, name="project"))
        return paths[0] if len(paths) == 1 else builder.conv(builder.concat(paths), c, name="join")

    def _lower_attention(self, builder: GraphBuilder, x: str) -> str:
        c, r, y = builder.shape(x)[1], self.reduction, x
        if r > 1:
            pads = pooling_pads(builder.shape(x)[2:], r)
            y = builder.pool("AveragePool", x, r, pads=(*pads, *pads), count_include_pad=0)
        q, k, v = builder.conv(x, c, name="query"), builder.conv(y, c, name="key"), builder.conv(y, c, name="value")
        return builder.conv(lower_attend(builder, q, k, v, heads_of(c, self.head_dim)), c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        low, high = self.widths(channels)
        if not high:
            return ReparameterisedAttention(low, self)
        if not low:
            return FusionBlock(high, self.groups)
        return FrequencyMixer(low, high, self)


class ReparameterisedAttention(nn.Module):
    """Attention to a pooled map whose four projections are multi-group convolutions (RLMHSA). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, knobs: FMViT) -> None:
        super().__init__()
        self.heads = heads_of(channels, knobs.head_dim)
        self.pool = CoveringPool(knobs.reduction) if knobs.reduction > 1 else nn.Identity()
        self.query = multi_group(channels, channels, knobs.groups)
        self.key = multi_group(channels, channels, knobs.groups)
        self.value = multi_group(channels, channels, knobs.groups)
        self.project = multi_group(channels, channels, knobs.groups)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        return self.project(attend(self.query(x), self.key(pooled), self.value(pooled), self.heads))


class FusionBlock(nn.Module):
    """Grouped 3×3 convolution, batch norm, ReLU and a multi-group projection (CFB). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, most: int) -> None:
        super().__init__()
        self.group = ConvNorm(channels, channels, 3, groups=heads_of(channels, GROUP_WIDTH))
        self.project = multi_group(channels, channels, most)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.relu(self.group(x)))


class FrequencyMixer(nn.Module):
    """Both paths side by side (FMB without its residual). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, low: int, high: int, knobs: FMViT) -> None:
        super().__init__()
        self.sizes = (low, high)
        self.attention = ReparameterisedAttention(low, knobs)
        self.convolution = FusionBlock(high, knobs.groups)
        self.join = multi_group(low + high, low + high, knobs.groups)

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.split(self.sizes, dim=1)
        return self.join(torch.cat([self.attention(low), self.convolution(high)], dim=1))
