"""Convolutional additive token mixer (CAS-ViT): gates instead of a softmax, linear in the number of positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import ConvNorm, StackedConv

Gates = Literal["both", "spatial", "channel", "none"]
Gate = Literal["sigmoid", "hardsigmoid"]
_OPERATORS = {"sigmoid": "Sigmoid", "hardsigmoid": "HardSigmoid"}
_MODULES: dict[Gate, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}


@mixers.register("catm")
@dataclass(frozen=True)
class Catm(OperatorFamily):
    """DW_b(DW_a(Φ(q) + Φ'(k)) ⊙ v) with Φ(z) = channel gate(spatial gate(z)) and q, k, v one pointwise projection of x.

    Attributes:
        kernel: Of the three kinds of depthwise convolution.
        gates: Which of the two gates Φ has.
        gate: What squashes a gate; the hard one needs no 16-bit table on integer NPUs.
    """

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source(
        "CAS-ViT: Convolutional Additive Self-attention Vision Transformers for Efficient Mobile Applications",
        "arXiv 2408.03703, github.com/Tianfang-Zhang/CAS-ViT",
        "kernels other than 3, the gates and the hard sigmoid are knobs; the published form is the default",
    )
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {"kernel": (3,)}

    kernel: int = 3
    gates: Gates = "both"
    gate: Gate = "sigmoid"

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return the values that make sense."""
        return {"kernel": (3, 5), "gates": ("both", "spatial", "channel", "none"), "gate": ("sigmoid", "hardsigmoid")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        c = builder.shape(x)[1]
        q, k, v = builder.split(builder.conv(x, 3 * c, bias=False, name="qkv"), (c, c, c))
        with builder.scope("q"):
            q = self._lower_gates(builder, q)
        with builder.scope("k"):
            k = self._lower_gates(builder, k)
        context = builder.depthwise(builder.binary("Add", q, k), self.kernel, name="context")
        return builder.depthwise(builder.binary("Mul", context, v), self.kernel, name="project")

    def _lower_gates(self, builder: GraphBuilder, x: str) -> str:
        if self.gates in ("both", "spatial"):
            s = builder.depthwise(x, self.kernel, activation="Relu", name="spatial.depthwise")
            s = builder.unary(_OPERATORS[self.gate], builder.conv(s, 1, bias=False, name="spatial.map"))
            x = builder.binary("Mul", x, s)
        if self.gates in ("both", "channel"):
            s = builder.conv(builder.global_pool(x), builder.shape(x)[1], bias=False, name="channel.project")
            x = builder.binary("Mul", x, builder.unary(_OPERATORS[self.gate], s))
        return x

    def build(self, channels: int, resolution: Resolution) -> AdditiveAttention:
        """Return the training form."""
        return AdditiveAttention(channels, self)


class AdditiveAttention(nn.Module):
    """The module of `Catm`. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, knobs: Catm) -> None:
        super().__init__()

        def depthwise() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, knobs.kernel, padding=knobs.kernel // 2, groups=channels)

        self.qkv = StackedConv(channels, channels, parts=3, bias=False)
        self.gate_q = _gates(channels, knobs)
        self.gate_k = _gates(channels, knobs)
        self.context = depthwise()
        self.project = depthwise()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=1)
        return self.project(self.context(self.gate_q(q) + self.gate_k(k)) * v)


class SpatialGate(nn.Module):
    """x ⊙ gate(one map for all channels)."""

    def __init__(self, channels: int, kernel: int, gate: Gate) -> None:
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, kernel, groups=channels, bias=True)
        self.map = nn.Conv2d(channels, 1, 1, bias=False)
        self.gate = _MODULES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.map(torch.relu(self.depthwise(x))))


class ChannelGate(nn.Module):
    """x ⊙ gate(one number a channel)."""

    def __init__(self, channels: int, gate: Gate) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate = _MODULES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.project(F.adaptive_avg_pool2d(x, 1)))


def _gates(channels: int, knobs: Catm) -> nn.Sequential:
    chosen: list[nn.Module] = []
    if knobs.gates in ("both", "spatial"):
        chosen.append(SpatialGate(channels, knobs.kernel, knobs.gate))
    if knobs.gates in ("both", "channel"):
        chosen.append(ChannelGate(channels, knobs.gate))
    return nn.Sequential(*chosen)
