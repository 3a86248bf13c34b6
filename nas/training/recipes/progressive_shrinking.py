"""``progressive-shrinking``: large members first, smaller ones join as the training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nas.spaces.architecture import Architecture, Gene
from nas.spaces.operator_family import Source
from nas.spaces.space import Choice
from nas.training.recipe import Members, Moment, recipes

ALONE = 0.2
"""Share of the steps in which ordered genes stay at their upper end. Set by hand."""

OPEN = 0.8
"""Share of the steps after which every setting is drawn. Set by hand."""

LAST = ("depth", "width")
"""Kinds of genes that open after all others, in this order."""


@recipes.register("progressive-shrinking")
class ProgressiveShrinking(Members):
    """The sandwich of what is open: settings of ordered genes open from the upper end down, one kind of gene after the other."""

    teaches: ClassVar[bool] = True
    source = Source(
        "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
        "arXiv 1908.09791, section 3.3",
        "genes without an order are open from the beginning; the smallest member that is open is trained too; no phase has a schedule of its own",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        space = moment.space
        drawn = list(moment.draw(moment.step, 2 + moment.count))
        lowest = [lowest_open(choice, moment.progress, kinds_of(space.choices)) for choice in space.choices]

        def opened(member: Architecture) -> Architecture:
            return space.architecture([_raised(c, gene, low) for c, gene, low in zip(space.choices, member.genes, lowest, strict=True)])

        return [space.at_end(drawn[0], -1), opened(space.at_end(drawn[1], 0)), *map(opened, drawn[2:])]


def kinds_of(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return the kinds of ordered genes (``expansion`` of ``block1.expansion``) in the order in which they open."""
    kinds = dict.fromkeys(_kind(choice) for choice in choices if choice.ordered)
    return (*(kind for kind in kinds if kind not in LAST), *(kind for kind in LAST if kind in kinds))


def lowest_open(choice: Choice, progress: float, kinds: Sequence[str]) -> int:
    """Return the index of the lowest setting of a gene that is open; 0 where all are."""
    if not choice.ordered:
        return 0
    share = (progress - ALONE) / (OPEN - ALONE) * len(kinds) - kinds.index(_kind(choice))
    top = len(choice.values) - 1
    return max(0, top - int(max(0.0, share) * top + 1e-9)) if share < 1 else 0


def _kind(choice: Choice) -> str:
    return choice.name.rpartition(".")[2]


def _raised(choice: Choice, gene: Gene, lowest: int) -> Gene:
    return choice.values[max(choice.values.index(gene), lowest)] if lowest else gene
