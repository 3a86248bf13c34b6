"""``vit``: plain vision transformers that choose resolution, width and depth, and in each block heads and expansion.

    patches ─▶ + class token, positions ─▶ (attention ─▶ perceptron) × depth ─▶ norm of the class token ─▶ linear

Every block attends to every patch, so this is the space in which attention to many tokens is to be had. Presets: ``t s b``
as published, ``n`` for small data; ``parallel-n t s b`` choose instead how twelve layers are arranged: one after another, or two, three or four
side by side, which train as branches and deploy as six, four or three layers (see `search_spaces.reparam.depth`); ``tokens-n t s`` choose
besides whether, and by which method of `search_spaces.token_reduction`, fewer tokens go on from a third of the depth.

Source:
    AutoFormer (arXiv 2107.00651): choices of ``t s b``, the width of a head (64) and queries whose width does not follow
    that of the tokens. Differs: the resolution is searched, so positions are fixed sines and cosines (He et al., arXiv
    2111.06377) where AutoFormer learns them, absolute and relative; a class token as in DeiT (arXiv 2012.12877), where
    AutoFormer averages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder, Weight
from nas.graphs.operators import Shape
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.space import Choice, Resolution, spaces
from nas.spaces.token_reduction import KEEPS, BlockSize, LayeredReduction, TokenReduction, token_reductions
from nas.units import parse_resolution

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.reparam.depth import AttentionJoin, Depth, PerceptronJoin

RESOLUTIONS = ("192x192", "224x224", "256x256", "288x288", "320x320", "384x384")
PATCH, SMALL_PATCH = 16, 2
_SMALL = 48
"""A proxy with a side shorter than this has patches of `SMALL_PATCH`, so that it has about as many tokens as what it stands for."""

_LARGEST_SMALL = 94
"""Longest side of a member's proxy with small patches."""


@dataclass(frozen=True)
class _Size:
    """Choices of a preset."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    expansions: tuple[str, ...]
    head_dim: int = 64


# Source: t, s and b are AutoFormer's (arXiv 2107.00651); n is ours, set by hand.
SIZES: Mapping[str, _Size] = {
    "n": _Size((32, 48), (2, 3, 4), (1, 2, 3), ("2", "3", "4"), head_dim=16),
    "t": _Size((192, 216, 240), (12, 13, 14), (3, 4), ("3.5", "4")),
    "s": _Size((320, 384, 448), (12, 13, 14), (5, 6, 7), ("3", "3.5", "4")),
    "b": _Size((528, 576, 624), (14, 15, 16), (9, 10), ("3", "3.5", "4")),
}


ARRANGEMENTS = ("12x1", "6x2", "4x3", "3x4")
"""Layers one after another, by branches side by side in each."""

PARALLEL: Mapping[str, tuple[tuple[int, ...], int]] = {"n": ((48, 64), 16), "t": ((192,), 64), "s": ((384,), 64), "b": ((768,), 64)}
"""Widths and the width of a head; of the published sizes, DeiT's (arXiv 2012.12877)."""


ALL = "all"
"""The gene of a member that keeps its tokens."""


def patch_of(resolution: Resolution) -> int:
    """Return the side of a patch for pictures of a size."""
    return SMALL_PATCH if max(resolution) <= _LARGEST_SMALL else PATCH


@dataclass(frozen=True)
class Patches(Part):
    """(1, 3, h, w) -> (1, 1 + tokens, width): a convolution, a class token before the patches, positions added."""

    width: int
    whole: bool = False
    """Whether a training step sees every patch: what reduces tokens wants the grid that it was made for."""

    @property
    def grid(self) -> Resolution:
        """Patches by height and width."""
        height, width = self.shape[2:]
        patch = patch_of((height, width))
        return height // patch, width // patch

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        patch, tokens = patch_of((self.shape[2], self.shape[3])), prod(self.grid)
        x = builder.conv(x, self.width, patch, stride=patch, pads=(0, 0, 0, 0), name="projection")
        x = builder.transpose(builder.reshape(x, (1, self.width, tokens)), (0, 2, 1))
        x = builder.add_operator("Concat", [x], {"axis": 1}, weights=[Weight((1, 1, self.width))], name="class_token")
        return builder.scale(x, (1, 1 + tokens, self.width), op="Add", parameter=False, name="positions")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.tokens import PatchEmbedding

        return PatchEmbedding(self.width, patch_of((self.shape[2], self.shape[3])), self.grid, whole=self.whole)


@dataclass(frozen=True)
class Attention(Part):
    """(1, tokens, c) -> (1, tokens, c): y = x + attention(norm(x)); heads of `head_dim` channels, whatever c is."""

    heads: int
    head_dim: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        n, tokens, channels = self.shape
        inner = self.heads * self.head_dim
        y = builder.norm("LayerNormalization", x, channels, name="norm", axis=-1, epsilon=1e-6)
        parts = builder.split(builder.gemm(y, 3 * inner, name="qkv"), (inner,) * 3, axis=2)
        q, k, v = (builder.transpose(builder.reshape(p, (n, tokens, self.heads, self.head_dim)), (0, 2, 1, 3)) for p in parts)
        y = builder.transpose(builder.attention(q, k, v), (0, 2, 1, 3))
        return builder.binary("Add", x, builder.gemm(builder.reshape(y, (n, tokens, inner)), channels, name="project"), name="residual")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.tokens import PreNorm, TokenAttention

        return PreNorm(TokenAttention(self.shape[2], self.heads, head_dim=self.head_dim), self.shape[2])


@dataclass(frozen=True)
class Perceptron(Part):
    """(1, tokens, c) -> (1, tokens, c): y = x + perceptron(norm(x)) with ⌊expansion · c⌋ hidden channels."""

    expansion: float

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        channels = self.shape[2]
        y = builder.norm("LayerNormalization", x, channels, name="norm", axis=-1, epsilon=1e-6)
        y = builder.unary("Gelu", builder.gemm(y, int(self.expansion * channels), name="expand"), name="act", approximate="none")
        return builder.binary("Add", x, builder.gemm(y, channels, name="project"), name="residual")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.channel_mixers.mlp import TokenPerceptron
        from search_spaces.layers.tokens import PreNorm

        channels = self.shape[2]
        return PreNorm(TokenPerceptron(channels, int(self.expansion * channels), "gelu"), channels)


@dataclass(frozen=True)
class Layer(Part):
    """(1, tokens, c) -> (1, tokens, c): attention and perceptron with their residuals, trained as branches, deployed as one layer."""

    branches: int
    attention_join: AttentionJoin
    perceptron_join: PerceptronJoin
    head_dim: int

    @property
    def slot(self) -> str:
        """One a number of branches: how they are joined changes what the weights do, not what they are."""
        return f"{self.label}/x{self.branches}"

    def _knobs(self) -> Depth:
        from search_spaces.reparam.depth import Depth

        return Depth(self.branches, self.attention_join, self.perceptron_join, head_dim=self.head_dim)

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: the merged layer."""
        return self._knobs().lower_tokens(builder, x)

    def build(self) -> nn.Module:
        """Return the training form; what its branches have in common follows the progress of the training."""
        from search_spaces.layers.attention import heads_of
        from search_spaces.reparam.depth import ParallelLayer

        return ParallelLayer(self.shape[2], heads_of(self.shape[2], self.head_dim), self._knobs())


@dataclass(frozen=True)
class Reduction(Part):
    """(1, 1 + patches, c) -> (1, 1 + fewer, c): a token reduction in place of a block's attention."""

    reduction: TokenReduction
    family: str
    block: BlockSize

    @property
    def slot(self) -> str:
        """One a method, or the attention's where its weights are that attention's."""
        return self.label if self.reduction.shares_attention else f"{self.label}/{self.family}"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return self.reduction.lower(builder, x, self.block)

    def build(self) -> nn.Module:
        """Return the training form."""
        return self.reduction.build(self.shape[2], self.block)


@dataclass(frozen=True)
class ReducedBlock(Part):
    """(1, tokens, c) -> (1, tokens, c), or fewer tokens of the last one: a block of a token reduction's own."""

    reduction: LayeredReduction
    family: str
    block: BlockSize
    last: bool

    @property
    def slot(self) -> str:
        """One a method."""
        return f"{self.label}/{self.family}"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return self.reduction.lower_block(builder, x, self.block, last=self.last)

    def build(self) -> nn.Module:
        """Return the training form."""
        return self.reduction.build_block(self.shape[2], self.block, last=self.last)


@dataclass(frozen=True)
class Head(Part):
    """(1, tokens, c) -> (1, classes): the class token, normalised, and a linear layer."""

    classes: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        channels = self.shape[2]
        first = builder.add_operator("Gather", [x], {"axis": 1, "index": 0}, shape=(1, channels), name="first")
        y = builder.norm("LayerNormalization", first, channels, name="norm", axis=-1, epsilon=1e-6)
        return builder.gemm(y, self.classes, name="classifier")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.tokens import ClassTokenHead

        return ClassTokenHead(self.shape[2], self.classes)


def output_of(part: Part) -> Shape:
    """Return the shape of what a part gives."""
    graph = part.segment[1]
    return graph.values[graph.outputs[0]].shape


@spaces.register("vit")
class VisionTransformer(ElasticSpace):
    """The plain transformer; see the module.

    Args:
        preset: ``n``, ``t``, ``s`` or ``b``.
        num_classes: Of the head.
        resolution: Fixes the deployment resolution; None leaves it to the search.

    Raises:
        UsageError: A resolution that patches do not divide.
    """

    least_alone: ClassVar[int] = 96  # smaller ones have small patches, and more of them
    presets = ("n", "t", "s", "b", "parallel-n", "parallel-t", "parallel-s", "parallel-b", "tokens-n", "tokens-t", "tokens-s")

    def __init__(self, preset: str, *, num_classes: int = 1000, resolution: Resolution | None = None) -> None:
        self.name, self.num_classes = f"vit-{preset}", num_classes
        group, _, name = preset.rpartition("-")
        self._parallel, self._reduces, self._size = group == "parallel", group == "tokens", SIZES[name]
        if resolution is not None and (min(resolution) < 32 or any(side % patch_of(resolution) for side in resolution)):
            raise UsageError(
                f"space {self.name}: cannot take the resolution, got {resolution}. Expected multiples of {patch_of(resolution)} from 32 pixels a side."
            )
        resolutions = RESOLUTIONS if resolution is None else (f"{resolution[0]}x{resolution[1]}",)
        size = self._size
        self._patches, self._attention, self._perceptron, self._head = cache(Patches), cache(Attention), cache(Perceptron), cache(Head)
        self._layer, self._reduction, self._reduced_block = cache(Layer), cache(Reduction), cache(ReducedBlock)
        if self._parallel:
            widths, self._head_dim = PARALLEL[name]
            self.choices = (
                Choice("resolution", resolutions),
                Choice("width", widths, ordered=True),
                Choice("arrangement", ARRANGEMENTS),
                Choice("attention_join", ("sum", "heads", "logit")),
                Choice("perceptron_join", ("sum", "concat")),
            )
            return
        self.choices = (
            Choice("resolution", resolutions),
            Choice("width", size.widths, ordered=True),
            Choice("depth", size.depths, ordered=True),
            *(
                choice
                for b in range(size.depths[-1])
                for choice in (
                    Choice(f"block{b}.heads", size.heads, ordered=True),
                    Choice(f"block{b}.expansion", size.expansions, ordered=True),
                )
            ),
            *(
                [Choice("tokens", (ALL, *(f"{name}:{keep}" for name in token_reductions.names() for keep in KEEPS)))]
                if self._reduces
                else []
            ),
        )

    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "resolution"})

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Return the spelling in which genes of blocks beyond the depth take their first value."""
        if self._parallel:  # a single branch has nothing to be joined with
            joins = tuple(choice.values[0] for choice in self.choices[3:]) if genes[2:3] == ("12x1",) else genes[3:]
            return (*genes[:3], *joins)
        depth = genes[2] if len(genes) > 2 else None
        if not isinstance(depth, int) or depth < 0:
            return genes
        beyond, end = 3 + 2 * depth, 3 + 2 * self._size.depths[-1]
        return (*genes[:beyond], *(choice.values[0] for choice in self.choices[beyond : min(len(genes), end)]), *genes[max(beyond, end) :])

    def size(self) -> int:
        """Return the exact number of members."""
        if self._parallel:
            joins = prod(len(choice.values) for choice in self.choices[3:])
            return len(self.choices[0].values) * len(self.choices[1].values) * (1 + (len(ARRANGEMENTS) - 1) * joins)
        size, per_block = self._size, len(self._size.heads) * len(self._size.expansions)
        ways = len(self.choices[-1].values) if self._reduces else 1
        return len(self.choices[0].values) * len(size.widths) * sum(per_block**depth for depth in size.depths) * ways

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture."""
        size = resolution or parse_resolution(str(architecture.genes[0]))
        return tuple(self._chain(size, architecture.genes[1:], num_classes or self.num_classes))

    def _chain(self, resolution: Resolution, genes: tuple[Any, ...], classes: int) -> Iterator[Part]:
        width, depth, *settings = genes
        tokens = settings[-1] if self._reduces else ALL
        yield (first := self._patches("patches", (1, 3, *resolution), width, tokens != ALL))
        shape = (1, 1 + prod(first.grid), width)
        if self._parallel:
            layers, branches = (int(number) for number in str(depth).split("x"))
            for i in range(layers):
                yield self._layer(f"layer{i}.parallel", shape, branches, settings[0], settings[1], self._head_dim)
            yield self._head("head", shape, classes)
            return
        if tokens != ALL:
            yield from self._reduced_chain(str(tokens), first.grid, (width, depth, *settings), classes)
            return
        yield from self._blocks(range(depth), shape, settings)
        yield self._head("head", shape, classes)

    def _blocks(self, blocks: range, shape: Shape, settings: Sequence[Any]) -> Iterator[Part]:
        """Yield plain blocks of tokens of a shape."""
        for b in blocks:
            heads, expansion = settings[2 * b : 2 * b + 2]
            yield self._attention(f"block{b}.attention", shape, heads, self._size.head_dim)
            yield self._perceptron(f"block{b}.perceptron", shape, float(expansion))

    def _reduced_chain(self, tokens: str, grid: Resolution, genes: tuple[Any, ...], classes: int) -> Iterator[Part]:
        """Yield what follows the patches of a member whose tokens become fewer at a third of its depth."""
        width, depth, *settings = genes
        family, _, keep = tokens.partition(":")
        method = token_reductions.get(family)(keep=float(keep))
        at = max(1, depth // 3)
        shape: Shape = (1, 1 + prod(grid), width)

        def block(b: int) -> BlockSize:
            heads, expansion = settings[2 * b : 2 * b + 2]
            return BlockSize(grid, heads, self._size.head_dim, int(float(expansion) * width))

        yield from self._blocks(range(at), shape, settings)
        label = f"block{at}.{'reduction' if isinstance(method, LayeredReduction) else 'attention'}"
        yield (part := self._reduction(label, shape, method, family, block(at)))
        shape = output_of(part)
        if isinstance(method, LayeredReduction):
            for b in range(at, depth):
                yield (own := self._reduced_block(f"block{b}.both", shape, method, family, block(b), b == depth - 1))
                shape = output_of(own)
        else:
            yield self._perceptron(f"block{at}.perceptron", shape, float(settings[2 * at + 1]))
            yield from self._blocks(range(at + 1, depth), shape, settings)
        yield self._head("head", shape, classes)

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """Return the proxy resolution times (deployment resolution / 224), in whole patches; a small deployment is its own proxy.

        A proxy of 28 pixels gives every member as many tokens as its deployment resolution does.
        """
        own = parse_resolution(str(architecture.genes[0]))
        if patch_of(own) == SMALL_PATCH:
            return own
        small = min(resolution) < _SMALL
        patch = SMALL_PATCH if small else PATCH
        height, width = (patch * max(1, round(base * side / 224 / patch)) for base, side in zip(resolution, own, strict=True))
        if small:
            return min(height, _LARGEST_SMALL), min(width, _LARGEST_SMALL)
        return max(height, 6 * PATCH), max(width, 6 * PATCH)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every position at its largest; no weight depends on the number of tokens."""
        if self._parallel:
            slots: dict[str, tuple[Part, ...]] = {}
            for arrangement in ARRANGEMENTS:
                values = [self.choices[0].values[-1], self.choices[1].values[-1], arrangement, *(c.values[0] for c in self.choices[3:])]
                member = self.architecture(values)
                slots |= {part.slot: (part,) for part in self.parts(member, self.proxy(member, resolution), num_classes)}
            return slots
        if self._reduces:
            return self._reduced_slots(resolution, num_classes)
        largest = self.architecture([choice.values[-1] for choice in self.choices])
        return {part.slot: (part,) for part in self.parts(largest, self.proxy(largest, resolution), num_classes)}

    def _reduced_slots(self, resolution: Resolution, num_classes: int) -> dict[str, tuple[Part, ...]]:
        """Return every position at its largest, of every method at every depth: where a method begins, and ends, depends on it."""
        slots: dict[str, tuple[Part, ...]] = {}
        for tokens in self.choices[-1].values:
            for depth in self.choices[2].values:
                values = [choice.values[-1] for choice in self.choices]
                values[2], values[-1] = depth, tokens
                member = self.architecture(values)
                slots |= {part.slot: (part,) for part in self.parts(member, self.proxy(member, resolution), num_classes)}
        return slots
