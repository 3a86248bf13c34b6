"""Self-attention whose shares are multiplied by a learned number for each displacement, behind the softmax (URPE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers, refuse_training
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of, lower_joined_heads, lower_stacked_heads, stacked_heads
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.layers.windows import PositionTable


@mixers.register("urpe")
@dataclass(frozen=True)
class URPE(OperatorFamily):
    """(softmax(q·kᵀ / √d + B) ⊙ C)·v over the whole map; B and C hold a number for each head and displacement.

    Attributes:
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Your Transformer May Not be as Powerful as You Expect", "arXiv 2205.13401", "displacements are those of a grid of any size"
    )

    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"head_dim": (16, 32)}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        heads, positions = heads_of(c, self.head_dim), h * w
        tokens = builder.transpose(builder.reshape(x, (n, c, positions)), (0, 2, 1))
        q, k, v = lower_stacked_heads(builder, tokens, heads)
        table = Weight((1, heads, positions, positions), parameter=False)
        logits = builder.scale(builder.matmul(q, builder.transpose(k, (0, 1, 3, 2))), (), parameter=False)
        shares = builder.unary("Softmax", builder.add_operator("Add", [logits], weights=[table]), axis=-1)
        shares = builder.add_operator("Mul", [shares], weights=[table])
        y = lower_joined_heads(builder, builder.matmul(shares, v))
        return builder.reshape(builder.transpose(builder.gemm(y, c, name="project"), (0, 2, 1)), (n, c, h, w))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return UniversalAttention(channels, heads_of(channels, self.head_dim), resolution)


class UniversalAttention(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.
        heads: Divides `channels`.
        resolution: (h, w).
    """

    def __init__(self, channels: int, heads: int, resolution: Resolution) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.bias, self.factor = (PositionTable(resolution, resolution, heads) for _ in range(2))
        nn.init.ones_(self.factor.table)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return _attend(x, self.qkv, self.project, self.heads, self.bias(), self.factor())

    def fuse(self) -> nn.Module:
        """Return the form whose tables are constants.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        return BakedUniversalAttention(self)


class BakedUniversalAttention(nn.Module):
    """`UniversalAttention` with constant tables. (n, c, h, w) -> (n, c, h, w)."""

    bias: Tensor
    factor: Tensor

    def __init__(self, trained: UniversalAttention) -> None:
        from copy import deepcopy

        super().__init__()
        self.heads = trained.heads
        self.qkv, self.project = deepcopy(trained.qkv), deepcopy(trained.project)
        self.register_buffer("bias", trained.bias().detach())
        self.register_buffer("factor", trained.factor().detach())

    def forward(self, x: Tensor) -> Tensor:
        return _attend(x, self.qkv, self.project, self.heads, self.bias, self.factor)


def _attend(x: Tensor, qkv: nn.Module, project: nn.Module, heads: int, bias: Tensor, factor: Tensor) -> Tensor:
    n, c, h, w = x.shape
    q, k, v = stacked_heads(qkv, to_tokens(x), heads)
    shares = (q @ k.transpose(2, 3) * (c // heads) ** -0.5 + bias).softmax(dim=3) * factor
    y: Tensor = project((shares @ v).transpose(1, 2).reshape(n, h * w, c))
    return to_map(y, h, w)
