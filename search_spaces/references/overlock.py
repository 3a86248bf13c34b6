"""OverLoCK: an overview of the picture first, then a closer look with kernels mixed from the overview's context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.grn import GlobalResponseNorm
from search_spaces.layers.channel_attention import SqueezeExcite
from search_spaces.layers.convolution import ConvBranches, ConvNorm, NormConv, ResidualDepthwise
from search_spaces.layers.norm import LayerNorm2d

KERNELS = (17, 15, 13, 7)
SMALL, REGIONS, SIDE, HEAD, EPSILON = 5, 7, 224, 1024, 1e-6
"""Small kernel, regions a side of the context, side of a picture, features before the classifier, of the norms."""

BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (7, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    7: ((5, 1), (3, 1), (3, 2), (3, 3)),
}
"""Kernel and dilation of the branches beside a large depthwise convolution."""


@dataclass(frozen=True)
class Configuration:
    """Widths and depths of the four stages of the overview, depths and heads of the two of the closer look."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    closer: tuple[int, int]
    heads: tuple[int, int]


CONFIGURATIONS = {
    "overlock_xt": Configuration((56, 112, 256, 336), (2, 2, 3, 2), (6, 2), (4, 6)),
    "overlock_t": Configuration((64, 128, 256, 512), (4, 4, 6, 2), (12, 2), (4, 8)),
    "overlock_s": Configuration((64, 128, 320, 512), (6, 6, 8, 3), (16, 3), (8, 16)),
    "overlock_b": Configuration((80, 160, 384, 576), (8, 8, 10, 4), (20, 4), (6, 9)),
}


class Scale(nn.Module):
    """x ⊙ γ + β of each channel. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, start: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), start))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma + self.beta


def large(channels: int, kernel: int) -> nn.Module:
    """Return a large depthwise convolution with dilated branches beside it, then a batch norm."""
    convolutions = [ConvNorm(channels, channels, kernel, groups=channels)]
    convolutions += [ConvNorm(channels, channels, k, dilation=r, groups=channels) for k, r in BRANCHES[kernel]]
    return nn.Sequential(ConvBranches(convolutions), nn.BatchNorm2d(channels))


def excite(channels: int) -> nn.Module:
    """Return squeeze-and-excite with GELU inside."""
    return GELUExcite(channels, max(16, channels // 8))


class GELUExcite(SqueezeExcite):
    """`SqueezeExcite` with GELU in place of ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(F.gelu(self.reduce(x.mean((2, 3), keepdim=True)))))


def perceptron(channels: int, hidden: int) -> nn.Module:
    """Return PW → GELU → x + DW3 x → response norm → PW."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.GELU(), ResidualDepthwise(hidden), GlobalResponseNorm(hidden), nn.Conv2d(hidden, channels, 1)
    )


class OverviewBlock(nn.Module):
    """y = x + DW3 x, then y + MLP(SE(large depthwise(norm y))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int, *, scaled: bool) -> None:
        super().__init__()
        self.local = ResidualDepthwise(channels)
        self.body = nn.Sequential(
            LayerNorm2d(channels, eps=EPSILON), large(channels, kernel), excite(channels), perceptron(channels, 4 * channels)
        )
        self.scale = Scale(channels) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(x)
        return self.scale(x) + self.body(x)


def windows(side: int, kernel: int) -> tuple[Tensor, Tensor]:
    """Return which positions each one sees, and which entry of a table of displacements belongs to it, both (side², kernel²).

    Windows are moved inside at the edges, as in neighbourhood attention.
    """
    axis = torch.arange(side)
    start = (axis - kernel // 2).clamp(0, side - kernel)
    positions = start[:, None] + torch.arange(kernel)
    moved = positions - axis[:, None] + kernel - 1
    places = (positions[:, None, :, None] * side + positions[None, :, None, :]).reshape(side**2, kernel**2)
    entries = (moved[:, None, :, None] * (2 * kernel - 1) + moved[None, :, None, :]).reshape(side**2, kernel**2)
    return places, entries


class MixedConvolution(nn.Module):
    """Each position's own kernels for groups of channels, softmax of weights + table over a window. weights, (n, c, s, s) -> (n, c, s, s).

    Args:
        groups: Of channels.
        side: s.
        kernel: Of the window.
    """

    places: Tensor
    entries: Tensor

    def __init__(self, groups: int, side: int, kernel: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(groups, (2 * kernel - 1) ** 2))
        for name, value in zip(("places", "entries"), windows(side, kernel), strict=True):
            self.register_buffer(name, value, persistent=False)

    def forward(self, weights: Tensor, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        groups = self.table.shape[0]
        weights = (weights + self.table[:, self.entries]).softmax(3).unsqueeze(3)  # (n, groups, positions, 1, window)
        values = x.reshape(n, groups, c // groups, h * w).transpose(2, 3)[:, :, self.places]
        return (weights @ values).squeeze(3).transpose(2, 3).reshape(n, c, h, w)


class CloserBlock(nn.Module):
    """Context-mixed dynamic convolution of the map beside its context, then a perceptron. (n, c + c', s, s) -> (n, c + c', s, s).

    Args:
        channels: c, of the map.
        context: c', of the context.
        side: s.
        kernel: Of the large window.
        heads: Half the groups.
        first: Whether the context is the overview's own.
    """

    def __init__(self, channels: int, context: int, side: int, kernel: int, heads: int, *, first: bool) -> None:
        super().__init__()
        both, self.groups, self.sizes = channels + context, 2 * heads, [channels, context]
        self.scale_own, self.scale_first = (nn.Identity() if first else Scale(context) for _ in range(2))
        self.first = first
        self.local1, self.norm1 = ResidualDepthwise(both), LayerNorm2d(both, eps=EPSILON)
        self.join = nn.Sequential(
            ConvNorm(both, both, 3, groups=both, bias=True), nn.GELU(), nn.Conv2d(both, channels, 1), GlobalResponseNorm(channels)
        )
        self.query, self.key = ConvNorm(channels, channels // 2), ConvNorm(context, channels // 2)
        self.taps = [SMALL**2, kernel**2]
        self.weights = nn.Conv2d(REGIONS**2, sum(self.taps), 1)
        self.near, self.far = (MixedConvolution(self.groups, side, k) for k in (SMALL, kernel))
        self.mix = ConvNorm(channels, channels)
        self.large, self.excite = large(channels, kernel), excite(channels)
        self.gate = nn.Sequential(ConvNorm(channels, channels), nn.SiLU())
        self.project = NormConv(channels, both)
        self.local2, self.norm2 = ResidualDepthwise(both), LayerNorm2d(both, eps=EPSILON)
        self.mlp = nn.Sequential(
            nn.Conv2d(both, 3 * channels, 1),
            nn.GELU(),
            ResidualDepthwise(3 * channels),
            GlobalResponseNorm(3 * channels),
            nn.Conv2d(3 * channels, both, 1),
        )
        self.scale1, self.scale2 = Scale(both), Scale(both)

    def kernels(self, joined: Tensor) -> tuple[Tensor, ...]:
        """Return the weights of the small and the large window, each (n, groups, positions, taps)."""
        n = joined.shape[0]
        own, context = joined.split(self.sizes, dim=1)
        q, k = self.query(own), self.key(F.adaptive_avg_pool2d(context, REGIONS))
        q, k = (part.reshape(n, self.groups, -1, part.shape[2] * part.shape[3]) for part in (q, k))
        width = self.sizes[0] // self.groups
        affinity = (q.transpose(2, 3) * width**-0.5) @ k  # (n, groups, positions, regions)
        weights = self.weights(affinity.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return weights.split(self.taps, dim=3)

    def forward(self, x: Tensor, context: Tensor, overview: Tensor) -> Tensor:
        if not self.first:
            context = self.scale_own(context) + self.scale_first(overview)
        joined = self.local1(torch.cat([x, context], dim=1))
        normed = self.norm1(joined)
        x = self.join(normed)
        near, far = self.kernels(normed)
        first, second = x.chunk(2, dim=1)
        y = self.mix(torch.cat([self.near(near, first), self.far(far, second)], dim=1)) + self.large(x)
        joined = self.scale1(joined) + self.project(self.gate(x) * self.excite(y))
        joined = self.local2(joined)
        return self.scale2(joined) + self.mlp(self.norm2(joined))


class OverLoCKNet(nn.Module):
    """Base, overview and closer look. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, num_classes: int) -> None:
        super().__init__()
        widths, kernels = configuration.widths, KERNELS
        half = widths[0] // 2
        self.stem = nn.Sequential(
            *(ConvNorm(3, half, 3, stride=2), nn.GELU(), ConvNorm(half, half, 3), nn.GELU()),
            *(ConvNorm(half, widths[0], 3, stride=2), nn.GELU(), ConvNorm(widths[0], widths[0], 3)),
        )
        stages = []
        for stage, (width, depth) in enumerate(zip(widths, configuration.depths, strict=True)):
            down = [ConvNorm(widths[stage - 1], width, 3, stride=2)] if stage else []
            stages.append(nn.Sequential(*down, *(OverviewBlock(width, kernels[stage], scaled=stage > 1) for _ in range(depth))))
        self.base, self.overview = nn.Sequential(*stages[:3]), stages[3]
        self.context = context = widths[3] // 4
        self.narrow = nn.Conv2d(widths[3], context, 1)
        closer = [
            nn.ModuleList(
                CloserBlock(widths[2 + i], context, SIDE >> 4 + i, kernels[2 + i], configuration.heads[i], first=not i and not j)
                for j in range(configuration.closer[i])
            )
            for i in range(2)
        ]
        self.closer3, self.closer4 = closer
        self.down = nn.ModuleList([ConvNorm(widths[2], widths[3], 3, stride=2), ConvNorm(context, context, 3, stride=2)])
        self.widths = widths
        self.features = nn.Sequential(ConvNorm(widths[3] + context, HEAD), nn.SiLU())
        self.head = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.base(self.stem(x))
        overview = self.narrow(self.overview(x))
        wide = context = F.interpolate(overview, x.shape[2:], mode="bilinear", align_corners=False)
        for block in self.closer3:
            x, context = block(x, context, wide).split([self.widths[2], self.context], dim=1)
        x, context = self.down[0](x), self.down[1](context)
        for block in self.closer4:
            joined = block(x, context, overview)
            x, context = joined.split([self.widths[3], self.context], dim=1)
        return self.head(self.features(joined).mean((2, 3)))


@references.register("overlock")
class OverLoCK(ReferenceSystem):
    """OverLoCK XT, T, S and B."""

    source: ClassVar[Source] = Source(
        "OverLoCK: An Overview-first-Look-Closely-next ConvNet with Context-Mixing Dynamic Kernels",
        "arXiv 2502.20087, github.com/LMMMEng/OverLoCK",
        "windows are gathered where the original has a kernel of its own; the classifier of the overview, which only trains, is left out",
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("OverLoCK", "overlock_xt", 16_434_596, 2_699_959_912, (224, 224), "", 16_969_600, 82.7, "official repository's README"),
        Variant("OverLoCK", "overlock_t", 33_432_032, 5_642_758_464, (224, 224), "", 34_476_448, 84.2, "official repository's README"),
        Variant("OverLoCK", "overlock_s", 56_102_180, 9_889_641_280, (224, 224), "", 57_795_748, 84.8, "official repository's README"),
        Variant("OverLoCK", "overlock_b", 94_862_624, 17_089_982_864, (224, 224), "", 97_434_816, 85.1, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return OverLoCKNet(CONFIGURATIONS[name], num_classes)
