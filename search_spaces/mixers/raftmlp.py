"""Perceptrons along the columns and along the rows of a map, several channels on one raft (RaftMLP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution


@mixers.register("raftmlp")
@dataclass(frozen=True)
class RaftMLP(OperatorFamily):
    """v + H(x + v) with v = V(x): V is a perceptron over all rows of a column, H over all columns of a row, with `raft` channels at once.

    Attributes:
        raft: Channels c, c + C / raft, … that are mixed together; divides the number of channels.
        expansion: Hidden features by positions · raft.
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "RaftMLP: How Much Can Be Done Without Spatial Inductive Bias?",
        "arXiv 2108.04384",
        "one residual and one norm around both axes, the block's, where the paper has two; positions come before the raft's channels in a "
        "perceptron's features",
    )

    raft: int = 2
    expansion: int = 2

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"raft": (1, 2, 4), "expansion": (1, 2)}

    def _check(self, channels: int) -> None:
        if channels % self.raft:
            raise UsageError(f"raftmlp: channels must divide by {self.raft}, got {channels}.")

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        self._check(c)
        r = self.raft

        def mixed(value: str, side: int, other: int, columns: bool, name: str) -> str:
            # (n, raft, c / raft, h, w) -> (n, c / raft, other, side · raft)
            y = builder.reshape(value, (n, r, c // r, h, w))
            y = builder.transpose(y, (0, 2, 4, 3, 1) if columns else (0, 2, 3, 4, 1))
            y = builder.reshape(y, (n, c // r, other, side * r))
            y = builder.unary("Gelu", builder.gemm(y, self.expansion * side * r, name=f"{name}.expand"), approximate="none")
            y = builder.reshape(builder.gemm(y, side * r, name=f"{name}.project"), (n, c // r, other, side, r))
            return builder.reshape(builder.transpose(y, (0, 4, 1, 3, 2) if columns else (0, 4, 1, 2, 3)), (n, c, h, w))

        vertical = mixed(x, h, w, True, "vertical")
        return builder.binary("Add", vertical, mixed(builder.binary("Add", x, vertical), w, h, False, "horizontal"))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        self._check(channels)
        return RaftMixer(resolution, self.raft, self.expansion)


class AxisPerceptron(nn.Module):
    """Perceptron over the positions of an axis and the channels of a raft. (n, c, h, w) -> (n, c, h, w).

    Args:
        side: Positions of the axis.
        raft: Channels of a raft.
        expansion: Hidden features by side · raft.
        columns: Whether the axis is h.
    """

    def __init__(self, side: int, raft: int, expansion: int, *, columns: bool) -> None:
        super().__init__()
        self.raft, self.columns = raft, columns
        self.expand = nn.Linear(side * raft, expansion * side * raft)
        self.project = nn.Linear(expansion * side * raft, side * raft)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        r = self.raft
        other = w if self.columns else h
        y = x.reshape(n, r, c // r, h, w).permute((0, 2, 4, 3, 1) if self.columns else (0, 2, 3, 4, 1)).reshape(n, c // r, other, -1)
        y = self.project(F.gelu(self.expand(y))).reshape(n, c // r, other, -1, r)
        return y.permute((0, 4, 1, 3, 2) if self.columns else (0, 4, 1, 2, 3)).reshape(n, c, h, w)


class RaftMixer(nn.Module):
    """The operator in its training form. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, resolution: Resolution, raft: int, expansion: int) -> None:
        super().__init__()
        self.vertical = AxisPerceptron(resolution[0], raft, expansion, columns=True)
        self.horizontal = AxisPerceptron(resolution[1], raft, expansion, columns=False)

    def forward(self, x: Tensor) -> Tensor:
        vertical = self.vertical(x)
        return vertical + self.horizontal(x + vertical)
