"""The contract of a token reduction: a block of a transformer that hands over fewer tokens than it takes.

One file holds one method, a frozen dataclass of knobs, as operator families are. Shapes are fixed: how many tokens remain follows from
`keep` and the grid of patches, never from the picture. The class token stays first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.registry import Registry
from nas.spaces.operator_family import Grade, Source
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn

KEEPS = (0.7, 0.5)
"""Shares of the patches that a space offers. Set by hand."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """The block that a reduction stands in, or has of its own.

    Attributes:
        grid: Patches by height and width.
        heads: Of its attention.
        head_dim: Channels of a head.
        hidden: Of its perceptron.
    """

    grid: Resolution
    heads: int
    head_dim: int
    hidden: int

    @property
    def patches(self) -> int:
        """Tokens beside the class token."""
        return self.grid[0] * self.grid[1]

    @property
    def inner(self) -> int:
        """Channels of all heads together."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class TokenReduction(ABC):
    """A map of tokens (n, 1 + patches, c) -> (n, 1 + fewer, c) that stands in place of one block's attention, residual and norm included.

    Attributes:
        keep: About the share of the patches that remains, over 0 and under 1.
        npu_grade: See `nas.spaces.operator_family.OperatorFamily`.
        source: The paper.
        shares_attention: Whether its weights are those of the attention that it stands for, so that a trained network needs no training.

    Raises:
        UsageError: A share out of range.
    """

    npu_grade: ClassVar[Grade]
    source: ClassVar[Source]
    shares_attention: ClassVar[bool] = False

    keep: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise UsageError(f"token reduction: the share to keep must be over 0 and under 1, got {self.keep!r}.")

    @abstractmethod
    def remaining(self, grid: Resolution) -> int:
        """Return how many tokens follow the class token afterwards."""

    @abstractmethod
    def lower(self, builder: GraphBuilder, x: str, block: BlockSize) -> str:
        """Write the deploy form for tokens `x`, (1, 1 + patches, c), and return the output's name."""

    @abstractmethod
    def build(self, channels: int, block: BlockSize) -> nn.Module:
        """Return the training form with fresh weights, none of which depends on the grid."""


class LayeredReduction(TokenReduction):
    """A reduction with blocks of its own, which follow in place of plain ones; `lower` and `build` only begin."""

    @abstractmethod
    def lower_block(self, builder: GraphBuilder, x: str, block: BlockSize, *, last: bool) -> str:
        """Write a block for what `lower` or the block before gives; the last one may leave out what no one reads."""

    @abstractmethod
    def build_block(self, channels: int, block: BlockSize, *, last: bool) -> nn.Module:
        """Return the training form of `lower_block`."""


token_reductions: Registry[type[TokenReduction]] = Registry("token_reductions", "search_spaces.token_reduction")
"""Token reductions by name."""
