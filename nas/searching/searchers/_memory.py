"""What the searchers of this folder share: they remember what was told, and propose only what is new and within budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.searching.objective import Goal
from nas.searching.searcher import Prescreen, Searcher, Trial
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

WALKABLE = 65_536
"""Spaces up to this many encodings are walked whole when draws bring nothing new. Set by hand."""

ONWARDS = 0.3
"""Chance that a rejected child is mutated on instead of replaced by another. Set by hand."""


class Rows:
    """A matrix that grows by rows, without a copy of the whole for each.

    Args:
        columns: Of the matrix.
    """

    def __init__(self, columns: int) -> None:
        self._store = np.empty((16, columns))
        self._count = 0

    @property
    def array(self) -> npt.NDArray[np.float64]:
        """The rows so far, shape (rows, columns); a view."""
        return self._store[: self._count]

    def append(self, rows: npt.ArrayLike) -> None:
        """Add a row, shape (columns,), or several."""
        new = np.atleast_2d(np.asarray(rows, dtype=np.float64))
        count = self._count + len(new)
        if count > len(self._store):
            grown = np.empty((max(count, 2 * len(self._store)), self._store.shape[1]))
            grown[: self._count] = self.array
            self._store = grown
        self._store[self._count : count] = new
        self._count = count


class RememberingSearcher(Searcher):
    """A searcher whose state is the trials that it was told.

    Attributes:
        evaluated: Complete trials in the order told.
        able: Those of them that keep every budget.
        seen: Identities that are not to be proposed again.
    """

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        super().__init__(space, goal, seed, prescreen)
        self.evaluated: list[Trial] = []
        self.able: list[Trial] = []
        self._losses = Rows(len(goal.objectives))
        self.seen: set[str] = set()
        self._failed: set[str] = set()

    def tell(self, trial: Trial) -> None:
        """Take note of a finished trial; a network whose evaluation failed may be proposed once more."""
        identity = self.space.identity(trial.architecture)
        if trial.state == "failed" and identity not in self._failed:
            self._failed.add(identity)
            self.seen.discard(identity)
            return
        self.seen.add(identity)
        if trial.evaluated:
            self.evaluated.append(trial)
            if trial.feasible:
                self.able.append(trial)
                self._losses.append(self.goal.losses(trial.values))
            self.learn(trial)

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Losses of the trials in `able`, shape (trials, objectives)."""
        return self._losses.array

    def learn(self, trial: Trial) -> None:
        """Take note of an evaluated trial; for searchers that keep more than the list."""

    def pend(self, architecture: Architecture) -> None:
        """Take note that another worker is evaluating `architecture`."""
        self.seen.add(self.space.identity(architecture))

    def fresh(self, draw: Callable[[], Architecture], rng: np.random.Generator, *, draws: int = 256) -> Architecture | None:
        """Return the first of up to `draws` candidates that is new and within every budget.

        Where there is none, the new one that breaks the budgets least; where none is new, an unseen member of a space
        that can be walked; None where that has been seen whole, and a seen one where it cannot be walked.
        """
        nearest: tuple[float, Architecture] | None = None
        candidate = None
        tried: set[str] = set()
        for _ in range(draws):
            candidate = draw()
            identity = self.space.identity(candidate)
            if identity in self.seen or identity in tried:
                continue
            tried.add(identity)
            excess = self.excess([candidate])[0]
            if excess <= 0:
                return candidate
            if nearest is None or excess < nearest[0]:
                nearest = excess, candidate
        if nearest is not None:
            return nearest[1]
        if self.space.size() > WALKABLE:
            return candidate
        unseen = [member for member in self.members if self.space.identity(member) not in self.seen]
        return unseen[rng.integers(len(unseen))] if unseen else None

    def excess(self, architectures: list[Architecture]) -> list[float]:
        """Return by how much each breaks the budgets in all, 0 where it keeps them or where nothing can be asked."""
        if self.prescreen is None or not self.goal.budgets:
            return [0.0] * len(architectures)
        return [sum(max(v, 0.0) for v in violations.values()) for _, violations in self.prescreen.judge(architectures)]

    @cached_property
    def members(self) -> Sequence[Architecture]:
        """Every member of a space that can be walked."""
        return tuple(self.space.enumerate())


def onwards(child: Callable[[], Architecture], space: SearchSpace, rng: np.random.Generator) -> Callable[[], Architecture]:
    """Return draws for `RememberingSearcher.fresh` that leave a neighbourhood once it is used up.

    Each draw is a new child, or, with chance `ONWARDS`, a mutation of the draw before, which was known already or broke a
    budget: so another spelling of a known network is a step, too.
    """
    made: Architecture | None = None

    def draw() -> Architecture:
        nonlocal made
        made = child() if made is None or rng.random() >= ONWARDS else space.mutate(made, rng)
        return made

    return draw
