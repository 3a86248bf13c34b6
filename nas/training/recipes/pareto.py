"""``pareto``: random members are those of several of one size that have the lowest loss: the Pareto front is trained most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from nas.spaces.architecture import Architecture
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, recipes

RIVALS = 3
"""Members of about one size of which the best is trained; the paper takes 3 of the losses on a batch, too."""

POOL = 8
"""Members drawn for each rival, among which those of about one size are. Set by hand."""


@recipes.register("pareto")
class Pareto(Members):
    """The sandwich, whose random members win against others with about as many multiply-adds, by their loss on the step's pictures."""

    teaches: ClassVar[bool] = True
    source = Source(
        "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling",
        "arXiv 2011.09011, BestUp with K = 3 and the loss of the mini-batch",
        "rivals are the nearest in multiply-adds of a pool drawn uniformly, around one of the pool, in place of a table of conditional frequencies",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        space = moment.space
        largest, smallest = moment.draw(moment.step, 2)
        rng = np.random.default_rng([moment.seed, 15, moment.step])
        return [space.at_end(largest, -1), space.at_end(smallest, 0), *(self._winner(moment, rng) for _ in range(moment.count))]

    def _winner(self, moment: Moment, rng: np.random.Generator) -> Architecture:
        pool = [moment.space.sample(rng) for _ in range(POOL * RIVALS)]
        macs = np.array([sum(graph.cost.macs for _, graph in moment.space.segments(member)) for member in pool])
        nearest = np.argsort(np.abs(macs - macs[rng.integers(len(pool))]), kind="stable")[:RIVALS]
        return pool[min(nearest.tolist(), key=lambda i: moment.loss_of(pool[i]))]
