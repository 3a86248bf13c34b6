"""What networks of tokens (n, tokens, channels) share, beside the perceptron: self-attention with one projection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.layers.attention import StackedLinear


class TokenAttention(nn.Module):
    """Multi-head self-attention. (n, tokens, channels) -> (n, tokens, channels).

    Args:
        channels: Of a token.
        heads: Divides `channels`.
        bias: Of the projection to q, k and v.
        project_bias: Of the projection after the heads.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool = True, project_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedLinear(channels, channels, parts=3, bias=bias)
        self.project = nn.Linear(channels, channels, bias=project_bias)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        q, k, v = (part.view(n, tokens, self.heads, -1).transpose(1, 2) for part in torch.chunk(self.qkv(x), 3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.project(y.transpose(1, 2).reshape(n, tokens, channels))


def to_tokens(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h·w, c)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(n, h·w, c) -> (n, c, h, w)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
