"""Manhattan self-attention (RMT): logits decay with the distance in the map, along the axes one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of

Axes = Literal["decomposed", "full"]
Decay = Literal["logits", "weights"]
MOST_POSITIONS = 1024
"""Largest map for which the decay of all pairs is tabled: 4 MB a head in single precision."""


@mixers.register("rmt")
@dataclass(frozen=True)
class RMT(OperatorFamily):
    """PW(softmax(rot(q)·rot(k)ᵀ/√d + D)·v + DW5(v)) with D = log γ_h · Manhattan distance and γ_h = 1 − 2^−(2 + spread·h/heads).

    Attributes:
        axes: ``full`` attends to the whole map at once; ``decomposed`` along rows, then along columns.
        decay: ``logits`` adds D before the softmax, as the code does; ``weights`` multiplies by γ^distance after it, as the
            paper writes.
        spread: How much longer the last head sees than the first.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "RMT: Retentive Networks Meet Vision Transformers",
        "arXiv 2309.11523, github.com/qhfan/RMT",
        "the two members of a rotated pair stand half a head apart, not side by side: equal up to the order of the rows of the "
        "projections to q and k, and free of strided slices; sines, cosines and decay are constants of the resolution",
    )

    axes: Axes = "decomposed"
    decay: Decay = "logits"
    spread: int = 4
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"axes": ("decomposed", "full"), "decay": ("logits", "weights"), "spread": (4, 6)}

    def heads(self, channels: int, resolution: Resolution) -> int:
        """Return the number of heads.

        Raises:
            UsageError: A head's width is odd, or the map is too large for ``full``.
        """
        heads = heads_of(channels, self.head_dim)
        if channels // heads % 2:
            raise UsageError(f"rmt: a head needs an even width, got {channels} channels in {heads} heads.")
        if self.axes == "full" and resolution[0] * resolution[1] > MOST_POSITIONS:
            raise UsageError(
                f"rmt: too many positions for axes 'full', got {resolution[0]}×{resolution[1]}. "
                f"Expected at most {MOST_POSITIONS}. Do this: axes='decomposed'."
            )
        return heads

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads = self.heads(c, (h, w))
        d = c // heads
        v_map = builder.conv(x, c, name="value")
        near = builder.depthwise(v_map, 5, name="encoding")
        q, k, v = (
            builder.reshape(builder.transpose(y, (0, 2, 3, 1)), (n, h * w, heads, d))
            for y in (builder.conv(x, c, name="query"), builder.conv(x, c, name="key"), v_map)
        )
        q, k = (_lower_rotation(builder, y) for y in (q, k))
        if self.axes == "full":
            q, k, v = (builder.transpose(y, (0, 2, 1, 3)) for y in (q, k, v))
            y = builder.transpose(self._lower_attention(builder, q, k, v), (0, 2, 1, 3))
            y = builder.reshape(y, (n, h, w, c))
        else:
            rows = [builder.transpose(builder.reshape(y, (n * h, w, heads, d)), (0, 2, 1, 3)) for y in (q, k, v)]
            y = builder.transpose(self._lower_attention(builder, *rows), (0, 2, 1, 3))
            columns = []
            for part in (q, k, y):
                part = builder.transpose(builder.reshape(part, (n, h, w, c)), (0, 2, 1, 3))
                columns.append(builder.transpose(builder.reshape(part, (n * w, h, heads, d)), (0, 2, 1, 3)))
            y = builder.transpose(self._lower_attention(builder, *columns), (0, 2, 1, 3))
            y = builder.transpose(builder.reshape(y, (n, w, h, c)), (0, 2, 1, 3))
        y = builder.binary("Add", builder.transpose(y, (0, 3, 1, 2)), near)
        return builder.conv(y, c, name="project")

    def _lower_attention(self, builder: GraphBuilder, q: str, k: str, v: str) -> str:
        _, heads, length, _ = builder.shape(q)
        constant = Weight((heads, length, length), parameter=False)
        if self.decay == "logits":
            return builder.add_operator("Attention", [q, k, v], weights=[constant])
        scores = builder.matmul(builder.scale(q, (1,), parameter=False), builder.transpose(k, (0, 1, 3, 2)))
        scores = builder.add_operator("Mul", [builder.unary("Softmax", scores, axis=-1)], weights=[constant])
        return builder.matmul(scores, v)

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return ManhattanAttention(channels, self.heads(channels, resolution), resolution, self)


def _lower_rotation(builder: GraphBuilder, x: str) -> str:
    _, positions, _, d = builder.shape(x)
    first, second = builder.split(x, (d // 2, d // 2), axis=3)
    turned = builder.concat([builder.unary("Neg", second), first], axis=3)
    cosine = builder.scale(x, (positions, 1, d), parameter=False)
    return builder.binary("Add", cosine, builder.scale(turned, (positions, 1, d), parameter=False))


class ManhattanAttention(nn.Module):
    """The module of `RMT`. (n, c, h, w) -> (n, c, h, w)."""

    sine: Tensor
    cosine: Tensor

    def __init__(self, channels: int, heads: int, resolution: Resolution, knobs: RMT) -> None:
        super().__init__()
        self.heads, self.resolution, self.knobs = heads, resolution, knobs
        d = channels // heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.encoding = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)
        height, width = resolution
        angle = 10000.0 ** -torch.linspace(0, 1, d // 2, dtype=torch.float64)
        turn = (torch.arange(height * width).view(-1, 1, 1) * angle).repeat(1, 1, 2)  # (positions, 1, d)
        self.register_buffer("sine", turn.sin().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("cosine", turn.cos().to(torch.get_default_dtype()), persistent=False)
        rate = torch.log1p(-(2.0 ** -(2 + knobs.spread * torch.arange(heads, dtype=torch.float64) / heads)))
        row, column = (torch.arange(side).view(-1, 1) - torch.arange(side) for side in resolution)
        if knobs.axes == "full":
            tables = {"decay": (row.abs().view(height, 1, height, 1) + column.abs().view(1, width, 1, width)).view(height * width, -1)}
        else:
            tables = {"decay_across": column.abs(), "decay_down": row.abs()}
        for name, distance in tables.items():
            decay = rate.view(-1, 1, 1) * distance
            decay = decay if knobs.decay == "logits" else decay.exp()
            self.register_buffer(name, decay.to(torch.get_default_dtype()), persistent=False)

    def _rotate(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=3)
        return x * self.cosine + torch.cat([-second, first], dim=3) * self.sine

    def _attend(self, parts: Sequence[Tensor], decay: str) -> Tensor:
        q, k, v = parts
        table: Tensor = getattr(self, decay)
        if self.knobs.decay == "logits":
            return F.scaled_dot_product_attention(q, k, v, table)
        return ((q * q.shape[3] ** -0.5) @ k.transpose(2, 3)).softmax(3) * table @ v

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        heads, d = self.heads, c // self.heads
        v_map = self.value(x)
        q, k, v = (y.permute(0, 2, 3, 1).reshape(n, h * w, heads, d) for y in (self.query(x), self.key(x), v_map))
        q, k = self._rotate(q), self._rotate(k)
        if self.knobs.axes == "full":
            y = self._attend([part.transpose(1, 2) for part in (q, k, v)], "decay").transpose(1, 2).reshape(n, h, w, c)
        else:
            rows = [y.reshape(n * h, w, heads, d).transpose(1, 2) for y in (q, k, v)]
            y = self._attend(rows, "decay_across").transpose(1, 2)
            columns = [part.reshape(n, h, w, c).transpose(1, 2).reshape(n * w, h, heads, d).transpose(1, 2) for part in (q, k, y)]
            y = self._attend(columns, "decay_down").transpose(1, 2).reshape(n, w, h, c).transpose(1, 2)
        return self.project(y.permute(0, 3, 1, 2) + self.encoding(v_map))
