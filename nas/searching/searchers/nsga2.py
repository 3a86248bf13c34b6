"""NSGA-II, steady-state, on the space's own operators, with budgets kept before any evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.searching.searcher import Trial, searchers
from nas.searching.searchers._memory import RememberingSearcher, onwards
from nas.spaces.architecture import Architecture

POPULATION = 50  # Optuna's NSGA-II has 50, too
TOURNAMENT = 12  # a quarter of the population, as in regularised evolution; Deb et al. (2002) take 2
FIRST = 30
"""Random members before the first child. Set by hand."""

MUTATION_ONLY = 0.3
"""Share of children that have one parent; all others are crossed first. Set by hand."""


@searchers.register("nsga2")
class NSGA2(RememberingSearcher):
    """Keeps the best `POPULATION` evaluated trials by (front, crowding); a child replaces the worst.

    Source:
        Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002; steady-state as in Durillo
        et al., "On the effect of the steady-state selection scheme in multi-objective genetic algorithms", 2009. Differs:
        nothing is evaluated that breaks a budget or was evaluated before, so survivors are feasible and distinct.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._population: list[Trial] = []
        self._fitness: list[tuple[int, float]] = []

    def learn(self, trial: Trial) -> None:
        """Admit a trial to the population."""
        if not trial.feasible:
            return
        pool = [*self._population, trial]
        fitness = ranks_and_crowding(np.array([self.goal.losses(member.values) for member in pool]))
        if len(pool) > POPULATION:
            worst = max(range(len(pool)), key=lambda i: (fitness[i], pool[i].number))
            del pool[worst], fitness[worst]
        self._population, self._fitness = pool, fitness

    def ask(self, number: int) -> Architecture | None:
        """Propose a child of two tournament winners, or a draw while the population is young."""
        rng = self.rng(number)
        if len(self._population) < FIRST:
            return self.fresh(lambda: self.space.sample(rng), rng)
        return self.fresh(onwards(lambda: self._child(rng), self.space, rng), rng)

    def _child(self, rng: np.random.Generator) -> Architecture:
        child = self._winner(rng)
        if rng.random() < MUTATION_ONLY:
            return self.space.mutate(child, rng)
        child = self.space.crossover(child, self._winner(rng), rng)
        return self.space.mutate(child, rng) if rng.random() < 0.8 else child

    def _winner(self, rng: np.random.Generator) -> Architecture:
        group = rng.integers(len(self._population), size=TOURNAMENT)
        return self._population[min(map(int, group), key=self._fitness.__getitem__)].architecture


def ranks_and_crowding(losses: npt.NDArray[np.float64]) -> list[tuple[int, float]]:
    """Return (front number, minus crowding distance) of each point: smaller is fitter.

    Args:
        losses: Shape (points, objectives).
    """
    dominates = np.all(losses[:, None] <= losses[None], axis=2) & np.any(losses[:, None] < losses[None], axis=2)
    rank, distance = np.zeros(len(losses), dtype=int), np.zeros(len(losses))
    dominators = dominates.sum(axis=0)
    level = 0
    while (members := np.flatnonzero(dominators == 0)).size:
        rank[members] = level
        level += 1
        dominators[members] = -1
        dominators -= dominates[members].sum(axis=0)
        if len(members) <= 2:
            distance[members] = np.inf
            continue
        for column in losses[members].T:
            order = np.argsort(column, kind="stable")
            span = column[order[-1]] - column[order[0]]
            distance[members[order[[0, -1]]]] = np.inf
            if span > 0:
                distance[members[order[1:-1]]] += (column[order[2:]] - column[order[:-2]]) / span
    return [(int(r), -float(d)) for r, d in zip(rank, distance, strict=True)]
