"""Trained networks as chains: between two points through which every path goes lies a segment, a part with its own weights.

A member of an elastic space is a chain of parts; so is an anchor. What edits chains (leave out, merge, narrow, go on in another network) sees
parts alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.operators import Shape
from nas.spaces.elastic import Part
from nas.spaces.pretrained.network import Pretrained, open_pretrained
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn

    from nas.graphs.frontends.cuts import Cuts, Point


@dataclass(frozen=True)
class Segment(Part):
    """What lies between two points of an anchor.

    Attributes:
        anchor: Name of the anchor.
        first: Index of the point before it; −1 at the input.
        last: Index of the point at its end.
        output_shape: At batch 1.
        chain: The anchor's chain at the size of `shape`.
    """

    anchor: str
    first: int
    last: int
    output_shape: Shape
    chain: Chain = field(compare=False, repr=False)

    @property
    def slot(self) -> str:
        """One a stretch: its weights are the same at every resolution."""
        return f"{self.anchor}/{self.first + 1}-{self.last + 1}"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form: batch norms folded, activations fused."""
        return builder.inline(self.graph(), x)

    def graph(self) -> Graph:
        """Return the deploy form, traced once."""
        return self.chain.graph(self.first, self.last)

    def build(self) -> nn.Module:
        """Return a copy with the trained weights: (n, …) of `shape` -> (n, …) of `output_shape`."""
        import copy

        return copy.deepcopy(self.chain.cuts.segment(self.first, self.last))


@dataclass(frozen=True)
class Chain:
    """A trained network, cut, at one size of picture.

    Attributes:
        name: Of the network; unique among the anchors of a space.
        cuts: The traced network with its points.
    """

    name: str
    cuts: Cuts
    _graphs: dict[tuple[int, int], Graph] = field(default_factory=dict, compare=False, repr=False)

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

    @cached_property
    def key(self) -> str:
        """16 hex digits over the weights."""
        digest = hashlib.sha256(self.name.encode())
        for name, tensor in self.cuts.module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def segment(self, first: int, last: int, label: str = "") -> Segment:
        """Return the stretch after a point up to another; −1 is the input."""
        shape, made = self.cuts.shape_before(first), self.points[last].shape
        return Segment(label or f"{self.name}.{self.points[last].label}", shape, self.name, first, last, made, self)

    def between(self, points: Sequence[int]) -> tuple[Segment, ...]:
        """Return the whole network as the segments between points that follow one another; the output need not be named."""
        borders = [-1, *points] if not points or points[-1] == len(self.points) - 1 else [-1, *points, len(self.points) - 1]
        return tuple(self.segment(a, b) for a, b in pairwise(borders))

    def blocks(self) -> tuple[Segment, ...]:
        """Return the network block by block: the stem, the blocks, the head."""
        return self.between(self.ends)

    def graph(self, first: int, last: int) -> Graph:
        """Return the deploy form of a stretch, traced once."""
        from nas.graphs.frontends.torch_module import trace_module
        from nas.graphs.passes import normalise

        if (first, last) not in self._graphs:
            name = f"{self.name} {self.points[last].label}"
            traced = trace_module(self.cuts.segment(first, last), self.cuts.shape_before(first), name)
            self._graphs[first, last] = normalise(traced)
        return self._graphs[first, last]

    def reduction(self, point: int) -> float:
        """Return the picture's side by that of the map at a point, from the number of positions; 0 for a vector."""
        shape, layout = self.points[point].shape, self.points[point].layout
        if layout == "vector":
            return 0.0
        positions = shape[1] if layout == "tokens" else shape[2] * (shape[3] if layout == "map" else shape[1])
        height, width = self.resolution
        return float((height * width / positions) ** 0.5)


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


def describe(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return one row a segment: the point at its end with shape and reduction, and what the segment costs by arithmetic."""
    rows = []
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
