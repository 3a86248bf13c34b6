"""Optuna's NSGA-II."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.searching.searcher import searchers
from nas.searching.searchers._optuna import OptunaGenerations

if TYPE_CHECKING:
    import optuna


@searchers.register("optuna-nsga2")
class OptunaNSGA2(OptunaGenerations):
    """Generations of 50, uniform crossover, constrained domination.

    Source:
        Akiba et al., "Optuna", KDD 2019; Deb et al., 2002.
    """

    population = 50

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a fresh sampler."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=self.population)
