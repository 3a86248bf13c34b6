"""Precision as genes: any elastic space, with a precision for the whole network, for each stage and for each block.

``hybrid-s@fp16+w8a8`` is the space ``hybrid-s`` whose members also say at which of these precisions each part runs. The encoding stays flat:
the genes of the space, then ``precision``, then one a stage and one a block that say ``inherit`` or a precision of their own. A block inherits
from its stage and a stage from the network, so a change of one gene is a change of one part, and a uniform network is a short way from any other.
A member is priced part by part, from the profile's fit at each part's precision, with every tensor that changes precision; see
`latency_predictors.physical`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import UsageError, did_you_mean
from nas.graphs.graph import Graph
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.space import Choice, Resolution
from nas.units import Precision

if TYPE_CHECKING:
    from torch import nn

INHERIT = "inherit"
SEPARATOR = "@"
_UNIFORM, _BY_STAGE = 0.8, 0.9
"""Shares of samples (cumulated) that are uniform, and that differ by stage at most. Set by hand."""
_NETWORK = 0.8
"""Share of mutations that change what the network is: there are as many genes of precision as parts, and a part's says little.
Set by hand."""


class PrecisionSpace(ElasticSpace):
    """Members of an elastic space at chosen precisions.

    Args:
        plain: Whose members; its weights serve this space too.
        precisions: At least two, of `nas.units.Precision`.

    Raises:
        UsageError: An unknown precision, or fewer than two.
    """

    def __init__(self, plain: ElasticSpace, precisions: Sequence[str]) -> None:
        if unknown := [p for p in precisions if p not in list(Precision)]:
            raise UsageError(f"space {plain.name}: unknown precision, got {unknown[0]!r}.{did_you_mean(unknown[0], Precision)}")
        self._plain, self.precisions = plain, tuple(str(p) for p in Precision if p in precisions)
        if len(self.precisions) < 2:
            raise UsageError(f"space {plain.name}: a choice of precision needs two of them, got {len(self.precisions)}.")
        self.name, self.version = f"{plain.name}{SEPARATOR}{'+'.join(self.precisions)}", plain.version
        self.evaluator, self.num_classes = "quantised", plain.num_classes
        self.calibration_pictures = plain.calibration_pictures
        labels = dict.fromkeys(part.label for parts in plain.slots((224, 224), plain.num_classes).values() for part in parts)
        stages = sorted({prefix for label in labels for prefix in _prefixes(label)})
        self._at = {stage: len(plain.choices) + 1 + i for i, stage in enumerate(stages)}
        own = (INHERIT, *self.precisions)
        self.choices = (
            *plain.choices,
            Choice("precision", self.precisions, mode=True),
            *(Choice(f"{stage}.precision", own, mode=True) for stage in stages),
        )
        self._cut: dict[tuple[int, str], tuple[Graph, Graph]] = {}

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> PrecisionSpace:
        """Return the space of precisions written ``fp16+w8a8`` over the space that is the option `plain`.

        Raises:
            UsageError: The space has no shared weights, or the precisions make no sense.
        """
        plain = options["plain"]
        if not isinstance(plain, ElasticSpace):
            raise UsageError(f"space {plain.name}: has no parts whose precision could be chosen, got {preset!r}.")
        return cls(plain, preset.split("+"))

    @property
    def plain(self) -> ElasticSpace:
        """See `ElasticSpace.plain`."""
        return self._plain

    def without_precisions(self, architecture: Architecture) -> Architecture:
        """Return the architecture without its choices of precision, as a member of `plain`."""
        return Architecture(self.plain.name, self.plain.version, architecture.genes[: len(self.plain.choices)])

    def with_precision(self, architecture: Architecture, precision: str) -> Architecture:
        """Return a member of the plain space with one precision everywhere."""
        return self.architecture((*architecture.genes, precision, *[INHERIT] * len(self._at)))

    def variants(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """See `SearchSpace.variants`: one a precision."""
        return tuple(self.with_precision(self.without_precisions(architecture), precision) for precision in self.precisions)

    def part_precisions(self, architecture: Architecture) -> Mapping[str, str]:
        """Return the precision of each part by its label."""
        return {label: self._resolved(architecture.genes, label) for label, _ in self.plain.segments(self.without_precisions(architecture))}

    def _resolved(self, genes: Sequence[Gene], label: str) -> str:
        for prefix in reversed(_prefixes(label)):
            if (gene := genes[self._at[prefix]]) != INHERIT:
                return str(gene)
        return str(genes[len(self.plain.choices)])

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Return the spelling in which a stage has the precision of its first part, and everything that can inherit does."""
        count = len(self.plain.choices)
        if len(genes) != len(self.choices):
            return genes
        chosen = self.plain.canonical(genes[:count])
        out: list[Gene] = [*chosen, genes[count], *[INHERIT] * len(self._at)]
        try:
            labels = [label for label, _ in self.plain.segments(Architecture(self.plain.name, self.plain.version, chosen))]
        except (UsageError, KeyError, ValueError, TypeError):  # no member: `validate` says what is wrong with it
            return (*chosen, *genes[count:])
        settled: set[str] = set()
        for label in labels:
            wanted = self._resolved(genes, label)
            for prefix in _prefixes(label):
                if prefix not in settled:
                    settled.add(prefix)
                    out[self._at[prefix]] = INHERIT
                    if self._resolved(out, label) != wanted:
                        out[self._at[prefix]] = wanted
        return tuple(out)

    def admits(self, genes: tuple[Gene, ...]) -> bool:
        """See `SearchSpace.admits`: precisions exclude nothing."""
        return self.plain.admits(genes[: len(self.plain.choices)])

    def validate(self, architecture: Architecture) -> None:
        """Check membership: what the plain space says of its genes, then the precisions."""
        count = len(self.plain.choices)
        if (architecture.space, architecture.version, len(architecture.genes)) == (self.name, self.version, len(self.choices)):
            self.plain.validate(self.without_precisions(architecture))
            first = [choice.values[0] for choice in self.choices[:count]]
            bad = [i for i in range(count, len(self.choices)) if architecture.genes[i] not in self.choices[i].values]
            if not bad and architecture.genes == self.canonical(architecture.genes):
                return
            if bad:
                architecture = Architecture(self.name, self.version, (*first, *architecture.genes[count:]))
        super().validate(architecture)

    def size(self) -> int:
        """Return an upper bound on the number of networks."""
        return self.plain.size() * len(self.precisions) * int((1 + len(self.precisions)) ** len(self._at))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a member of the plain space, uniform in its way, at one precision, by stage, or by block."""
        member = self.plain.sample(rng)
        depth = int(np.searchsorted([_UNIFORM, _BY_STAGE], rng.random(), side="right"))
        genes: list[Gene] = [*member.genes, str(rng.choice(self.precisions)), *[INHERIT] * len(self._at)]
        for stage, i in self._at.items():
            if stage.count(".") < depth:
                genes[i] = str(rng.choice((INHERIT, *self.precisions)))
        return self.architecture(genes)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a member that differs in one gene: of the network with a chance of `_NETWORK`, else of its precisions."""
        if rng.random() < _NETWORK:
            changed = self.plain.mutate(self.without_precisions(architecture), rng)
            return self.architecture((*changed.genes, *architecture.genes[len(changed.genes) :]))
        count = len(self.plain.choices)
        while True:
            i = count + int(rng.integers(1 + len(self._at)))
            others = [value for value in self.choices[i].values if value != architecture.genes[i]]
            genes = [*architecture.genes[:i], others[rng.integers(len(others))], *architecture.genes[i + 1 :]]
            if self.canonical(tuple(genes)) != architecture.genes:
                return self.architecture(genes)

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return the plain space's segments whose operators fix their precision; cached objects."""
        parts = self.plain.segments(self.without_precisions(architecture), resolution)
        return tuple((label, self._fixed(graph, self._resolved(architecture.genes, label))) for label, graph in parts)

    def _fixed(self, graph: Graph, precision: str) -> Graph:
        key = (id(graph), precision)
        if key not in self._cut:  # the plain graph is kept beside, so that its id is never used again
            operators = tuple(replace(op, precision=precision) for op in graph.operators)
            self._cut[key] = graph, Graph(graph.inputs, operators, graph.outputs, graph.name, graph.notices)
        return self._cut[key][1]

    def features(self, architecture: Architecture) -> Mapping[str, float]:
        """Return those of the plain space: a network is made of the same at every precision."""
        return self.plain.features(self.without_precisions(architecture))

    def describe(self, architecture: Architecture) -> Mapping[str, Gene]:
        """Return what the plain space returns, and the precisions."""
        modes = [choice.name for choice in self.choices if choice.mode]
        return {
            **self.plain.describe(self.without_precisions(architecture)),
            **dict(zip(modes, architecture.genes[-len(modes) :], strict=True)),
        }

    def facts(self, architecture: Architecture) -> Mapping[str, str]:
        """Return those of the plain space."""
        return self.plain.facts(self.without_precisions(architecture))

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """See `ElasticSpace.parts`; a part is the same at every precision."""
        return self.plain.parts(self.without_precisions(architecture), resolution, num_classes)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """See `ElasticSpace.slots`."""
        return self.plain.slots(resolution, num_classes)

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """See `ElasticSpace.proxy`."""
        return self.plain.proxy(self.without_precisions(architecture), resolution)

    def extreme(self, largest: bool) -> Architecture:
        """Return the plain space's, at the most precise where `largest`, else at the least."""
        return self.with_precision(self.plain.extreme(largest), self.precisions[0 if largest else -1])

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:
        """See `ElasticSpace.build`; a module trains in float."""
        return self.plain.build(self.without_precisions(architecture), num_classes=num_classes, resolution=resolution)


def _prefixes(label: str) -> tuple[str, ...]:
    """Return what a part belongs to, the largest first: ``stage2.block1.mixer`` -> ``stage2``, ``stage2.block1``."""
    names = label.split(".")[:-1]
    return tuple(".".join(names[: i + 1]) for i in range(len(names)))
