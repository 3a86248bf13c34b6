"""The contract of a peer: a package that people search with, in the same run as our searchers.

Life of a peer::

    peers.get("optuna")()     one object for a run
            │
    run("tpe", …)             proposes as the package comes, until `measure` raises or nothing is left

A peer is one file in ``nas/bench/peers/``. ``nas bench search --searcher optuna:tpe`` names the peer and one of its algorithms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from nas.registry import Registry
from nas.searching.objective import Goal
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace


@dataclass(frozen=True)
class Run:
    """What a peer searches.

    Attributes:
        space: Of the candidates.
        goal: Objectives and budgets.
        seed: Of everything random.
        evals: Evaluations after which `measure` ends the run.
        measure: Returns what became of a proposal.
    """

    space: SearchSpace
    goal: Goal
    seed: int
    evals: int
    measure: Callable[[Architecture], Trial]

    def losses(self, trial: Trial) -> list[float]:
        """Return what is minimised: accuracy as what is lacking to 100 %; of what breaks a budget, 100 % is lacking."""
        return [(0.0 if o.sign > 0 else 100.0) + o.sign * trial.values.get(o.name, 0.0) for o in self.goal.objectives]


class Peer(ABC):
    """A package with algorithms that search.

    Attributes:
        package: What is imported.
        algorithms: Their names.
        left_out: Those that `all` does not mean: they take tenths of a second a proposal, or differ little from another.
    """

    package: ClassVar[str]
    algorithms: ClassVar[tuple[str, ...]]
    left_out: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def installed(cls) -> bool:
        """Return whether the package is there."""
        return find_spec(cls.package) is not None

    @abstractmethod
    def run(self, algorithm: str, search: Run) -> None:
        """Let an algorithm propose until `search.measure` raises, or it has nothing left."""


peers: Registry[type[Peer]] = Registry("peers", "nas.bench.peers")
"""Peers by name."""
