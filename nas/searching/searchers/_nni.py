"""NNI's tuners as searchers, for those who come from there: the one file that knows NNI.

NNI 3 is archived. What is set right here: its evolution draws from the global generator and takes no seed; it and TPE keep the
random state of the whole process, so that a resumed search is another one; and both raise ``KeyError`` at a result that
they did not propose themselves, or propose nothing more once a grid says so.
"""

from __future__ import annotations

import copy
import random
from abc import abstractmethod
from typing import Any

import numpy as np

from nas.errors import UsageError
from nas.searching.objective import Goal
from nas.searching.searcher import Prescreen, Trial
from nas.searching.searchers._memory import RememberingSearcher
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.space import SearchSpace

DRAWS = 8
"""Proposals of the tuner until one is new and within the budgets; then a mutation of the last. Set by hand."""

_LOST = -1e9  # worse than any reward of a feasible candidate


class NNISearcher(RememberingSearcher):
    """A tuner of NNI on the flat encoding; it sees the first objective only, and what breaks a budget as worse than anything.

    The tuner's state is that after the trials told; each proposal comes from a copy with the generator of its trial.
    """

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        super().__init__(space, goal, seed, prescreen)
        try:
            self._tuner = self.tuner()
        except ImportError as error:
            raise UsageError(f"searcher: NNI is missing ({error}). Do this: pip install 'hardware-aware-nas[nni]'.") from None
        with _quiet():
            self._reseed(self._tuner, np.random.default_rng([seed, 2**31]), first=True)

    @abstractmethod
    def tuner(self) -> Any:
        """Return a new tuner."""

    def _reseed(self, tuner: Any, rng: np.random.Generator, *, first: bool = False) -> None:
        """Give a tuner the generator of one trial; at first also the search space."""
        if first:
            tuner.update_search_space({c.name: {"_type": "choice", "_value": list(c.values)} for c in self.space.choices})
        if hasattr(tuner, "rng"):
            tuner.rng = rng
        if hasattr(tuner, "dedup"):
            tuner.dedup = _as_it_is  # what is new is decided by `fresh`, with duplicates of other spellings too

    def tell(self, trial: Trial) -> None:
        """Hand a result to the tuner as if it had proposed the architecture."""
        super().tell(trial)
        if trial.state == "failed" or (trial.state == "duplicate" and self.goal.objectives[0].name not in trial.values):
            return
        reward = _LOST * (1 + sum(max(v, 0.0) for v in trial.violations.values()))
        if trial.state != "infeasible":
            reward = -self.goal.losses(trial.values)[0]
        params = dict(zip((c.name for c in self.space.choices), trial.architecture.genes, strict=True))
        with _quiet():
            self._reseed(self._tuner, self.rng(trial.number))
            self.receive(trial.number, params, reward)

    @abstractmethod
    def receive(self, number: int, params: dict[str, Gene], reward: float) -> None:
        """Let the tuner learn a result."""

    def propose(self, tuner: Any, number: int) -> dict[str, Gene]:
        """Return what a tuner proposes."""
        return dict(tuner.generate_parameters(number))

    def ask(self, number: int) -> Architecture | None:
        """Propose what a copy of the tuner does, repeated until it is new and within the budgets."""
        rng = self.rng(number)
        made: list[Architecture] = []

        def draw() -> Architecture:
            if len(made) < DRAWS:
                tuner = copy.deepcopy(self._tuner)
                self._reseed(tuner, np.random.default_rng(rng.integers(2**63)))
                params = self.propose(tuner, number)
                genes = self.space.canonical(tuple(params[c.name] for c in self.space.choices))
                made.append(
                    Architecture(self.space.name, self.space.version, genes) if self.space.admits(genes) else self.space.sample(rng)
                )
            else:
                made.append(self.space.mutate(made[-1], rng))
            return made[-1]

        with _quiet():
            return self.fresh(draw, rng)


def _as_it_is(params: dict[Any, Any]) -> dict[Any, Any]:
    return params


def chance(rng: np.random.Generator) -> tuple[random.Random, np.random.RandomState]:
    """Return generators of the kinds that NNI's evolution draws from, made from one of ours."""
    seed = int(rng.integers(2**32 - 1))
    return random.Random(seed), np.random.RandomState(seed)


class _quiet:  # noqa: N801 - reads as a statement
    """NNI logs every proposal at the level of information."""

    def __enter__(self) -> None:
        import logging

        self._logger = logging.getLogger("nni")
        self._level = self._logger.level
        self._logger.setLevel(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
