"""Regularised (ageing) evolution."""

import numpy as np

from nas.searching.searcher import searchers
from nas.searching.searchers._memory import RememberingSearcher, onwards
from nas.searching.searchers.nsga2 import ranks_and_crowding
from nas.spaces.architecture import Architecture

POPULATION = 100  # Real et al. (AAAI 2019): 100
TOURNAMENT = 25  # Real et al. (AAAI 2019): 25
FIRST = 30
"""Random members before the first mutation. Set by hand."""


@searchers.register("evolution")
class AgeingEvolution(RememberingSearcher):
    """Mutates the best of a tournament among the youngest `POPULATION` evaluated trials.

    With several objectives a tournament is decided by front, then crowding, as in NSGA-II.

    Source:
        Real et al., "Regularized evolution for image classifier architecture search", AAAI 2019, whose population and
        tournament these are. Differs: nothing is evaluated that breaks a budget or was evaluated before.
    """

    def ask(self, number: int) -> Architecture | None:
        """Propose a mutation."""
        rng = self.rng(number)
        living = [trial for trial in self.evaluated[-POPULATION:] if trial.feasible]
        if len(self.evaluated) < FIRST or not living:
            return self.fresh(lambda: self.space.sample(rng), rng)
        fitness = ranks_and_crowding(np.array([self.goal.losses(trial.values) for trial in living]))

        def child() -> Architecture:
            group = rng.choice(len(living), size=min(TOURNAMENT, len(living)), replace=False)
            return self.space.mutate(living[min(map(int, group), key=fitness.__getitem__)].architecture, rng)

        return self.fresh(onwards(child, self.space, rng), rng)
