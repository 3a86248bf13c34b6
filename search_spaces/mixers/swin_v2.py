"""Attention in windows by the angle between queries and keys, with positions from a small network (Swin V2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of, lower_joined_heads, lower_stacked_heads
from search_spaces.layers.windows import ChannelsLast, Tiling, displacements, for_batch

HIDDEN = 512
"""Width of the network that gives the position bias."""
EPSILON = 1e-12
LARGEST_SCALE = 100.0
"""Of the learned factor of a head's cosines (paper, equation 2: τ is no smaller than .01)."""


@mixers.register("swin-v2")
@dataclass(frozen=True)
class SwinV2(OperatorFamily):
    """softmax(cos(q, k) / τ + bias)·v inside windows, τ learned for each head; the bias is a constant when deployed.

    Attributes:
        window: Largest window, in positions a side.
        shift: Whether the windows are displaced by half a window.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Swin Transformer V2: Scaling Up Capacity and Resolution",
        "arXiv 2111.09883",
        "where the map is no multiple of the window, windows shrink to fit before anything is padded, and padding is masked",
    )

    window: int = 8
    shift: bool = False
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"window": (7, 8, 16), "shift": (False, True), "head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        _, channels, h, w = builder.shape(x)
        tiling, heads = self._tiling((h, w)), heads_of(channels, self.head_dim)
        groups = tiling.lower_cut(builder, builder.transpose(x, (0, 2, 3, 1)))
        _, positions, c = builder.shape(groups)
        q, k, v = lower_stacked_heads(builder, groups, heads)
        q = builder.scale(_lower_unit(builder, q), (heads, 1, 1), parameter=False)
        bias = Weight((1 if tiling.plain else tiling.groups, heads, positions, positions), parameter=False)
        y = builder.add_operator("Attention", [q, _lower_unit(builder, k), v], {"scale": 1.0}, weights=[bias])
        y = lower_joined_heads(builder, y)
        return builder.transpose(tiling.lower_mend(builder, builder.gemm(y, c, name="project")), (0, 3, 1, 2))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ChannelsLast(CosineAttention(channels, heads_of(channels, self.head_dim), self._tiling(resolution)))

    def _tiling(self, resolution: Resolution) -> Tiling:
        return Tiling.of(resolution, (self.window, self.window), self.shift)


def _lower_unit(builder: GraphBuilder, x: str) -> str:
    length = builder.unary("Clip", builder.reduce("ReduceL2", x, (3,)), min=EPSILON)
    return builder.binary("Div", x, length)


def unit(x: Tensor) -> Tensor:
    """Divide by the length along the last axis."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(EPSILON)


class ContinuousPositions(nn.Module):
    """Position bias 16·σ(MLP(displacement)), of displacements on a logarithmic scale. -> (1, heads, positions, positions).

    Args:
        window: Height and width of a window.
        heads: Number of heads.

    Source: arXiv 2111.09883, equations 3 and 4; the sigmoid is the official code's.
    """

    coordinates: Tensor
    index: Tensor

    def __init__(self, window: Resolution, heads: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, HIDDEN)
        self.out = nn.Linear(HIDDEN, heads, bias=False)
        high, wide = window
        axes = [torch.arange(1 - side, side, dtype=torch.float32) / max(side - 1, 1) * 8 for side in window]
        steps = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=2).flatten(0, 1)
        self.register_buffer("coordinates", steps.sign() * (steps.abs() + 1).log2() / 3, persistent=False)
        row, column = displacements(window)
        self.register_buffer("index", (row + high - 1) * (2 * wide - 1) + column + wide - 1, persistent=False)

    def forward(self) -> Tensor:
        table = 16 * torch.sigmoid(self.out(torch.relu(self.hidden(self.coordinates.to(self.out.weight.dtype)))))
        return table[self.index.flatten()].view(*self.index.shape, -1).permute(2, 0, 1).unsqueeze(0)


class CosineAttention(nn.Module):
    """Attention by cosines inside windows, in its training form. (n, h, w, c) -> (n, h, w, c).

    Args:
        channels: c.
        heads: Divides `channels`.
        tiling: How the map is cut.
    """

    mask: Tensor | None

    def __init__(self, channels: int, heads: int, tiling: Tiling) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.positions = ContinuousPositions(tiling.window, heads)
        self.qkv = StackedLinear(channels, channels, parts=3, bias=False)
        self.project = nn.Linear(channels, channels)
        self.register_buffer("mask", None if tiling.plain else tiling.mask(), persistent=False)

    def scale(self) -> Tensor:
        """Return the factor of each head's cosines, (heads, 1, 1)."""
        return self.log_scale.clamp(max=math.log(LARGEST_SCALE)).exp()

    def bias(self) -> Tensor:
        """Return what is added to the logits, (1 or groups, heads, positions, positions)."""
        bias: Tensor = self.positions()
        return bias if self.mask is None else bias + self.mask.to(bias.dtype)

    def qkv_bias(self) -> Tensor:
        """Return the bias of the stacked projection; keys have none."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(self, x: Tensor) -> Tensor:
        groups = self.tiling.cut(x)
        parts = F.linear(groups, self.qkv.weight, self.qkv_bias())
        return self.tiling.mend(self.project(_attend(parts, self.heads, self.scale(), self.bias())))

    def fuse(self) -> nn.Module:
        """Return the form whose scale and position bias are constants.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedCosineAttention(self)


class BakedCosineAttention(nn.Module):
    """`CosineAttention` with constant scale, position bias and mask. (n, h, w, c) -> (n, h, w, c)."""

    scale: Tensor
    bias: Tensor

    def __init__(self, trained: CosineAttention) -> None:
        super().__init__()
        self.heads, self.tiling = trained.heads, trained.tiling
        channels = trained.project.in_features
        weight = trained.qkv.weight
        self.qkv = nn.Linear(channels, 3 * channels, device=weight.device, dtype=weight.dtype)
        self.project = nn.Linear(channels, channels, device=weight.device, dtype=weight.dtype)
        self.project.load_state_dict(trained.project.state_dict())
        with torch.no_grad():
            self.qkv.weight.copy_(weight)
            self.qkv.bias.copy_(trained.qkv_bias())
        self.register_buffer("scale", trained.scale().detach())
        self.register_buffer("bias", trained.bias().detach())

    def forward(self, x: Tensor) -> Tensor:
        groups = self.tiling.cut(x)
        return self.tiling.mend(self.project(_attend(self.qkv(groups), self.heads, self.scale, self.bias)))


def _attend(parts: Tensor, heads: int, scale: Tensor, bias: Tensor) -> Tensor:
    """(groups, positions, 3c) -> (groups, positions, c)."""
    b, positions, width = parts.shape
    q, k, v = parts.reshape(b, positions, 3 * heads, width // (3 * heads)).transpose(1, 2).chunk(3, dim=1)
    y = F.scaled_dot_product_attention(unit(q) * scale, unit(k), v, for_batch(bias, b), scale=1.0)
    return y.transpose(1, 2).reshape(b, positions, width // 3)
