"""Attention of blocks to themselves and a halo around them, positions relative and by content (HaloNet)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.attention import heads_of


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a map is cut: blocks of equal size, each seen with a halo.

    Attributes:
        size: Height and width of a block, in positions.
        counts: Blocks down and across.
        halo: Positions seen beyond each side of a block.
    """

    size: Resolution
    counts: Resolution
    halo: int

    @classmethod
    def of(cls, resolution: Resolution, largest: int, halo: int) -> Blocks:
        """Return the fewest, most equal blocks of at most `largest` a side."""
        high, wide = (-(-side // largest) for side in resolution)
        return cls((-(-resolution[0] // high), -(-resolution[1] // wide)), (high, wide), halo)

    @property
    def window(self) -> Resolution:
        """Height and width of a block with its halo."""
        return self.size[0] + 2 * self.halo, self.size[1] + 2 * self.halo

    @property
    def covered(self) -> Resolution:
        """Height and width of what the blocks cover."""
        return self.size[0] * self.counts[0], self.size[1] * self.counts[1]


@mixers.register("halonet")
@dataclass(frozen=True)
class HaloNet(OperatorFamily):
    """softmax(q·kᵀ / √d + q·r)·v; a block of positions attends to itself and to `halo` positions around it, r by rows plus r by columns.

    Attributes:
        block: Largest side of a block.
        halo: Positions around it.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
        "arXiv 2103.12731; timm's HaloAttn",
        "a pointwise convolution after the heads; blocks shrink to fit the map. As in timm, zeros beyond the edge are attended to",
    )

    block: int = 8
    halo: int = 3
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"halo": (1, 2, 3), "block": (4, 7, 8), "head_dim": (16, 32)}

    def _blocks(self, resolution: Resolution) -> Blocks:
        return Blocks.of(resolution, self.block, self.halo)

    def lower(self, builder: GraphBuilder, x: str) -> str:
        _, c, h, w = builder.shape(x)
        q, kv = builder.conv(x, c, bias=False, name="query"), builder.conv(x, 2 * c, bias=False, name="key_value")
        y = _lower_attend(builder, q, kv, self._blocks((h, w)), heads_of(c, self.head_dim))
        return builder.conv(y, c, name="project")

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        heads = heads_of(channels, self.head_dim)
        return nn.Sequential(
            HaloAttention(channels, channels, heads, channels // heads, self._blocks(resolution)), nn.Conv2d(channels, channels, 1)
        )


class Displacements(nn.Module):
    """A learned vector for each displacement by rows and by columns, (2·seen − 1, head_dim) each."""

    def __init__(self, seen: Resolution, head_dim: int) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.randn(2 * side - 1, head_dim) * head_dim**-0.5) for side in seen)


class HaloAttention(nn.Module):
    """(n, c, h, w) -> (n, out, h / stride, w / stride).

    Args:
        channels: c.
        out: Channels of the values, all heads together.
        heads: Divides `out`.
        head_dim: Channels of a query's or key's head.
        blocks: How the map is cut.
        stride: Of the queries; divides a block.
    """

    def __init__(self, channels: int, out: int, heads: int, head_dim: int, blocks: Blocks, stride: int = 1) -> None:
        super().__init__()
        self.heads, self.head_dim, self.blocks, self.stride = heads, head_dim, blocks, stride
        self.query = nn.Conv2d(channels, heads * head_dim, 1, stride=stride, bias=False)
        self.key_value = nn.Conv2d(channels, heads * head_dim + out, 1, bias=False)
        self.places = Displacements(blocks.window, head_dim)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        d, heads, (down, across) = self.head_dim, self.heads, self.blocks.counts
        high, wide = (side // self.stride for side in self.blocks.size)
        below, right = (cover - side for cover, side in zip(self.blocks.covered, (h, w), strict=True))
        q = F.pad(self.query(x), (0, right, 0, below)) if below or right else self.query(x)
        q = q.reshape(n * heads * d * down, high, across, wide).transpose(1, 2).reshape(n * heads, d, down * across, high * wide)
        q = q.permute(0, 2, 3, 1)  # (n·heads, blocks, positions, d)
        kv = surroundings(self.key_value(x), self.blocks, heads)  # (n·heads, blocks, seen, d + e)
        k, v = kv[..., :d], kv[..., d:]
        near = self._positions(q, high, wide)
        shares = (q @ k.transpose(2, 3) * d**-0.5 + near).softmax(dim=3)
        y = (shares @ v).permute(0, 3, 1, 2)  # (n·heads, e, blocks, positions)
        y = y.reshape(-1, across, high, wide).transpose(1, 2).reshape(n, -1, down * high, across * wide)
        return y[:, :, : -(-h // self.stride), : -(-w // self.stride)] if below or right else y

    def _positions(self, q: Tensor, high: int, wide: int) -> Tensor:
        """Return what positions add to the logits, (n·heads, blocks, positions, seen)."""
        b, count, positions, d = q.shape
        seen_high, seen_wide = self.blocks.window
        across = by_place(q.reshape(b * count * high, wide, d) @ self.places.columns.T, seen_wide)
        turned = q.reshape(b * count, high, wide, d).transpose(1, 2).reshape(b * count * wide, high, d)
        down = by_place(turned @ self.places.rows.T, seen_high).reshape(b * count, wide, high, seen_high).transpose(1, 2)
        both = down.reshape(b * count, positions, seen_high, 1) + across.reshape(b * count, positions, 1, seen_wide)
        return both.reshape(b, count, positions, seen_high * seen_wide)


def by_place(logits: Tensor, window: int) -> Tensor:
    """Turn logits by displacement into logits by place: (b, side, 2·seen − 1) -> (b, side, seen), out[i, j] = in[i, j − i + seen − 1].

    Source: Bello et al., arXiv 1904.09925, appendix A; padding, reshaping and slicing alone.
    """
    b, side, width = logits.shape
    x = F.pad(F.pad(logits, (0, 1)).reshape(b, side * (width + 1)), (0, width - side))
    return x.reshape(b, side + 1, width)[:, :side, window - 1 :]


def surroundings(x: Tensor, blocks: Blocks, heads: int) -> Tensor:
    """Return each block with its halo, zero beyond the edge: (n, heads·e, h, w) -> (n·heads, blocks, seen positions, e)."""
    n, c, h, w = x.shape
    (down, across), (high, wide), halo = blocks.counts, blocks.size, blocks.halo
    below, right = (cover - side for cover, side in zip(blocks.covered, (h, w), strict=True))
    x = F.pad(x, (halo, halo + right, halo, halo + below))
    x = torch.stack([x.narrow(2, i * high, blocks.window[0]) for i in range(down)], dim=2)
    x = torch.stack([x.narrow(4, i * wide, blocks.window[1]) for i in range(across)], dim=3)  # (n, c, down, across, seen, seen)
    return x.reshape(n * heads, c // heads, down * across, -1).permute(0, 2, 3, 1)


def _lower_attend(builder: GraphBuilder, q: str, kv: str, blocks: Blocks, heads: int) -> str:
    """Write `HaloAttention` after its projections, with stride 1."""
    n, c, h, w = builder.shape(q)
    d, (down, across), (high, wide), (seen_high, seen_wide) = c // heads, blocks.counts, blocks.size, blocks.window
    count, positions, b = down * across, high * wide, n * heads
    below, right = blocks.covered[0] - h, blocks.covered[1] - w
    if below or right:
        q = _lower_pad(builder, q, (0, 0, 0, 0, 0, 0, below, right))
    q = builder.transpose(builder.reshape(q, (b * d * down, high, across, wide)), (0, 2, 1, 3))
    q = builder.transpose(builder.reshape(q, (b, d, count, positions)), (0, 2, 3, 1))
    halo = blocks.halo
    kv = _lower_pad(builder, kv, (0, 0, halo, halo, 0, 0, halo + below, halo + right))
    rows = [builder.reshape(builder.narrow(kv, 2, i * high, seen_high), (n, 2 * c, 1, seen_high, -1)) for i in range(down)]
    kv = builder.concat(rows, 2) if down > 1 else rows[0]
    columns = [
        builder.reshape(builder.narrow(kv, 4, i * wide, seen_wide), (n, 2 * c, down, 1, seen_high, seen_wide)) for i in range(across)
    ]
    kv = builder.concat(columns, 3) if across > 1 else columns[0]
    kv = builder.transpose(builder.reshape(kv, (b, 2 * d, count, seen_high * seen_wide)), (0, 2, 3, 1))
    k, v = builder.narrow(kv, 3, 0, d), builder.narrow(kv, 3, d, d)
    over = _lower_by_place(builder, builder.reshape(q, (b * count * high, wide, d)), seen_wide, "columns")
    turned = builder.transpose(builder.reshape(q, (b * count, high, wide, d)), (0, 2, 1, 3))
    along = _lower_by_place(builder, builder.reshape(turned, (b * count * wide, high, d)), seen_high, "rows")
    along = builder.transpose(builder.reshape(along, (b * count, wide, high, seen_high)), (0, 2, 1, 3))
    near = builder.binary(
        "Add",
        builder.reshape(along, (b * count, positions, seen_high, 1)),
        builder.reshape(over, (b * count, positions, 1, seen_wide)),
    )
    near = builder.reshape(near, (b, count, positions, seen_high * seen_wide))
    logits = builder.scale(builder.matmul(q, builder.transpose(k, (0, 1, 3, 2))), (), parameter=False)
    shares = builder.unary("Softmax", builder.binary("Add", logits, near), axis=-1)
    y = builder.transpose(builder.matmul(shares, v), (0, 3, 1, 2))
    y = builder.transpose(builder.reshape(y, (b * d * down, across, high, wide)), (0, 2, 1, 3))
    y = builder.reshape(y, (n, c, *blocks.covered))
    return builder.narrow(builder.narrow(y, 2, 0, h), 3, 0, w)


def _lower_pad(builder: GraphBuilder, x: str, pads: tuple[int, ...]) -> str:
    shape = builder.shape(x)
    rank = len(shape)
    return builder.add_operator("Pad", [x], {"pads": pads}, shape=[shape[i] + pads[i] + pads[rank + i] for i in range(rank)])


def _lower_by_place(builder: GraphBuilder, q: str, window: int, name: str) -> str:
    b, side, d = builder.shape(q)
    width = 2 * window - 1
    x = builder.add_operator("Gemm", [q], {"activation": None}, weights=[Weight((width, d))], name=name)
    x = builder.reshape(_lower_pad(builder, x, (0, 0, 0, 0, 0, 1)), (b, side * (width + 1)))
    x = builder.reshape(_lower_pad(builder, x, (0, 0, 0, width - side)), (b, side + 1, width))
    return builder.narrow(builder.narrow(x, 1, 0, side), 2, window - 1, window)
