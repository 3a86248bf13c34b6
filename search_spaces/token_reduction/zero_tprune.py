"""Tokens that the attention's graph finds unimportant or alike are left out, without training (Zero-TPrune)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, Source
from nas.spaces.space import Resolution
from nas.spaces.token_reduction import BlockSize, TokenReduction, token_reductions
from search_spaces.layers.cells import lower_token_norm
from search_spaces.layers.tokens import TokenAttention

ROUNDS = 5
"""Steps of the walk over the attention's graph; the paper takes 30 or more in the first layers and few in later ones."""


@token_reductions.register("zero-tprune")
@dataclass(frozen=True)
class ZeroTPrune(TokenReduction):
    """y = x + attention(x); of two neighbours in rank the one below leaves where it is most alike one above, then the least important leave.

    A token's importance is its share of a walk over the attention's graph, s ← s·A, root mean square over heads. Half of what leaves
    does so for being alike, by the cosine of mean keys, half for being unimportant.
    """

    npu_grade: ClassVar[Grade] = "red"
    source: ClassVar[Source] = Source(
        "Zero-TPrune: Zero-Shot Token Pruning through Leveraging of the Attention Graph in Pre-Trained Transformers",
        "arXiv 2305.17328",
        "without the filter of heads by variance",
    )
    shares_attention: ClassVar[bool] = True

    def remaining(self, grid: Resolution) -> int:
        return max(1, round(self.keep * grid[0] * grid[1]))

    def leaving_alike(self, patches: int) -> int:
        """Return how many of so many patches leave for being alike another."""
        return min((patches - max(1, round(self.keep * patches))) // 2, patches // 2)

    def lower(self, builder: GraphBuilder, x: str, block: BlockSize) -> str:
        n, t, c = builder.shape(x)
        heads, head_dim, inner, patches = block.heads, block.head_dim, block.inner, block.patches
        parts = builder.split(builder.gemm(lower_token_norm(builder, x), 3 * inner, name="qkv"), (inner,) * 3, axis=2)
        q, k, v = (builder.transpose(builder.reshape(p, (n, t, heads, head_dim)), (0, 2, 1, 3)) for p in parts)
        logits = builder.scale(builder.matmul(q, builder.transpose(k, (0, 1, 3, 2))), (), parameter=False)
        graph = builder.unary("Softmax", logits, axis=3)
        y = builder.reshape(builder.transpose(builder.matmul(graph, v), (0, 2, 1, 3)), (n, t, inner))
        y = builder.binary("Add", x, builder.gemm(y, c, name="project"))
        walk = builder.scale(builder.reduce("ReduceMean", graph, (2,)), (), parameter=False)
        for _ in range(ROUNDS - 1):
            walk = builder.matmul(walk, graph)
        square = builder.reduce("ReduceMean", builder.binary("Mul", walk, walk), (1,))
        weight = builder.narrow(builder.reshape(square, (n, t)), 1, 1, patches)
        keys = builder.narrow(builder.reduce("ReduceMean", k, (1,), keepdims=False), 1, 1, patches)
        keys = builder.binary("Div", keys, builder.unary("Clip", builder.reduce("ReduceL2", keys, (2,)), min=1e-12))
        order = self._lower_top(builder, weight, patches)
        lower = patches // 2
        below, above = (
            builder.add_operator("Slice", [order], {"axis": 1, "start": s, "size": size, "step": 2}, shape=(n, size))
            for s, size in ((1, lower), (0, patches - lower))
        )
        taken = [self._lower_rows(builder, keys, index) for index in (below, above)]
        alike = builder.reduce("ReduceMax", builder.matmul(taken[0], builder.transpose(taken[1], (0, 2, 1))), (2,), keepdims=False)
        unlike = self._lower_top(builder, builder.unary("Neg", alike), lower - self.leaving_alike(patches))
        stay = builder.concat([above, self._lower_rows(builder, below, unlike)], 1)
        best = self._lower_top(builder, self._lower_rows(builder, weight, stay), self.remaining(block.grid))
        left = self._lower_rows(builder, builder.narrow(y, 1, 1, patches), self._lower_rows(builder, stay, best))
        return builder.concat([builder.narrow(y, 1, 0, 1), left], 1)

    @staticmethod
    def _lower_top(builder: GraphBuilder, x: str, count: int) -> str:
        return builder.add_operator("TopK", [x], {"k": count, "axis": 1}, shape=(builder.shape(x)[0], count), dtype="int64")

    @staticmethod
    def _lower_rows(builder: GraphBuilder, x: str, index: str) -> str:
        n, count = builder.shape(index)
        rest = builder.shape(x)[2:]
        if rest:
            index = builder.add_operator("Expand", [builder.reshape(index, (n, count, 1))], shape=(n, count, *rest))
        return builder.add_operator("GatherElements", [x, index], {"axis": 1}, shape=(n, count, *rest))

    def build(self, channels: int, block: BlockSize) -> nn.Module:
        return PruningAttention(channels, block.heads, block.head_dim, self)


class PruningAttention(nn.Module):
    """The method in its training form, with the names of a plain attention's weights. (n, 1 + patches, c) -> (n, 1 + fewer, c)."""

    def __init__(self, channels: int, heads: int, head_dim: int, knobs: ZeroTPrune) -> None:
        super().__init__()
        self.knobs = knobs
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.body = TokenAttention(channels, heads, head_dim=head_dim)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        heads, knobs, patches = self.body.heads, self.knobs, t - 1
        q, k, v = (part.reshape(n, t, heads, -1).transpose(1, 2) for part in self.body.qkv(self.norm(x)).chunk(3, dim=2))
        graph = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=3)
        y = x + self.body.project((graph @ v).transpose(1, 2).reshape(n, t, -1))
        weight, keys = importance(graph)[:, 1:].detach(), k.mean(1)[:, 1:].detach()
        keys = keys / torch.linalg.vector_norm(keys, dim=2, keepdim=True).clamp_min(1e-12)
        order = weight.topk(patches, dim=1).indices
        above, below = order[:, 0::2], order[:, 1::2]
        alike = (rows(keys, below) @ rows(keys, above).transpose(1, 2)).amax(dim=2)
        unlike = (-alike).topk(below.shape[1] - knobs.leaving_alike(patches), dim=1).indices
        stay = torch.cat([above, below.gather(1, unlike)], dim=1)
        best = weight.gather(1, stay).topk(max(1, round(knobs.keep * patches)), dim=1).indices
        return torch.cat([y[:, :1], rows(y[:, 1:], stay.gather(1, best))], dim=1)


def importance(graph: Tensor) -> Tensor:
    """Return the mean square over heads of each token's share of a walk of `ROUNDS` steps from everywhere, (n, heads, t, t) -> (n, t).

    Source: arXiv 2305.17328, section 3.2 (weighted page rank; root mean square over heads, whose order the square keeps).
    """
    walk = graph.mean(2, keepdim=True)
    for _ in range(ROUNDS - 1):
        walk = walk @ graph
    walk = walk * float(graph.shape[3])  # in units of an even share, so that half precision holds it
    return (walk * walk).mean(1).squeeze(1)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Return the tokens of each picture that an index names, (n, t, c) and (n, k) -> (n, k, c)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))
