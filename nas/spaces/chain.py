"""Trained networks as chains: between two points through which every path goes lies a segment, a part with its own weights.

A member of an elastic space is a chain of parts; so is an anchor. What edits chains (leave out, merge, narrow, go on in another network) sees
parts alone.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.operators import Shape
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.pretrained.network import Pretrained, open_pretrained
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn

    from nas.graphs.frontends.cuts import Cuts, Point
    from nas.spaces.surgery.stitching import Form


@dataclass(frozen=True)
class Segment(Part):
    """What lies between two points of an anchor.

    Attributes:
        anchor: Name of the anchor.
        first: Index of the point before it; −1 at the input.
        last: Index of the point at its end.
        output_shape: At batch 1.
        chain: The anchor's chain at the size of `shape`.
        width: Share of its inner widths that is left, as text (``0.5``).
        merged: Whether its runs of convolutions are to become one each; their inner activations are gone.
        rank: Share of the weights that its linear layers have left as two of lower rank, as text.
        classes: Outputs of the classifier, where it is another one than the anchor's; 0 where it is the anchor's own.
    """

    anchor: str
    first: int
    last: int
    output_shape: Shape
    chain: Chain = field(compare=False, repr=False)
    width: str = "1"
    merged: bool = False
    rank: str = "1"
    classes: int = 0

    @property
    def slot(self) -> str:
        """One a stretch, its weights the same at every resolution and width; runs in place of a block, and layers of lower rank, have their own."""
        form = "/merged" if self.merged else f"/rank-{self.rank}" if self.rank != "1" else ""
        return f"{self.anchor}/{self.first + 1}-{self.last + 1}{form}"

    @property
    def edited(self) -> bool:
        """Whether it is not as its anchor has it."""
        return self.merged or self.width != "1" or self.rank != "1"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: batch norms folded, activations fused, runs merged."""
        return builder.inline(self.graph(), x)

    def graph(self) -> Graph:
        """Return the deploy form, traced once."""
        return self.chain.graph(self)

    def build(self) -> nn.Module:
        """Return a copy with the trained weights: (n, …) of `shape` -> (n, …) of `output_shape`."""
        import copy

        from nas.spaces.surgery.factorising import factorised
        from nas.spaces.surgery.merging import with_runs
        from nas.spaces.surgery.narrowing import narrowed

        module = self.chain.cuts.segment(self.first, self.last)
        module = narrowed(module, float(self.width)) if self.width != "1" else copy.deepcopy(module)
        module = with_runs(module) if self.merged else module
        module = factorised(self.chain.cuts.segment(self.first, self.last), float(self.rank)) if self.rank != "1" else module
        if self.classes:
            _replace_classifier(module, self.classifier, self.classes)
        return module

    @property
    def classifier(self) -> str:
        """Name of the last linear layer in the module.

        Raises:
            UsageError: Nothing but a linear layer may stand before the scores, and there is none.
        """
        from torch import nn

        module = self.chain.cuts.segment(self.first, self.last)
        for node in reversed(module.graph.nodes):
            if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), nn.Linear | nn.Conv2d):
                return str(node.target)
        raise UsageError(f"anchor {self.anchor}: no linear layer makes its scores. Do this: another anchor.")


def _replace_classifier(module: Any, name: str, classes: int) -> None:
    import torch
    from torch import nn

    old = module.get_submodule(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        new = nn.Conv2d(old.in_channels, classes, 1) if isinstance(old, nn.Conv2d) else nn.Linear(old.in_features, classes)
    nn.init.zeros_(new.weight)
    assert new.bias is not None
    nn.init.zeros_(new.bias)
    path, _, leaf = name.rpartition(".")
    module.get_submodule(path).register_module(leaf, new)


@dataclass(frozen=True)
class Stitch(Part):
    """One linear layer at each position, from what one anchor makes to what another goes on with.

    Attributes:
        source: Anchor and index of the point.
        target: Likewise.
        forms: Of both points.
        rank: Of the linear map; 0 for all of it.
    """

    source: tuple[str, int]
    target: tuple[str, int]
    forms: tuple[Form, Form]
    rank: int = 0

    @property
    def slot(self) -> str:
        """One a pair of points."""
        (a, i), (b, j) = self.source, self.target
        return f"stitch/{a}:{i}>{b}:{j}"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return builder.inline(self.graph(), x)

    def graph(self) -> Graph:
        """Return the deploy form."""
        from nas.graphs.frontends.torch_module import trace_module
        from nas.graphs.passes import normalise

        return normalise(trace_module(self.build(), self.shape, self.label))

    def build(self) -> nn.Module:
        """Return a layer with fresh weights; `nas.training.supernet.fitting` starts it by least squares."""
        from nas.spaces.surgery.stitching import StitchLayer

        return StitchLayer(*self.forms, rank=self.rank)


@dataclass(frozen=True)
class Chain:
    """A trained network, cut, at one size of picture.

    Attributes:
        name: Of the network; unique among the anchors of a space.
        cuts: The traced network with its points.
    """

    name: str
    cuts: Cuts
    _graphs: dict[Segment, Graph] = field(default_factory=dict, compare=False, repr=False)

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point, in order; the output is the last."""
        return self.cuts.points

    @property
    def resolution(self) -> Resolution:
        """(height, width) of the pictures."""
        return self.cuts.input_shape[2], self.cuts.input_shape[3]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Indices of points at which a block ends or begins."""
        return tuple(i for i, point in enumerate(self.points) if point.block_end)

    @property
    def classes(self) -> int:
        """Number of scores."""
        return self.points[-1].shape[-1]

    @cached_property
    def key(self) -> str:
        """16 hex digits over the weights."""
        digest = hashlib.sha256(self.name.encode())
        for name, tensor in self.cuts.module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def fixed_size(self) -> bool:
        """Whether the network runs at its own size of picture alone (learned positions, windows that must fit)."""
        from nas.errors import GraphError

        height, width = self.resolution
        try:
            self.at((height - 32, width - 32) if min(height, width) > 96 else (height + 32, width + 32))
        except GraphError:
            return True
        return False

    def at(self, resolution: Resolution) -> Chain:
        """Return the same network, with the same weights, cut for another size of picture.

        Raises:
            GraphError: It does not run at that size.
        """
        from nas.graphs.frontends.cuts import cut

        if resolution == self.resolution:
            return self
        return Chain(self.name, cut(self.cuts.module, (1, 3, *resolution), self.name))

    def segment(self, first: int, last: int, **edits: Any) -> Segment:
        """Return the stretch after a point up to another; −1 is the input. Edits are further attributes of `Segment`."""
        shape, made = self.cuts.shape_before(first), self.points[last].shape
        if edits.get("classes"):
            made = (*made[:-1], edits["classes"])
        return Segment(f"{self.name}.{self.points[last].label}", shape, self.name, first, last, made, self, **edits)

    def between(self, points: Sequence[int]) -> tuple[Segment, ...]:
        """Return the whole network as the segments between points that follow one another; the output need not be named."""
        borders = [-1, *points] if points and points[-1] == len(self.points) - 1 else [-1, *points, len(self.points) - 1]
        return tuple(self.segment(a, b) for a, b in pairwise(borders))

    def blocks(self) -> tuple[Segment, ...]:
        """Return the network block by block: the stem, the blocks, the head."""
        return self.between(self.ends)

    def graph(self, segment: Segment) -> Graph:
        """Return the deploy form of a segment, traced once."""
        from nas.graphs.frontends.torch_module import trace_module
        from nas.graphs.passes import normalise
        from nas.spaces.operator_family import fuse

        if segment not in self._graphs:
            module = segment.build()
            if segment.merged:  # shapes are all that a graph has of a run: its one convolution need not be worked out
                module.to("meta")
            self._graphs[segment] = normalise(trace_module(fuse(module), segment.shape, segment.label))
        return self._graphs[segment]

    def reduction(self, point: int) -> float:
        """Return the picture's side by that of the map at a point, from the number of positions; 0 for a vector."""
        height, width = self.resolution
        rows, columns = self.grid(point)
        return 0.0 if self.points[point].layout == "vector" else float((height * width / (rows * columns)) ** 0.5)

    def grid(self, point: int) -> tuple[int, int]:
        """Return the height and width of the positions at a point; a square number of tokens, or with a class token before them."""
        shape, layout = self.points[point].shape, self.points[point].layout
        if layout == "map":
            return shape[2], shape[3]
        if layout == "map-last":
            return shape[1], shape[2]
        if layout == "vector":
            return 1, 1
        ratio = self.resolution[0] / self.resolution[1]
        for prefix in (0, 1, 2):
            columns = round(((shape[1] - prefix) / ratio) ** 0.5)
            rows = round(columns * ratio)
            if columns and rows * columns == shape[1] - prefix:
                return rows, columns
        return shape[1], 1

    def form(self, point: int) -> Form:
        """Return what the tensor at a point is, for a stitch."""
        from nas.spaces.surgery.stitching import Form

        tensor = self.points[point]
        return Form(tensor.shape, tensor.layout, self.grid(point))


class ChainSpace(ElasticSpace):
    """A space whose members are made of trained networks: what training has to know of it.

    Attributes:
        anchors: The trained networks, at the first resolution.
        frozen: Whether the anchors' own weights stay as they are while stitches, merged runs and layers of lower rank are trained.
        importance: By which inner channels are put in order, see `nas.training.importance`.
    """

    anchors: tuple[Chain, ...]
    frozen: bool = True
    importance: str = "taylor"
    least_proxy = 64
    calibration_pictures = 256

    @abstractmethod
    def route(self, genes: Sequence[Gene]) -> tuple[tuple[int, int, int], ...]:
        """Return (anchor, first block, last block) of each stretch; blocks are numbered from the stem, 0."""

    @abstractmethod
    def blocks(self, architecture: Architecture) -> Mapping[str, tuple[str, ...]]:
        """Return, for each anchor, what becomes of its blocks from stem to head; nothing where they are not run."""

    @abstractmethod
    def member(self, anchor: str, resolution: str | None = None) -> Architecture:
        """Return an anchor by itself, by its name."""

    @abstractmethod
    def most_alike(self, alike: Mapping[str, float]) -> tuple[str, ...]:
        """Return the pairs of points, by name, whose two ends are most alike of those from one point."""


def open_chain(subject: str | Pretrained, resolution: Resolution | None = None, **options: object) -> Chain:
    """Return a trained network as a chain.

    Args:
        subject: As a user names it, or opened already.
        resolution: Of the pictures; default the network's own.
        options: Of `nas.spaces.pretrained.open_pretrained`.

    Raises:
        UnknownNameError: See `open_pretrained`.
        UsageError: Likewise.
        ArtifactError: Likewise.
        GraphError: It does not trace, or does not run at that resolution.
    """
    from nas.graphs.frontends.cuts import cut

    opened = subject if isinstance(subject, Pretrained) else open_pretrained(subject, resolution=resolution, **options)  # type: ignore[arg-type]
    size = resolution or opened.resolution
    return Chain(opened.name, cut(opened.module, (1, 3, *size), opened.name))


class SegmentRow(TypedDict):
    """A segment as it is shown; `latency_ms` by device and precision where it was priced."""

    point: int
    label: str
    shape: list[int]
    layout: str
    reduction: float
    macs: int
    params: int
    latency_ms: NotRequired[dict[str, float]]


def describe(segments: Sequence[Segment]) -> list[SegmentRow]:
    """Return one row a segment: the point at its end with shape and reduction, and what the segment costs by arithmetic."""
    rows: list[SegmentRow] = []
    for segment in segments:
        point, cost = segment.chain.points[segment.last], segment.graph().cost
        rows.append(
            {
                "point": segment.last,
                "label": point.label,
                "shape": list(point.shape),
                "layout": point.layout,
                "reduction": round(segment.chain.reduction(segment.last), 3),
                "macs": cost.macs,
                "params": cost.params,
            }
        )
    return rows
