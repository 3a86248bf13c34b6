"""Optuna's NSGA-III, for three objectives and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.searching.searcher import searchers
from nas.searching.searchers._optuna import OptunaGenerations

if TYPE_CHECKING:
    import optuna


@searchers.register("nsga3")
class NSGA3(OptunaGenerations):
    """Generations of 50, survivors spread over reference directions.

    Source:
        Deb and Jain, "An evolutionary many-objective optimization algorithm using reference-point-based nondominated sorting", 2014.
    """

    population = 50

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a fresh sampler."""
        import warnings

        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIIISampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return NSGAIIISampler(seed=seed, population_size=self.population)
