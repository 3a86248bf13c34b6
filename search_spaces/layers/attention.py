"""What attention mixers share: the number of heads, projections that stack q, k and v, attention between maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder


def heads_of(channels: int, head_dim: int) -> int:
    """Return how many heads `channels` make: as many as leave each at least `head_dim` wide, one where none fits.

    The width of a head divides `channels`, and is a multiple of eight wherever `channels` is, since matrix engines
    work on eights: 112 channels with `head_dim` 32 make two heads of 56, not three and a third.

    Raises:
        UsageError: A number is not positive.
    """
    if channels < 1 or head_dim < 1:
        raise UsageError(f"attention: channels and head_dim must be positive, got {channels} and {head_dim}.")
    unit = 8 if channels % 8 == 0 else 1
    fitting = [h for h in range(1, channels // head_dim + 1) if channels % h == 0 and channels // h % unit == 0]
    return max(fitting, default=1)


class StackedLinear(nn.Linear):
    """Linear layer whose output stacks `parts` equal groups of features; a narrower member slices each group."""

    def __init__(self, features: int, out: int, *, parts: int, bias: bool = True) -> None:
        super().__init__(features, out * parts, bias)
        self.elastic_parts = {"weight": parts, "bias": parts}


def stacked_heads(projection: nn.Module, x: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Return q, k and v of tokens, (n, tokens, c) -> three of (n, heads, tokens, c / heads), by a `StackedLinear` of three parts."""
    n, tokens, c = x.shape
    parts: Tensor = projection(x).reshape(n, tokens, 3 * heads, c // heads)
    return parts.transpose(1, 2).chunk(3, dim=1)


def lower_stacked_heads(builder: GraphBuilder, x: str, heads: int) -> tuple[str, str, str]:
    """Write `stacked_heads`, its projection included, and return q, k and v."""
    n, tokens, c = builder.shape(x)
    parts = builder.reshape(builder.gemm(x, 3 * c, name="qkv"), (n, tokens, 3 * heads, c // heads))
    q, k, v = builder.split(builder.transpose(parts, (0, 2, 1, 3)), (heads, heads, heads))
    return q, k, v


def lower_joined_heads(builder: GraphBuilder, y: str) -> str:
    """Write heads side by side: (n, heads, tokens, d) -> (n, tokens, heads·d)."""
    n, heads, tokens, width = builder.shape(y)
    return builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n, tokens, heads * width))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attend from the positions of one map to those of another, softmax(q·kᵀ / √d)·v in each head.

    Shape: q (n, heads·d, h, w), k (n, heads·d, h', w'), v (n, heads·e, h', w') -> (n, heads·e, h, w).
    """
    n, _, height, width = q.shape
    q, k, v = (x.reshape(n, heads, x.shape[1] // heads, x.shape[2] * x.shape[3]).transpose(2, 3) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v)  # (n, heads, h·w, e)
    return y.transpose(2, 3).reshape(n, heads * y.shape[3], height, width)


def lower_attend(builder: GraphBuilder, q: str, k: str, v: str, heads: int) -> str:
    """Write `attend` and return its output; no tensor has more than four axes."""
    n, _, height, width = builder.shape(q)

    def tokens(x: str) -> str:
        _, c, h, w = builder.shape(x)
        return builder.transpose(builder.reshape(x, (n, heads, c // heads, h * w)), (0, 1, 3, 2))

    y = builder.attention(tokens(q), tokens(k), tokens(v))
    return builder.reshape(builder.transpose(y, (0, 1, 3, 2)), (n, -1, height, width))
