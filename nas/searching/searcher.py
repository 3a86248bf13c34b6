"""The contract of a searcher: ask for an architecture, tell what became of it.

A searcher's only randomness is the generator of (run seed, trial number). It keeps whatever state it likes, as long as
the state follows from the trials told so far in the order of their numbers; resuming is telling them again.

Life of a searcher in a search::

    searchers.get(name)(space, goal, seed, prescreen)     once a process
            │
    tell(trial)             for every trial that the study holds already, in the order of their numbers
            │
        ask(number)  ◀──┐   a proposal; None where the space has been seen whole
            │           │
        tell(trial)     │   what became of it; in a shared study also of others' trials, still in the order of their numbers
            │           │
        pend(…)  ───────┘   once for every trial of a shared study that is still open
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nas.registry import Registry
from nas.searching.objective import Goal
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

TrialState = Literal["complete", "infeasible", "duplicate", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal and its result.

    Attributes:
        number: Number in the study.
        architecture: The proposed architecture.
        state: ``complete`` evaluated; ``infeasible`` ruled out by a count or an estimate before any evaluation;
            ``duplicate`` repeats a network that was evaluated (`values` are that one's) or is under evaluation
            elsewhere (no values); ``failed`` the evaluation raised (see `message`).
        values: Objective values by name; only the cheap ones, such as latency, unless complete or duplicate.
        violations: By how much each budget is exceeded, by its name; ≤ 0 where it is kept.
        message: Reason of a failure.
    """

    number: int
    architecture: Architecture
    state: TrialState
    values: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    message: str = ""

    @property
    def evaluated(self) -> bool:
        """Whether an accuracy was computed; others never enter a front and do not count as evaluations."""
        return self.state == "complete"

    @property
    def feasible(self) -> bool:
        """Whether every budget holds."""
        return all(violation <= 0 for violation in self.violations.values())


class Prescreen(ABC):
    """What a searcher may ask before it proposes: cheap values and violations, without an evaluation."""

    @abstractmethod
    def judge(self, architectures: list[Architecture]) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
        """Return (cheap objective values by name, violations by budget name) of each architecture."""


class Searcher(ABC):
    """A searcher proposes architectures of a space for a goal.

    Args:
        space: Space of the architectures.
        goal: Objectives and budgets.
        seed: Seed of the run.
        prescreen: Function that checks budgets cheaply before a proposal; None where the searcher learns from violations alone.
    """

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        self.space, self.goal, self.seed, self.prescreen = space, goal, seed, prescreen

    def rng(self, number: int) -> np.random.Generator:
        """Return the generator of one trial."""
        return np.random.default_rng([self.seed, number])

    @abstractmethod
    def ask(self, number: int) -> Architecture | None:
        """Propose the architecture of trial `number`; None where every member has been proposed."""

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """Record a finished trial."""

    def pend(self, architecture: Architecture) -> None:  # noqa: B027
        """Record that another worker is evaluating `architecture`, so that it is not proposed too."""


searchers: Registry[type[Searcher]] = Registry("searchers", "nas.searching.searchers")
"""Searchers by name."""
