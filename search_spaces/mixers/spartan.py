"""SpaRTAN's spatial mixer: two orders of context, each with squeeze-and-excite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, fuse, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import lower_activation
from search_spaces.layers.channel_attention import SqueezeExcite, lower_squeeze_excite
from search_spaces.layers.convolution import ConvNorm, convolution

Groups = Literal["dense", "depthwise"]
EPSILON = 1e-6


class MultiOrderMixer(nn.Module):
    """PW, contrast to the mean, near and far convolutions with squeeze-and-excite, PW. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int, dilation: int, groups: int) -> None:
        super().__init__()
        half = channels // 2
        self.contrast = nn.Parameter(torch.full((1, half, 1, 1), 1e-5))
        self.reduce = nn.Conv2d(channels, half, 1)
        self.near = ConvNorm(half, half, kernel, groups=groups, eps=EPSILON)
        padding = kernel // 2 * dilation
        self.reach = nn.Conv2d(half, half, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
        self.far = ConvNorm(half, half, kernel, dilation=dilation, groups=groups, eps=EPSILON)
        self.near_attention = SqueezeExcite(half, half // 4)
        self.far_attention = SqueezeExcite(half, half // 4)
        # the published projection of both halves at once, kept apart so that a narrower member slices each
        self.project_near = nn.Conv2d(half, channels, 1)
        self.project_far = nn.Conv2d(half, channels, 1, bias=False)

    def mixed(self, x: Tensor) -> Tensor:
        """Return what the projection reads: both contexts side by side, (n, c, h, w)."""
        u = self.reduce(x)
        u = u + self.contrast * (u - u.mean((2, 3), keepdim=True))
        near = self.near_attention(F.gelu(self.near(u)))
        return torch.cat([near, self.far_attention(F.gelu(self.far(self.reach(u))))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([self.project_near.weight, self.project_far.weight], dim=1)
        return F.conv2d(self.mixed(x), weight, self.project_near.bias)

    def fuse(self) -> nn.Module:
        """Return the deploy form: norms folded, one projection."""
        return MultiOrderMixerDeployed(self)


class MultiOrderMixerDeployed(nn.Module):
    """The deploy form of `MultiOrderMixer`. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, trained: MultiOrderMixer) -> None:
        super().__init__()
        self.contrast, self.reduce, self.reach = trained.contrast, trained.reduce, trained.reach
        self.near, self.far = fuse(trained.near), fuse(trained.far)
        self.near_attention, self.far_attention = trained.near_attention, trained.far_attention
        near, far = trained.project_near, trained.project_far
        assert near.bias is not None
        like = nn.Conv2d(2 * near.in_channels, near.out_channels, 1, device=near.weight.device, dtype=near.weight.dtype)
        self.project = convolution(like, torch.cat([near.weight, far.weight], dim=1), near.bias, training=trained.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(MultiOrderMixer.mixed(self, x))  # type: ignore[arg-type]


@mixers.register("spartan")
@dataclass(frozen=True)
class SpaRTAN(OperatorFamily):
    """Multi-order spatial mixer.

    Attributes:
        kernel: Odd size of all convolutions.
        dilation: Of the two far convolutions.
        groups: ``dense`` as published in the first half of the network, ``depthwise`` in the second.
    """

    kernel: int = 3
    dilation: int = 2
    groups: Groups = "depthwise"

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source("SpaRTAN: Spatial Reinforcement Token-based Aggregation Network", "arXiv 2507.10999")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": (3, 5), "dilation": (1, 2, 3), "groups": ("dense", "depthwise")}

    def _half(self, channels: int) -> int:
        if channels % 8:
            raise UsageError(f"spartan: channels must divide by 8, got {channels}.")
        return channels // 2

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        half = self._half(channels)
        groups = half if self.groups == "depthwise" else 1
        u = builder.conv(x, half, name="reduce")
        with builder.scope("contrast"):
            difference = builder.binary("Sub", u, builder.global_pool(u))
            u = builder.binary("Add", u, builder.scale(difference, (1, half, 1, 1)))
        near = lower_activation(builder, builder.conv(u, half, self.kernel, groups=groups, name="near"), "gelu")
        far = builder.conv(u, half, self.kernel, dilation=self.dilation, groups=groups, bias=False, name="reach")
        far = builder.conv(far, half, self.kernel, dilation=self.dilation, groups=groups, name="far")
        far = lower_activation(builder, far, "gelu")
        both = builder.concat([lower_squeeze_excite(builder, part, half // 4) for part in (near, far)])
        return builder.conv(both, channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        half = self._half(channels)
        return MultiOrderMixer(channels, self.kernel, self.dilation, half if self.groups == "depthwise" else 1)
