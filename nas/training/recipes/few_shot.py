"""``few-shot``: several supernets in place of one, each for the members that have some of the settings of one gene."""

from __future__ import annotations

from typing import ClassVar

from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.operator_family import Source
from nas.training.recipe import Sharing, recipes

MOST = 5
"""Copies of the weights; the paper has five on NAS-Bench-201, one for each operator of an edge."""


@recipes.register("few-shot")
class FewShot(Sharing):
    """The first gene without an order (otherwise the first with a choice) is split; neighbouring settings share a copy where there are more than five.

    All members train one set of weights for the first half of the steps, from which each copy begins.
    """

    together: ClassVar[float] = 0.5
    source = Source(
        "Few-shot Neural Architecture Search",
        "arXiv 2006.06863",
        "one gene is split, the first; all copies are trained in one run, each as often as its members are drawn",
    )

    def copies(self, space: ElasticSpace) -> int:
        """See `Sharing.copies`."""
        gene = split_gene(space)
        return 1 if gene is None else min(MOST, len(space.choices[gene].values))

    def copy_of(self, space: ElasticSpace, member: Architecture) -> int:
        """See `Sharing.copy_of`."""
        gene = split_gene(space)
        if gene is None:
            return 0
        values = space.choices[gene].values
        return values.index(member.genes[gene]) * self.copies(space) // len(values)


def split_gene(space: ElasticSpace) -> int | None:
    """Return the number of the gene that is split; None where no gene has a choice."""
    able = [i for i, choice in enumerate(space.choices) if len(choice.values) > 1 and choice.name != "resolution"]
    return next((i for i in able if not space.choices[i].ordered), able[0] if able else None)
