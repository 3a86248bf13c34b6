"""Local search: mutate the best, restart where every neighbour is known."""

from __future__ import annotations

import numpy as np

from nas.searching.searcher import searchers
from nas.searching.searchers._memory import RememberingSearcher
from nas.spaces.architecture import Architecture

FIRST = 10
"""Random members before the first descent. Set by hand."""

TRIES = 64  # by hand: neighbours drawn before the search starts elsewhere


@searchers.register("local")
class LocalSearch(RememberingSearcher):
    """Hill climbing from the best point; with several objectives from the best of a weighting drawn anew each time.

    A point whose neighbours are all known gives way to the next best, which is how the climb restarts.

    Source:
        White et al., "Exploring the loss landscape in neural architecture search", UAI 2021. Differs: a step is taken to the
        first better neighbour, not to the best of all.
    """

    def ask(self, number: int) -> Architecture | None:
        """Propose an unseen neighbour of the best point that has one within the budgets."""
        rng = self.rng(number)
        if len(self.able) < FIRST:
            return self.fresh(lambda: self.space.sample(rng), rng)
        losses = self.losses
        scaled = (losses - losses.min(axis=0)) / np.maximum(np.ptp(losses, axis=0), 1e-12)
        order = np.argsort((scaled * rng.dirichlet(np.ones(losses.shape[1]))).max(axis=1), kind="stable")
        for rank in order[:20]:
            centre = self.able[int(rank)].architecture
            tried: set[Architecture] = set()
            for _ in range(TRIES):
                neighbour = self.space.mutate(centre, rng)
                if neighbour in tried:
                    continue
                tried.add(neighbour)
                if self.space.identity(neighbour) not in self.seen and self.excess([neighbour])[0] <= 0:
                    return neighbour
        return self.fresh(lambda: self.space.sample(rng), rng)
