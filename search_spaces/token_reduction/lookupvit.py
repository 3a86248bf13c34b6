"""A few compressed tokens go through heavy blocks; all others only look up and are looked up (LookupViT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, Source
from nas.spaces.space import Resolution
from nas.spaces.token_reduction import BlockSize, LayeredReduction, token_reductions
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.cells import CellMeans, cells_of, lower_cell_means, lower_perceptron, lower_token_norm
from search_spaces.layers.tokens import PreNorm, TokenAttention

THIN = 2
"""Channels by hidden channels of the perceptron of lookup tokens."""


@token_reductions.register("lookupvit")
@dataclass(frozen=True)
class LookupViT(LayeredReduction):
    """Blocks on compressed tokens p (the class token and cells' means) and lookup tokens l.

    p ← p + A(p, l); p ← p + MHSA(p); p ← p + MLP(p); l ← l + Aᵀ(l, p) with the same logits, transposed; l ← l + thin MLP(l). Norms before each.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "LookupViT: Compressing visual information to a limited number of tokens",
        "arXiv 2407.12753",
        "no official code is public; the last block leaves out what only lookup tokens would get",
    )

    def remaining(self, grid: Resolution) -> int:
        return self._compressed(grid) - 1 + grid[0] * grid[1]

    def _compressed(self, grid: Resolution) -> int:
        high, wide = cells_of(grid, self.keep)
        return 1 + high * wide

    def lower(self, builder: GraphBuilder, x: str, block: BlockSize) -> str:
        first, patches = builder.split(x, (1, block.patches), axis=1)
        return builder.concat([first, lower_cell_means(builder, patches, block.grid, cells_of(block.grid, self.keep)), patches], 1)

    def build(self, channels: int, block: BlockSize) -> nn.Module:
        return Compression(CellMeans(block.grid, cells_of(block.grid, self.keep)))

    def lower_block(self, builder: GraphBuilder, x: str, block: BlockSize, *, last: bool) -> str:
        from search_spaces.vit import Attention, Perceptron

        n, _, c = builder.shape(x)
        few, many, heads, inner = self._compressed(block.grid), block.patches, block.heads, block.inner
        p, lookup = builder.split(x, (few, many), axis=1)

        def split(tokens: str) -> str:
            return builder.transpose(builder.reshape(tokens, (n, -1, heads, block.head_dim)), (0, 2, 1, 3))

        def whole(y: str) -> str:
            return builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n, -1, inner))

        q = split(builder.gemm(lower_token_norm(builder, p, "norm_p"), inner, name="query"))
        kv = builder.gemm(lower_token_norm(builder, lookup, "norm_l"), 2 * inner, name="key_value")
        k, v = (split(part) for part in builder.split(kv, (inner,) * 2, axis=2))
        logits = builder.scale(builder.matmul(q, builder.transpose(k, (0, 1, 3, 2))), (), parameter=False)
        gathered = builder.matmul(builder.unary("Softmax", logits, axis=3), v)
        p = builder.binary("Add", p, builder.gemm(whole(gathered), c, name="gather"))
        with builder.scope("attention"):
            p = Attention("attention", builder.shape(p), heads, block.head_dim).lower(builder, p)
        with builder.scope("perceptron"):
            p = Perceptron("perceptron", builder.shape(p), block.hidden / c).lower(builder, p)
        if last:
            return p
        back = split(builder.gemm(lower_token_norm(builder, p, "norm_back"), inner, name="value"))
        shares = builder.unary("Softmax", builder.transpose(logits, (0, 1, 3, 2)), axis=3)
        lookup = builder.binary("Add", lookup, builder.gemm(whole(builder.matmul(shares, back)), c, name="infuse"))
        with builder.scope("thin"):
            thin = lower_perceptron(builder, lower_token_norm(builder, lookup), max(c // THIN, 1))
        return builder.concat([p, builder.binary("Add", lookup, thin)], 1)

    def build_block(self, channels: int, block: BlockSize, *, last: bool) -> nn.Module:
        return LookupBlock(channels, self._compressed(block.grid), block, last=last)


class Compression(nn.Module):
    """Class token, cells' means and patches. (n, 1 + patches, c) -> (n, 1 + cells + patches, c)."""

    def __init__(self, cells: CellMeans) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, 1:]
        return torch.cat([x[:, :1], self.cells(patches), patches], dim=1)


class LookupBlock(nn.Module):
    """A block in its training form. (n, compressed + patches, c) -> the same, or (n, compressed, c) of the last one.

    Args:
        channels: c.
        compressed: Tokens that the heavy path has.
        block: Its heads, and the hidden channels of the heavy perceptron.
        last: Whether no block follows.
    """

    def __init__(self, channels: int, compressed: int, block: BlockSize, *, last: bool) -> None:
        from search_spaces.channel_mixers.mlp import TokenPerceptron

        super().__init__()
        self.compressed, self.heads, self.last = compressed, block.heads, last
        inner = block.inner
        self.norm_p, self.norm_l = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.query = nn.Linear(channels, inner)
        self.key_value = StackedLinear(channels, inner, parts=2)
        self.gather = nn.Linear(inner, channels)
        self.attention = PreNorm(TokenAttention(channels, block.heads, head_dim=block.head_dim), channels)
        self.perceptron = PreNorm(TokenPerceptron(channels, block.hidden, "gelu"), channels)
        if not last:
            self.norm_back = nn.LayerNorm(channels, eps=1e-6)
            self.value = nn.Linear(channels, inner)
            self.infuse = nn.Linear(inner, channels)
            self.thin = PreNorm(TokenPerceptron(channels, max(channels // THIN, 1), "gelu"), channels)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        p, lookup = x[:, : self.compressed], x[:, self.compressed :]
        q = self._split(self.query(self.norm_p(p)))
        k, v = (self._split(part) for part in self.key_value(self.norm_l(lookup)).chunk(2, dim=2))
        logits = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        p = p + self.gather((logits.softmax(dim=3) @ v).transpose(1, 2).flatten(2))
        p = self.perceptron(self.attention(p))
        if self.last:
            return p
        back = logits.transpose(2, 3).softmax(dim=3) @ self._split(self.value(self.norm_back(p)))
        return torch.cat([p, self.thin(lookup + self.infuse(back.transpose(1, 2).flatten(2)))], dim=1)
