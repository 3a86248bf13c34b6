"""After the attention, a mask that is learned merges the tokens into fewer (LTM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, Source
from nas.spaces.space import Resolution
from nas.spaces.token_reduction import BlockSize, TokenReduction, token_reductions
from search_spaces.layers.cells import CellMeans, cells_of, lower_cell_means, lower_token_norm
from search_spaces.layers.tokens import PreNorm, TokenAttention


@token_reductions.register("ltm")
@dataclass(frozen=True)
class LTM(TokenReduction):
    """y = x + attention(x), then Gᵀ·y with G = softmax over tokens of (W·u)·(V·m)ᵀ / √d, u the normalised tokens, m their cells' means."""

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Efficient Visual Transformer by Learnable Token Merging",
        "arXiv 2407.15219",
        "the mask is learned from the task's loss alone, without the step along the gradient of the information bottleneck's bound; a merged "
        "token asks for its share by the mean of its cell, since their number follows the resolution; the class token is left alone",
    )

    def remaining(self, grid: Resolution) -> int:
        high, wide = cells_of(grid, self.keep)
        return high * wide

    def lower(self, builder: GraphBuilder, x: str, block: BlockSize) -> str:
        from search_spaces.vit import Attention

        with builder.scope("attention"):
            y = Attention("attention", builder.shape(x), block.heads, block.head_dim).lower(builder, x)
        first, patches = builder.split(y, (1, block.patches), axis=1)
        u = lower_token_norm(builder, patches)
        m = lower_cell_means(builder, u, block.grid, cells_of(block.grid, self.keep))
        logits = builder.matmul(
            builder.gemm(m, block.head_dim, bias=False, name="ask"),
            builder.transpose(builder.gemm(u, block.head_dim, bias=False, name="answer"), (0, 2, 1)),
        )
        mask = builder.unary("Softmax", builder.scale(logits, (), parameter=False), axis=2)
        return builder.concat([first, builder.matmul(mask, patches)], 1)

    def build(self, channels: int, block: BlockSize) -> nn.Module:
        return MergingAttention(channels, CellMeans(block.grid, cells_of(block.grid, self.keep)), block.heads, block.head_dim)


class MergingAttention(nn.Module):
    """The method in its training form. (n, 1 + patches, c) -> (n, 1 + cells, c)."""

    def __init__(self, channels: int, cells: CellMeans, heads: int, head_dim: int) -> None:
        super().__init__()
        self.attention = PreNorm(TokenAttention(channels, heads, head_dim=head_dim), channels)
        self.cells, self.scale = cells, head_dim**-0.5
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.ask, self.answer = (nn.Linear(channels, head_dim, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x)
        patches = y[:, 1:]
        u = self.norm(patches)
        mask = (self.ask(self.cells(u)) @ self.answer(u).transpose(1, 2) * self.scale).softmax(dim=2)  # (n, cells, patches)
        return torch.cat([y[:, :1], mask @ patches], dim=1)
