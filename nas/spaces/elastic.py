"""The contract of a space whose members share one set of weights.

A member is a chain of parts; each part says where it stands, lowers itself and builds itself. Parts that stand in one
slot (the same position and operator family) share weights: a smaller part takes a slice of the slot's largest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.operators import Shape
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.space import Resolution, SearchSpace
from nas.units import parse_resolution

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Part(ABC):
    """One link of a member: a map of one tensor to one tensor.

    Attributes:
        label: Position in the network (``stage2.block1.mixer``); unique in a member.
        shape: Of the input at batch 1, (1, c, h, w) of a map or (1, tokens, c).
    """

    label: str
    shape: Shape
    _segment: tuple[str, Graph] = field(init=False, repr=False, compare=False)

    @property
    def slot(self) -> str:
        """Name under which weights are shared: the position, and the operator family where there is a choice."""
        return self.label

    @abstractmethod
    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form and return the output's name."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the training form with fresh weights."""

    def graph(self) -> Graph:
        """Return the deploy form as a graph of its own."""
        builder = GraphBuilder(self.label)
        return builder.build(self.lower(builder, builder.input(self.shape)))

    @property
    def segment(self) -> tuple[str, Graph]:
        """The label and the graph, which is written once."""
        try:
            return self._segment
        except AttributeError:
            object.__setattr__(self, "_segment", (self.label, self.graph()))
            return self._segment


class ElasticSpace(SearchSpace):
    """A space that one supernet serves; `segments` and `build` follow from `parts`."""

    num_classes: int
    least_proxy: int = 32
    """Least side in pixels at which a supernet trains by default."""

    least_alone: ClassVar[int] = 32
    """Least side in pixels of a network that is trained by itself, where the user names no size."""

    any_size: bool = False
    """Whether the network of a member takes smaller pictures than its own, too, so that its training may begin with those."""

    calibration_pictures: int = 1024
    """Training pictures from which a member's batch-norm statistics are taken when it is scored."""

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return the parts as named graphs; see `SearchSpace.segments`."""
        parts = self.parts(architecture, resolution)
        try:
            return tuple([part._segment for part in parts])
        except AttributeError:  # a part's graph is asked for the first time
            return tuple([part.segment for part in parts])

    @abstractmethod
    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture; the resolution defaults to the architecture's own.

        A search asks for the chains of thousands of members. A space that makes each part once (`functools.cache` around what
        makes a kind of part) has each graph written and priced once, too.
        """

    @abstractmethod
    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return, for each slot, parts that between them are as large as any part of the slot along every axis.

        Args:
            resolution: The supernet's proxy resolution; see `proxy`.
            num_classes: Of the head.
        """

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:  # noqa: ARG002
        """Return the size at which a supernet of the proxy resolution runs a member.

        A space that searches the deployment resolution overrides this, so that scores can tell resolutions apart.
        """
        return resolution

    @property
    def plain(self) -> ElasticSpace:
        """The space without choices of precision: its supernet serves both."""
        return self

    def without_precisions(self, architecture: Architecture) -> Architecture:
        """Return the architecture without its choices of precision, as a member of `plain`."""
        return architecture

    def part_precisions(self, architecture: Architecture) -> Mapping[str, str]:  # noqa: ARG002
        """Return the precision of each part by its label; empty where the run decides."""
        return {}

    def validate(self, architecture: Architecture) -> None:
        """Check membership; a resolution that the user fixed for a run is accepted beside those that are searched."""
        genes, first = architecture.genes, self.choices[0]
        if first.name == "resolution" and genes and isinstance(genes[0], str) and genes[0] not in first.values and "x" in genes[0]:
            parse_resolution(genes[0])
            architecture = Architecture(architecture.space, architecture.version, (first.values[0], *genes[1:]))
        super().validate(architecture)

    def extreme(self, largest: bool) -> Architecture:
        """Return the member with every ordered gene at its upper or lower end; other genes at the dearest or the first value.

        The dearest value of an unordered gene is the one with the most multiply-adds, all else equal.
        """
        genes: list[Gene] = [choice.values[-1 if largest and choice.ordered else 0] for choice in self.choices]
        if largest:
            for i, choice in enumerate(self.choices):
                if not choice.ordered and len(choice.values) > 1:
                    genes[i] = max(choice.values, key=lambda value, i=i: self._macs([*genes[:i], value, *genes[i + 1 :]]))  # type: ignore[misc]
        return self.architecture(genes)

    def at_end(self, architecture: Architecture, end: int) -> Architecture:
        """Return an architecture with every ordered gene at its last (−1) or first (0) value: what a step trains beside random members."""
        pairs = zip(self.choices, architecture.genes, strict=True)
        return self.architecture([choice.values[end] if choice.ordered else gene for choice, gene in pairs])

    def _macs(self, genes: list[Gene]) -> int:
        return sum(graph.cost.macs for _, graph in self.segments(self.architecture(genes)))

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:
        """Return the chain as a module, in channels-last memory format: (n, 3, h, w) -> (n, num_classes)."""
        import torch

        self.validate(architecture)
        chain: dict[str, nn.Module] = {child_name(part.label): part.build() for part in self.parts(architecture, resolution, num_classes)}
        return torch.nn.Sequential(chain_of(chain)).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def proportional(base: Resolution, deployed: Resolution, least: int, most: int | None = None) -> Resolution:
    """Return a proxy resolution times (deployment resolution / 224), in steps of 4 pixels, each side within bounds."""
    sides = (4 * round(side * own / 224 / 4) for side, own in zip(base, deployed, strict=True))
    height, width = (max(least, side if most is None else min(most, side)) for side in sides)
    return height, width


def child_name(label: str) -> str:
    """Return the name that a part has in the module which `ElasticSpace.build` returns."""
    return label.replace(".", "_")


def chain_of(modules: Mapping[str, Any]) -> Any:
    """Return named modules as `torch.nn.Sequential` takes them."""
    from collections import OrderedDict

    return OrderedDict(modules)


def children(space: ElasticSpace, architecture: Architecture) -> Mapping[str, str]:
    """Return the precision of each child of a built member, where the architecture says it."""
    return {child_name(label): precision for label, precision in space.part_precisions(architecture).items()}
