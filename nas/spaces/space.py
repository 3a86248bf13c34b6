"""The contract of a search space: a flat, fixed-length list of choices, and what a choice of each means.

A space is a file in ``search_spaces/`` that registers a class; its presets are asked for as ``name-preset``
(``hybrid-s``). Samplers see only `SearchSpace.choices`; everything that depends on another gene is settled by
`SearchSpace.canonical`, so that two encodings of one network are one architecture.

Life of a space in a search::

    spaces.get(family)              the class: `presets`, `options`, and the `evaluator` that scores its members by default
            │
    make(preset, **options)         once a process; `choices` is fixed from then on
            │
    sample, mutate, crossover  ◀──  by the searcher, as often as it likes; each asks `canonical` and `admits`
            │
    segments(architecture)          for every proposal: counts, and estimates on every device
            │
    identity(architecture)          names the network, so that none is evaluated twice
            │
    build(architecture)             where a member is trained or exported on its own; `lower` gives its graph as one

A table of known latencies or accuracies asks every family whether it `spells` the rows, then the space to `parse` each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas.errors import UsageError, did_you_mean
from nas.graphs.graph import Graph, join
from nas.graphs.patterns import count_patterns
from nas.registry import Registry
from nas.spaces.architecture import Architecture, Gene

if TYPE_CHECKING:
    from torch import nn

Resolution = tuple[int, int]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a space: the values that a gene may have.

    Attributes:
        name: Unique in its space (``stage2.block1.mixer``).
        values: Values that the gene may have. Where they have an order, they ascend, as widths do.
        ordered: Whether neighbouring values give similar networks, as with widths but not with mixers.
        mode: Whether the gene says how the network runs (a precision), not what the network is.
    """

    name: str
    values: tuple[Gene, ...]
    ordered: bool = False
    mode: bool = False


class SearchSpace(ABC):
    """A set of architectures.

    Attributes:
        name: Registered name, preset included.
        version: Raised when an encoding changes its meaning. Architectures of older versions are then refused.
        choices: The choices, in order.
        presets: Names of the presets of this family (``("s", "m", "l")``); empty where there are none.
        options: Names of the options that `make` accepts. A search passes these and refuses other options of the user.
        evaluator: Name of the default evaluator.
        stands_beside: Whether its front is shown beside that of every other search: a space whose members are published with their accuracy.
        evaluator_with_data: Name of the default evaluator where the user gives pictures; empty where it is the same.
    """

    version: int = 1
    evaluator: str = "supernet"
    stands_beside: ClassVar[bool] = False
    evaluator_with_data: ClassVar[str] = ""
    presets: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[frozenset[str]] = frozenset()
    name: str
    choices: tuple[Choice, ...]

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> SearchSpace:
        """Return the space of a preset; options are those of the class. One whose class takes no preset overrides this.

        Raises:
            UsageError: An option that the space does not know.
        """
        cls.check_options(preset, options)
        return cls(preset, **options)  # type: ignore[call-arg]

    @classmethod
    def has_preset(cls, preset: str) -> bool:
        """Return whether the family has a preset of that name; a family whose names are made of others' overrides this."""
        return preset in (cls.presets or ("",))

    @classmethod
    def check_options(cls, preset: str, options: Mapping[str, Any]) -> None:
        """Refuse options that `make` does not take.

        Raises:
            UsageError: One is unknown; the message lists those that are known.
        """
        if unknown := sorted(options.keys() - cls.options):
            name = f"{cls.__name__.lower()}{preset and '-' + preset}"
            expected = f"Expected {' or '.join(map(repr, sorted(cls.options)))}." if cls.options else "Do this: leave it out."
            raise UsageError(f"space {name}: has no option {unknown[0]!r}. {expected}")

    @abstractmethod
    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return the deploy form at batch 1 as named graphs to be chained; `resolution` defaults to the architecture's own.

        A large space cuts at block borders and returns cached objects, so that a predictor prices each block once
        and a candidate is a sum. A space without such borders returns one segment.
        """

    def lower(self, architecture: Architecture, resolution: Resolution | None = None) -> Graph:
        """Return the deploy-form graph at batch 1."""
        parts = self.segments(architecture, resolution)
        return parts[0][1] if len(parts) == 1 else join(parts, architecture.key)

    @abstractmethod
    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:
        """Return the architecture as a module of its own with fresh weights, (n, 3, h, w) -> (n, num_classes).

        Raises:
            UsageError: The space can only be looked up, not built.
        """

    def facts(self, architecture: Architecture) -> Mapping[str, str]:  # noqa: ARG002
        """Return facts that a report must show beside the numbers of an architecture; empty for most spaces."""
        return {}

    def normalisation(self, architecture: Architecture) -> tuple[Sequence[float], Sequence[float]] | None:  # noqa: ARG002
        """Return the mean and deviation by channel, in 0…1, with which a member's trained weights expect pictures; None for the data's own."""
        return None

    def timed_as(self, architecture: Architecture, resolution: Resolution | None = None) -> str:  # noqa: ARG002
        """Return the name under which profiles time this very network at this resolution; empty where it has none."""
        return ""

    def recipe(self, architecture: Architecture) -> str:  # noqa: ARG002
        """Return one line that says how to get the weights that others have published; empty where nothing is known."""
        return ""

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Return the one spelling of a network: genes that have no effect take their choice's first value."""
        return genes

    def admits(self, genes: tuple[Gene, ...]) -> bool:  # noqa: ARG002
        """Return whether a canonical spelling is a member; a space with forbidden combinations overrides this."""
        return True

    def architecture(self, genes: Sequence[Gene]) -> Architecture:
        """Return the canonical architecture of `genes`.

        Raises:
            UsageError: A gene has a value that its choice does not offer.
        """
        architecture = Architecture(self.name, self.version, self.canonical(tuple(genes)))
        self.validate(architecture)
        return architecture

    def validate(self, architecture: Architecture) -> None:
        """Check that an architecture is a canonical member of this space.

        Raises:
            UsageError: It is not; the message names the gene.
        """
        where = f"architecture {architecture.key}"
        if (architecture.space, architecture.version) != (self.name, self.version):
            actual = f"{architecture.space!r} version {architecture.version}"
            raise UsageError(f"{where}: of another space, got {actual}. Expected {self.name!r} version {self.version}.")
        if len(architecture.genes) != len(self.choices):
            raise UsageError(f"{where}: wrong number of genes, got {len(architecture.genes)}. Expected {len(self.choices)}.")
        for choice, gene in zip(self.choices, architecture.genes, strict=True):
            if gene not in choice.values:
                hint = did_you_mean(str(gene), map(str, choice.values))
                raise UsageError(f"{where}: {choice.name} cannot be {gene!r}.{hint}")
        if architecture.genes != self.canonical(architecture.genes):
            raise UsageError(f"{where}: not in canonical form. Do this: space.architecture(genes).")
        if not self.admits(architecture.genes):
            raise UsageError(f"{where}: a combination of genes that the space excludes.")

    def identity(self, architecture: Architecture) -> str:
        """Return the name of the network that an architecture stands for; a search evaluates each network once.

        A space whose members may be the same graph in disguise (isomorphic cells) overrides this.
        """
        return architecture.key

    def features(self, architecture: Architecture) -> Mapping[str, float]:
        """Return features of the network by name, for surrogate models; zeros may be left out.

        By default the patterns of its operators (see `nas.graphs.patterns`), summed over the segments.
        """
        counts: Counter[str] = Counter()
        for _, graph in self.segments(architecture):
            counts.update(count_patterns(graph))
        return counts

    @classmethod
    def spells(cls, rows: npt.NDArray[Any]) -> bool:  # noqa: ARG003
        """Return whether the rows of a table that names no space are in the spelling of this space's tables; asked before `parse`.

        Shape: rows is (n,) of text, or (n, …) of numbers, with n ≥ 1.
        """
        return False

    def parse(self, row: Any) -> Architecture:
        """Return the architecture of a row of a published table, in the spelling of this space's tables (JSON by default).

        Raises:
            UsageError: Not such a row, or no member of this space.
        """
        architecture = Architecture.from_json(str(row))
        self.validate(architecture)
        return architecture

    def encode(self, architecture: Architecture) -> Codes:
        """Return the index of each gene's value in its choice, shape (len(choices),)."""
        return np.array([choice.values.index(gene) for choice, gene in zip(self.choices, architecture.genes, strict=True)])

    def decode(self, codes: Sequence[int] | Codes) -> Architecture:
        """Return the canonical architecture of an encoding.

        Raises:
            UsageError: An index out of range, or a combination that the space excludes.
        """
        bad = [c.name for c, code in zip(self.choices, codes, strict=True) if not 0 <= code < len(c.values)]
        if bad:
            raise UsageError(f"space {self.name}: an index out of range for {bad[0]}.")
        return self.architecture([choice.values[code] for choice, code in zip(self.choices, codes, strict=True)])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a member drawn with every gene uniform and independent (so not uniform over networks)."""
        while True:
            genes = self.canonical(tuple(choice.values[rng.integers(len(choice.values))] for choice in self.choices))
            if self.admits(genes):
                return Architecture(self.name, self.version, genes)

    def variants(self, architecture: Architecture) -> Sequence[Architecture]:
        """Return the same network in each mode that holds for the whole of it (a precision); itself where the space has no modes."""
        return (architecture,)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a different member that differs in one gene and what depends on it.

        Raises:
            UsageError: The space has one member only.
        """
        free = [i for i, choice in enumerate(self.choices) if len(choice.values) > 1]
        if not free:
            raise UsageError(f"space {self.name}: has a single member, nothing to mutate.")
        while True:
            i = free[rng.integers(len(free))]
            others = [value for value in self.choices[i].values if value != architecture.genes[i]]
            genes = list(architecture.genes)
            genes[i] = others[rng.integers(len(others))]
            child = self.canonical(tuple(genes))
            if child != architecture.genes and self.admits(child):
                return Architecture(self.name, self.version, child)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a member that takes each gene from one of two parents with equal chance (uniform crossover)."""
        for _ in range(100):
            parents = rng.integers(2, size=len(self.choices))
            child = self.canonical(tuple(pair[t] for pair, t in zip(zip(a.genes, b.genes, strict=True), parents, strict=True)))
            if self.admits(child):
                return Architecture(self.name, self.version, child)
        return a

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every member once, in the order of the encoding. Only for spaces that can be walked."""
        seen: set[tuple[Gene, ...]] = set()
        for genes in product(*(choice.values for choice in self.choices)):
            spelling = self.canonical(genes)
            if spelling not in seen and self.admits(spelling):
                seen.add(spelling)
                yield Architecture(self.name, self.version, spelling)

    def size(self) -> int:
        """Return the number of encodings, an upper bound on the number of networks; exact spaces override this."""
        return prod(len(choice.values) for choice in self.choices)

    def describe(self, architecture: Architecture) -> Mapping[str, Gene]:
        """Return gene values by name."""
        return {choice.name: gene for choice, gene in zip(self.choices, architecture.genes, strict=True)}


spaces: Registry[type[SearchSpace]] = Registry("spaces", "search_spaces")
"""Search spaces by family name."""
