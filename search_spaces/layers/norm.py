"""Normalisations of (n, c, h, w) by name, as modules and as operators."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder

Norm = Literal["none", "batch", "layer", "group"]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each position. (n, c, h, w) -> (n, c, h, w)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the method that it overrides
        x = F.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ChannelAffine(nn.Module):
    """x·scale + shift of each channel: a batch norm with fixed statistics, in plain operators. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.detach().to(dtype).view(-1, 1, 1))
        self.shift = nn.Parameter(shift.detach().to(dtype).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def lower_norm(builder: GraphBuilder, x: str, name: Norm) -> str:
    """Write the normalisation called `name` and return its output; a batch norm is written as it stands, not folded."""
    channels = builder.shape(x)[1]
    if name == "batch":
        return builder.norm("BatchNormalization", x, channels)
    if name == "layer":
        x = builder.transpose(x, (0, 2, 3, 1))
        x = builder.norm("LayerNormalization", x, channels, axis=-1)
        return builder.transpose(x, (0, 3, 1, 2))
    if name == "group":
        return builder.norm("GroupNormalization", x, channels, num_groups=1)
    return x
