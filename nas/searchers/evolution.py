"""Regularised (ageing) evolution."""

from nas.arch import Architecture
from nas.searcher import searchers
from nas.searchers._memory import RememberingSearcher

POPULATION = 30
TOURNAMENT = 10


@searchers.register("evolution")
class AgeingEvolution(RememberingSearcher):
    """Mutates the best of a tournament among the youngest `POPULATION` evaluated trials.

    With several objectives a tournament is decided by a weighted Chebyshev distance to the best losses so far, with
    weights drawn anew each time, so that the whole front is sought.

    Source:
        Real et al., "Regularized evolution for image classifier architecture search", AAAI 2019.
    """

    def ask(self, number: int) -> Architecture | None:
        """Propose a mutation."""
        import numpy as np

        rng = self.rng(number)
        living = [trial for trial in self.evaluated[-POPULATION:] if trial.feasible]
        if len(self.evaluated) < POPULATION // 2 or not living:
            return self.fresh(lambda: self.space.sample(rng), rng)
        losses = np.array([self.goal.losses(trial.values) for trial in living])
        scaled = (losses - losses.min(0)) / np.maximum(np.ptp(losses, axis=0), 1e-12)

        def child() -> Architecture:
            group = rng.choice(len(living), size=min(TOURNAMENT, len(living)), replace=False)
            weights = rng.dirichlet(np.ones(losses.shape[1]))
            best = group[np.argmin((scaled[group] * weights).max(axis=1))]
            return self.space.mutate(living[best].architecture, rng)

        return self.fresh(child, rng)
