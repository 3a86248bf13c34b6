"""``path-importance``: one member a step, from settings drawn the more often, the steeper the loss of members that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, Seen, recipes

MOST = 0.5
"""Share of the draws that follow the gradients at the end of a training; it grows linearly from none. Set by hand."""

MEMORY = 50
"""Trainings of a setting over which the norms of its members' gradients are averaged. Set by hand."""


@recipes.register("path-importance")
class PathImportance(Members):
    """A random member whose settings are drawn with probabilities that grow with the mean norm of the gradients of members that have them."""

    watches: ClassVar[bool] = True
    source = Source(
        "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS",
        "arXiv 2302.14772, path importance sampling",
        "a setting has the norm of its members' whole gradients, so that those without weights have one, too; probabilities follow a moving mean, not the last "
        "epoch; the loss is not divided by them, since Adam's steps do not know its scale",
    )

    def begin(self, space: ElasticSpace, pictures: int) -> None:  # noqa: ARG002
        """See `SupernetRecipe.begin`."""
        shape = len(space.choices), max(len(choice.values) for choice in space.choices)
        self.kept = {"norms": torch.zeros(shape, dtype=torch.float64), "counts": torch.zeros(shape, dtype=torch.float64)}
        self._places = [{value: i for i, value in enumerate(choice.values)} for choice in space.choices]

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        rng = np.random.default_rng([moment.seed, 16, moment.step])
        choices = moment.space.choices
        odds = (self.probabilities(gene, len(choice.values), moment.progress) for gene, choice in enumerate(choices))
        return [moment.space.architecture([c.values[rng.choice(len(p), p=p)] for c, p in zip(choices, odds, strict=True)])]

    def probabilities(self, gene: int, settings: int, progress: float) -> npt.NDArray[np.float64]:
        """Return how likely each setting of a gene is drawn when the share `progress` of the steps is done; settings not seen yet count as the mean."""
        norms, seen = self.kept["norms"][gene, :settings].numpy(), self.kept["counts"][gene, :settings].numpy() > 0
        even = np.full(settings, 1 / settings)
        if not norms[seen].sum() > 0:
            return even
        norms = np.where(seen, norms, norms[seen].mean())
        odds: npt.NDArray[np.float64] = (1 - MOST * progress) * even + MOST * progress * norms / norms.sum()
        return odds

    def watch(self, seen: Seen) -> None:
        """See `SupernetRecipe.watch`."""
        norms, counts = self.kept["norms"], self.kept["counts"]
        for member, slope in zip(seen.members, seen.slopes.tolist(), strict=True):
            for gene, value in enumerate(member.genes):
                place = gene, self._places[gene][value]
                counts[place] += 1
                norms[place] += (slope - norms[place]) / min(float(counts[place]), MEMORY)
