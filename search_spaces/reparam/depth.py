"""Depth reparameterisation of vision transformers: branches side by side in training, one layer when deployed.

    y = x + Σ_b attention_b(n(x)),   z = y + Σ_b perceptron_b(n(y)),   n a layer norm without affine part

With sums as joins the branches share what enters each non-linearity, to the degree `share`: 0 leaves them apart, 1 makes
the layer equal to a single one of the base width. Twelve layers become six of two branches, four of three or three of
four. The other joins need no schedule: they are exact at once, and as wide as all branches together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, refuse_training, reparam
from nas.spaces.space import Resolution
from search_spaces.layers.attention import StackedLinear, heads_of
from search_spaces.layers.tokens import to_map, to_tokens

AttentionJoin = Literal["sum", "heads", "logit"]
PerceptronJoin = Literal["sum", "concat"]
EPS = 1e-6


@reparam.register("depth")
@dataclass(frozen=True)
class Depth(OperatorFamily):
    """A transformer layer with its residuals and norms that is trained as several side by side.

    Attributes:
        branches: Layers side by side.
        attention_join: ``sum`` adds queries, keys and values of the branches; ``heads`` keeps all heads; ``logit`` adds the
            logits of equal heads.
        perceptron_join: ``sum`` adds the hidden layers before the activation; ``concat`` keeps all.
        expansion: Hidden width of a branch's perceptron by its channels.
        head_dim: Least width of a head (see `heads_of`).
    """

    npu_grade: ClassVar[Grade] = "amber"
    source: ClassVar[Source] = Source(
        "Rethinking Vision Transformer Depth via Structural Reparameterization",
        "arXiv 2511.19718",
        "the method section and the code are not public: the algebra is derived, the schedule is ours",
    )

    branches: int = 2
    attention_join: AttentionJoin = "sum"
    perceptron_join: PerceptronJoin = "sum"
    expansion: int = 4
    head_dim: int = 32

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"branches": (1, 2, 3, 4), "attention_join": ("sum", "heads", "logit"), "perceptron_join": ("sum", "concat")}

    def lower(self, builder: GraphBuilder, x: str) -> str:
        n, c, h, w = builder.shape(x)
        x = builder.reshape(builder.transpose(x, (0, 2, 3, 1)), (n, h * w, c))
        x = self.lower_tokens(builder, x)
        return builder.transpose(builder.reshape(x, (n, h, w, c)), (0, 3, 1, 2))

    def lower_tokens(self, builder: GraphBuilder, x: str) -> str:
        """Write the merged layer of tokens (n, tokens, c) and return its output."""
        n, tokens, c = builder.shape(x)
        base = heads_of(c, self.head_dim)
        inner = c if self.attention_join == "sum" else self.branches * c
        heads = self.branches * base if self.attention_join == "heads" else base
        y = builder.gemm(builder.add_operator("LayerNormalization", [x], {"axis": -1}), 3 * inner, name="attention.qkv")
        parts = builder.split(y, (inner,) * 3, axis=2)
        q, k, v = (builder.transpose(builder.reshape(part, (n, tokens, heads, inner // heads)), (0, 2, 1, 3)) for part in parts)
        y = builder.add_operator("Attention", [q, k, v], {"scale": (c // base) ** -0.5} if self.attention_join == "logit" else None)
        y = builder.reshape(builder.transpose(y, (0, 2, 1, 3)), (n, tokens, inner))
        x = builder.binary("Add", x, builder.gemm(y, c, name="attention.project"))
        hidden = self.expansion * c * (1 if self.perceptron_join == "sum" else self.branches)
        y = builder.gemm(builder.add_operator("LayerNormalization", [x], {"axis": -1}), hidden, activation="Gelu", name="expand")
        return builder.binary("Add", x, builder.gemm(y, c, name="project"))

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return MapLayer(ParallelLayer(channels, heads_of(channels, self.head_dim), self))


class MapLayer(nn.Module):
    """Runs a layer of tokens on a map. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.layer(to_tokens(x)), *x.shape[2:])


class Affine(nn.Module):
    """A branch's own scale and shift after the common layer norm. (…, c) -> (…, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias

    def folded(self, linear: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return weight and bias in float64 of the layer that does this and `linear`."""
        weight = linear.weight.double()
        return weight * self.weight.double(), linear.bias.double() + weight @ self.bias.double()


class AttentionBranch(nn.Module):
    """Projections of one branch's attention; the layer attends."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = Affine(channels)
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)


class PerceptronBranch(nn.Module):
    """The two projections of one branch's perceptron."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.affine = Affine(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)


class ParallelLayer(nn.Module):
    """The training form. (n, tokens, c) -> (n, tokens, c).

    Args:
        channels: c.
        heads: Of a branch.
        knobs: Of the layer.

    Attributes:
        share: How much each branch of a ``sum`` join takes from the sum of all: 0 its own alone, 1 the sum alone.
    """

    def __init__(self, channels: int, heads: int, knobs: Depth) -> None:
        super().__init__()
        self.channels, self.heads, self.knobs, self.share = channels, heads, knobs, 1.0
        self.attention = nn.ModuleList(AttentionBranch(channels) for _ in range(knobs.branches))
        self.perceptron = nn.ModuleList(PerceptronBranch(channels, knobs.expansion * channels) for _ in range(knobs.branches))

    def set_progress(self, progress: float) -> None:
        """Join the branches as far as a training that has come so far wants them joined; see `share_at`."""
        self.share = share_at(progress)

    def _branches(self) -> tuple[list[AttentionBranch], list[PerceptronBranch]]:
        return cast(list[AttentionBranch], list(self.attention)), cast(list[PerceptronBranch], list(self.perceptron))

    def _joined(self, parts: Sequence[Tensor]) -> list[Tensor]:
        total = torch.stack(tuple(parts)).sum(0)
        return [(1 - self.share) * part + self.share * total for part in parts]

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        attention, perceptron = self._branches()
        normal = F.layer_norm(x, (c,), eps=EPS)
        stacked = [branch.qkv(branch.affine(normal)) for branch in attention]
        if self.knobs.attention_join == "sum":
            stacked = self._joined(stacked)
        heads = [y.view(n, tokens, 3 * self.heads, -1).transpose(1, 2).chunk(3, dim=1) for y in stacked]
        if self.knobs.attention_join == "logit":
            q, k = (torch.cat([part[i] for part in heads], dim=3) for i in (0, 1))
            heads = [(q, k, part[2]) for part in heads]
        scale = (c // self.heads) ** -0.5
        for branch, (q, k, v) in zip(attention, heads, strict=True):
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
            x = x + branch.project(y.transpose(1, 2).reshape(n, tokens, c))
        normal = F.layer_norm(x, (c,), eps=EPS)
        hidden = [branch.expand(branch.affine(normal)) for branch in perceptron]
        if self.knobs.perceptron_join == "sum":
            hidden = self._joined(hidden)
        for half, y in zip(perceptron, hidden, strict=True):
            x = x + half.project(F.gelu(y))
        return x

    def fuse(self) -> nn.Module:
        """Return the single layer.

        Raises:
            UsageError: The module is in training mode, or branches that are to be summed are not yet joined.
        """
        refuse_training(self.training)
        sums = "sum" in (self.knobs.attention_join, self.knobs.perceptron_join)
        if sums and self.share != 1 and self.knobs.branches > 1:
            raise UsageError(f"fuse: branches are joined in part only, got share {self.share}. Do this: set_share(model, 1).")
        like = next(self.parameters())
        return MergedLayer(self._merged_attention(), self._merged_perceptron(), self._heads(), (self.channels // self.heads) ** -0.5).to(
            like.device, like.dtype
        )

    def _heads(self) -> int:
        return self.heads * (self.knobs.branches if self.knobs.attention_join == "heads" else 1)

    def _merged_attention(self) -> tuple[nn.Linear, nn.Linear]:
        branches, _ = self._branches()
        folded = [branch.affine.folded(branch.qkv) for branch in branches]
        weight, bias = torch.stack([w for w, _ in folded]), torch.stack([b for _, b in folded])  # (branches, 3c, c), (branches, 3c)
        out = torch.stack([branch.project.weight.double() for branch in branches])  # (branches, c, c)
        shift = torch.stack([branch.project.bias.double() for branch in branches]).sum(0)
        count, c = len(branches), self.channels
        if self.knobs.attention_join == "sum":
            return linear(weight.sum(0), bias.sum(0)), linear(out.sum(0), shift)
        axes = (1, 0, 2) if self.knobs.attention_join == "heads" else (1, 2, 0)  # branches outside heads, or inside them
        weight = weight.view(count, 3, self.heads, -1, c).permute(*axes, 3, 4)
        bias = bias.view(count, 3, self.heads, -1).permute(*axes, 3)
        out = out.view(count, c, self.heads, -1).permute(*axes, 3)
        return linear(weight.reshape(-1, c), bias.flatten()), linear(out.reshape(c, -1), shift)

    def _merged_perceptron(self) -> tuple[nn.Linear, nn.Linear]:
        _, branches = self._branches()
        folded = [branch.affine.folded(branch.expand) for branch in branches]
        out = [branch.project.weight.double() for branch in branches]
        shift = torch.stack([branch.project.bias.double() for branch in branches]).sum(0)
        if self.knobs.perceptron_join == "sum":
            weight, bias = torch.stack([w for w, _ in folded]).sum(0), torch.stack([b for _, b in folded]).sum(0)
            return linear(weight, bias), linear(torch.stack(out).sum(0), shift)
        return linear(torch.cat([w for w, _ in folded]), torch.cat([b for _, b in folded])), linear(torch.cat(out, dim=1), shift)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer of those values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


class MergedLayer(nn.Module):
    """The deploy form. (n, tokens, c) -> (n, tokens, c).

    Args:
        attention: Projections to q, k and v, and back.
        perceptron: The two projections.
        heads: Of the attention.
        scale: Of the logits.
    """

    def __init__(self, attention: tuple[nn.Linear, nn.Linear], perceptron: tuple[nn.Linear, nn.Linear], heads: int, scale: float) -> None:
        super().__init__()
        self.qkv, self.attention_project = attention
        self.expand, self.project = perceptron
        self.heads, self.scale = heads, scale

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        parts = self.qkv(F.layer_norm(x, (c,), eps=EPS)).chunk(3, dim=2)
        q, k, v = (part.reshape(n, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        x = x + self.attention_project(y.transpose(1, 2).reshape(n, tokens, -1))
        return x + self.project(F.gelu(self.expand(F.layer_norm(x, (c,), eps=EPS))))


def set_share(model: nn.Module, share: float) -> None:
    """Set how much the branches of every layer of `model` have in common.

    Raises:
        UsageError: `share` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"set_share: must be between 0 and 1, got {share!r}.")
    for module in model.modules():
        if isinstance(module, ParallelLayer):
            module.share = share


def share_at(progress: float, start: float = 0.3, end: float = 0.7) -> float:
    """Return the share to train with: 0 up to `start`, then linear up to 1 at `end`.

    Args:
        progress: Part of the training that is done, 0 to 1.
        start: Where joining begins.
        end: Where it is complete; from there on, the layers may be fused.

    Source:
        Ours; the published schedule is not available.
    """
    return min(1.0, max(0.0, (progress - start) / (end - start)))
