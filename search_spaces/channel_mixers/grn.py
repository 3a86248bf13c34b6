"""The perceptron with global response normalisation between its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, channel_mixers
from nas.spaces.space import Resolution
from search_spaces.layers.activation import Activation, activation, lower_activation

EPSILON = 1e-6


class GlobalResponseNorm(nn.Module):
    """v·(γ·g / mean_c g + 1) + β, with g_c the 2-norm of channel c over positions. (n, c, h, w) -> (n, c, h, w).

    Source: Woo et al., ConvNeXt V2, arXiv 2301.00808.
    """

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        g = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
        share = g / (g.mean(1, keepdim=True) + EPSILON)
        y = x * (self.weight.view(1, -1, 1, 1) * share + 1)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


class ResponsePerceptron(nn.Module):
    """PW → activation → GRN → PW; deploys with the norm's shift inside the second layer. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int, act: Activation) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.act = activation(act)
        self.norm = GlobalResponseNorm(hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.norm(self.act(self.expand(x))))

    def fuse(self) -> nn.Module:
        """Return the deploy form: b' = b + W·β."""
        import copy

        fused = copy.deepcopy(self)
        if self.norm.bias is not None and fused.project.bias is not None:
            shift = self.project.weight.double().flatten(1) @ self.norm.bias.double()
            fused.norm.bias = None
            with torch.no_grad():
                fused.project.bias.copy_(fused.project.bias.double() + shift)
        return fused


def lower_grn(builder: GraphBuilder, x: str) -> str:
    """Write `GlobalResponseNorm` without its shift and return its output."""
    channels = builder.shape(x)[1]
    with builder.scope("grn"):
        g = builder.reduce("ReduceL2", x, (2, 3))
        mean = builder.scale(builder.reduce("ReduceMean", g, (1,)), (1,), op="Add", parameter=False, name="epsilon")
        share = builder.binary("Div", g, mean)
        gain = builder.scale(share, (channels, 1, 1), name="weight")
        gain = builder.add_operator("Add", [gain], weights=[Weight((1,), parameter=False)], name="one")
        return builder.binary("Mul", x, gain)


@channel_mixers.register("grn")
@dataclass(frozen=True)
class GRN(OperatorFamily):
    """PW(e·C) → activation → GRN → PW(C).

    Attributes:
        expansion: Hidden channels by channels.
        activation: GELU as published.
    """

    expansion: int = 4
    activation: Activation = "gelu"

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source("ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", "arXiv 2301.00808")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"expansion": (2, 3, 4), "activation": ("relu", "hardswish", "gelu")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        channels = builder.shape(x)[1]
        x = lower_activation(builder, builder.conv(x, self.expansion * channels, name="expand"), self.activation)
        return builder.conv(lower_grn(builder, x), channels, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ResponsePerceptron(channels, self.expansion * channels, self.activation)
