"""A few semantic tokens, begun by means of cells and refined by attention to all tokens, go on in their place (STViT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, Source
from nas.spaces.space import Resolution
from nas.spaces.token_reduction import BlockSize, TokenReduction, token_reductions
from search_spaces.layers.cells import (
    CellMeans,
    CrossAttention,
    cells_of,
    lower_cell_means,
    lower_cross_attention,
    lower_perceptron,
    lower_token_norm,
)

EXPANSION = 4


@token_reductions.register("stvit")
@dataclass(frozen=True)
class STViT(TokenReduction):
    """s₁ = m + A(m, [m; x]), s₂ = s₁ + MLP(s₁), s₃ = s₂ + g + A(s₂ + g, [s₂; x]), with cells' means m and a learned g; norms before each."""

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Making Vision Transformers Efficient from A Token Sparsification View",
        "arXiv 2303.08685, github.com/changsn/STViT-R",
        "g is one vector, not one a token, since their number follows the resolution; keys are the whole map, not windows of it; "
        "no scale of the layers; the class token is a semantic token, too",
    )

    def remaining(self, grid: Resolution) -> int:
        high, wide = cells_of(grid, self.keep)
        return high * wide

    def lower(self, builder: GraphBuilder, x: str, block: BlockSize) -> str:
        c = builder.shape(x)[2]
        first, patches = builder.split(x, (1, block.patches), axis=1)
        s = builder.concat([first, lower_cell_means(builder, patches, block.grid, cells_of(block.grid, self.keep))], 1)
        keys = lower_token_norm(builder, builder.concat([s, patches], 1), "norm1")
        with builder.scope("first"):
            queries = builder.narrow(keys, 1, 0, builder.shape(s)[1])
            s = builder.binary("Add", s, lower_cross_attention(builder, queries, keys, block.heads, block.head_dim))
        with builder.scope("perceptron"):
            s = builder.binary("Add", s, lower_perceptron(builder, lower_token_norm(builder, s), EXPANSION * c))
        keys = lower_token_norm(builder, builder.concat([s, patches], 1), "norm3")
        s = builder.add_operator("Add", [s], weights=[Weight((1, 1, c))], name="centre")
        queries = builder.add_operator(
            "LayerNormalization", [s], {"axis": -1, "epsilon": 1e-6}, weights=[Weight((c,), parameter=False)] * 2
        )
        with builder.scope("second"):
            return builder.binary("Add", s, lower_cross_attention(builder, queries, keys, block.heads, block.head_dim))

    def build(self, channels: int, block: BlockSize) -> nn.Module:
        return SemanticTokens(channels, CellMeans(block.grid, cells_of(block.grid, self.keep)), block.heads, block.head_dim)


class SemanticTokens(nn.Module):
    """The method in its training form. (n, 1 + patches, c) -> (n, 1 + cells, c)."""

    def __init__(self, channels: int, cells: CellMeans, heads: int, head_dim: int) -> None:
        from search_spaces.channel_mixers.mlp import TokenPerceptron

        super().__init__()
        self.cells = cells
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(3))
        self.first, self.second = (CrossAttention(channels, heads, head_dim) for _ in range(2))
        self.perceptron = TokenPerceptron(channels, EXPANSION * channels, "gelu")
        self.centre = nn.Parameter(torch.randn(1, 1, channels) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, 1:]
        s = torch.cat([x[:, :1], self.cells(patches)], dim=1)
        keys = self.norm1(torch.cat([s, patches], dim=1))
        s = s + self.first(keys[:, : s.shape[1]], keys)
        s = s + self.perceptron(self.norm2(s))
        keys = self.norm3(torch.cat([s, patches], dim=1))
        s = s + self.centre
        return s + self.second(self.norm3(s), keys)
