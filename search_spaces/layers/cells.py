"""Means of the cells of a grid of tokens, of any number of cells a side, and attention from one set of tokens to another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear


def cells_of(grid: Resolution, keep: float) -> Resolution:
    """Return how many cells by height and width make about the share `keep` of a grid's positions."""
    high, wide = (max(1, round(side * keep**0.5)) for side in grid)
    return high, wide


def axis_means(side: int, cells: int) -> Tensor:
    """Return which positions of an axis each cell averages, (cells, side); cells overlap where they do not divide the axis.

    Source: the bounds of PyTorch's adaptive pooling, ⌊i·side / cells⌋ to ⌈(i + 1)·side / cells⌉.
    """
    table = torch.zeros(cells, side, dtype=torch.float64)
    for i in range(cells):
        first, end = i * side // cells, -(-(i + 1) * side // cells)
        table[i, first:end] = 1 / (end - first)
    return table


class CellMeans(nn.Module):
    """Means of cells, column by column. (n, h·w, c) -> (n, cells, c).

    Args:
        grid: (h, w).
        cells: By height and width.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, grid: Resolution, cells: Resolution) -> None:
        super().__init__()
        self.grid = grid
        for name, side, count in zip(("rows", "columns"), grid, cells, strict=True):
            self.register_buffer(name, axis_means(side, count), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, _, c = x.shape
        y = F.linear(x.transpose(1, 2).reshape(n, c, *self.grid), self.columns.to(x.dtype))
        return F.linear(y.transpose(2, 3), self.rows.to(x.dtype)).flatten(2).transpose(1, 2)


def lower_cell_means(builder: GraphBuilder, x: str, grid: Resolution, cells: Resolution) -> str:
    """Write `CellMeans` and return its output."""
    n, _, c = builder.shape(x)
    y = builder.reshape(builder.transpose(x, (0, 2, 1)), (n, c, *grid))
    for axis in (1, 0):
        table = [Weight((cells[axis], grid[axis]), parameter=False)]
        y = builder.add_operator("Gemm", [y], {"activation": None}, weights=table, name="cells")
        y = builder.transpose(y, (0, 1, 3, 2)) if axis else builder.reshape(y, (n, c, -1))
    return builder.transpose(y, (0, 2, 1))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to others. (n, t, c), (n, s, c) -> (n, t, c).

    Args:
        channels: c.
        heads: Number of heads.
        head_dim: Channels of a head.
    """

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, heads * head_dim)
        self.key_value = StackedLinear(channels, heads * head_dim, parts=2)
        self.project = nn.Linear(heads * head_dim, channels)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        n, t, _ = x.shape
        k, v = (part.reshape(n, others.shape[1], self.heads, -1).transpose(1, 2) for part in self.key_value(others).chunk(2, dim=2))
        q = self.query(x).reshape(n, t, self.heads, -1).transpose(1, 2)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


def lower_cross_attention(builder: GraphBuilder, x: str, others: str, heads: int, head_dim: int) -> str:
    """Write `CrossAttention` and return its output."""
    n, t, c = builder.shape(x)
    inner = heads * head_dim

    def split(tokens: str) -> str:
        return builder.transpose(builder.reshape(tokens, (n, -1, heads, head_dim)), (0, 2, 1, 3))

    q = split(builder.gemm(x, inner, name="query"))
    k, v = (split(part) for part in builder.split(builder.gemm(others, 2 * inner, name="key_value"), (inner, inner), axis=2))
    y = builder.transpose(builder.attention(q, k, v), (0, 2, 1, 3))
    return builder.gemm(builder.reshape(y, (n, t, inner)), c, name="project")


def lower_perceptron(builder: GraphBuilder, x: str, hidden: int) -> str:
    """Write a linear layer, GELU and a linear layer back, and return the output. (n, t, c) -> (n, t, c)."""
    y = builder.unary("Gelu", builder.gemm(x, hidden, name="expand"), name="act", approximate="none")
    return builder.gemm(y, builder.shape(x)[2], name="project")


def lower_token_norm(builder: GraphBuilder, x: str, name: str = "norm") -> str:
    """Write a layer norm of tokens and return the output."""
    return builder.norm("LayerNormalization", x, builder.shape(x)[2], name=name, axis=-1, epsilon=1e-6)
