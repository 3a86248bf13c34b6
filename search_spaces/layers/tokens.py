"""What networks of tokens (n, tokens, channels) share, beside the perceptron: patches, self-attention, norms, the head."""

from __future__ import annotations

import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear

KEPT = 0.25
"""Share of the patches that a training step sees."""

_GOLDEN = (5**0.5 - 1) / 2


class TokenAttention(nn.Module):
    """Multi-head self-attention. (n, tokens, channels) -> (n, tokens, channels).

    Args:
        channels: Of a token.
        heads: Divides `channels` where `head_dim` is not given.
        bias: Of the projection to q, k and v.
        project_bias: Of the projection after the heads.
        head_dim: Channels of a head; by default the heads share out `channels`.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool = True, project_bias: bool = True, head_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        inner = channels if head_dim is None else heads * head_dim
        self.qkv = StackedLinear(channels, inner, parts=3, bias=bias)
        self.project = nn.Linear(inner, channels, bias=project_bias)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = (part.view(n, tokens, self.heads, -1).transpose(1, 2) for part in torch.chunk(self.qkv(x), 3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.project(y.transpose(1, 2).reshape(n, tokens, -1))


class PreNorm(nn.Module):
    """y = x + f(norm(x)). (n, tokens, channels) -> (n, tokens, channels)."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(self.norm(x))
        return y


class PatchEmbedding(nn.Module):
    """Patches as tokens behind a class token, with fixed positions. (n, 3, h, w) -> (n, 1 + tokens, channels).

    In training a share `KEPT` of the patches goes on, drawn anew for each batch; the draw follows from the pictures, so
    that a training resumes to the bit.

    Args:
        channels: Of a token.
        patch: Side of a patch.
        grid: Patches by height and width.
        whole: Whether every patch goes on in training, too.

    Source:
        Liu et al., "PatchDropout", arXiv 2208.07220; differs in that a batch shares its draw.
    """

    def __init__(self, channels: int, patch: int, grid: Resolution, *, whole: bool = False) -> None:
        super().__init__()
        self.positions: Tensor
        self.whole = whole
        self.projection = nn.Conv2d(3, channels, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.register_buffer("positions", positions(channels, grid), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(self.projection(x))
        whole = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.positions
        if self.whole or not self.training:
            return whole
        drawn = torch.Generator().manual_seed(zlib.crc32(x[0].detach().cpu().contiguous().numpy().tobytes()))
        chosen = torch.randperm(tokens.shape[1], generator=drawn)[: max(1, int(KEPT * tokens.shape[1]))]
        return whole[:, torch.cat([torch.zeros(1, dtype=torch.int64), 1 + chosen]).to(x.device)]


def positions(channels: int, grid: Resolution) -> Tensor:
    """Return sines and cosines of the places of a grid behind a row of zeros, (1, 1 + h·w, channels).

    Channels 4 k … 4 k + 3 are sine and cosine of y and of x, which run from 0 to 1 over the picture, at π · 16^u radians with u the fraction of
    k times the golden ratio: a narrower network has the first channels of a wider one, and any number of them spans all rates.

    Source:
        He et al., arXiv 2111.06377; differs in the order of the channels, and in that places are shares of the picture, whatever its size.
    """
    y, x = torch.meshgrid(*((torch.arange(side) + 0.5) / side for side in grid), indexing="ij")
    rates = math.pi * 16.0 ** (torch.arange(-(-channels // 4)) * _GOLDEN % 1.0)
    of_y, of_x = (axis.reshape(-1, 1) * rates for axis in (y, x))
    waves = torch.stack([of_y.sin(), of_y.cos(), of_x.sin(), of_x.cos()], dim=2)  # (h·w, rates, 4)
    table = waves.flatten(1)[:, :channels]
    return torch.cat([torch.zeros(1, channels), table])[None]


class ClassTokenHead(nn.Module):
    """Norm and linear layer on the first token. (n, tokens, channels) -> (n, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(x[:, 0]))


def to_tokens(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h·w, c)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(n, h·w, c) -> (n, c, h, w)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
