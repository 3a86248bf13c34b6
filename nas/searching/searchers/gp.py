"""Optuna's Gaussian process on the genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.searching.searcher import searchers
from nas.searching.searchers._optuna import OptunaSearcher

if TYPE_CHECKING:
    import optuna


@searchers.register("gp")
class GP(OptunaSearcher):
    """Expected improvement under a Matérn kernel on the Hamming distance of genes; `guided` knows what the genes mean.

    Source:
        Optuna's ``GPSampler``.
    """

    constrained = False
    most = 300
    draws = 1

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a fresh sampler."""
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed, deterministic_objective=False)
