"""Optuna's samplers as searchers: told trials stand in a study in memory, and each proposal comes from a fresh sampler.

A fresh sampler seeded by (run seed, trial number) makes a proposal depend on nothing but what was told, and its fixed search
space spares it the intersection over all trials that it would build at each proposal.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.searching.objective import Goal
from nas.searching.searcher import Prescreen, Trial
from nas.searching.searchers._memory import RememberingSearcher
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import optuna

DRAWS = 4
"""Proposals that one sampler makes until one is new and within the budgets; then a mutation of the last. Set by hand."""


class OptunaSearcher(RememberingSearcher):
    """A sampler of Optuna on the flat encoding: an ordered choice is an integer, any other a category.

    What breaks a budget is told as such with the worst values seen, so that the sampler learns from the violation alone.
    """

    constrained = True
    """Whether the sampler is told what breaks a budget even where a prescreen keeps such candidates out."""

    draws = DRAWS

    most: int | None = None
    """Trials that the sampler is shown: of more, the best fifth by the first objective and the youngest."""

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        import optuna
        from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

        super().__init__(space, goal, seed, prescreen)
        self._distributions: dict[str, BaseDistribution] = {
            c.name: IntDistribution(0, len(c.values) - 1) if c.ordered else CategoricalDistribution(c.values) for c in space.choices
        }
        self._free = {name: d for name, d in self._distributions.items() if not d.single()}
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(storage=_told(self.most), directions=[o.direction for o in goal.objectives])
        optuna.logging.set_verbosity(before)
        self._worst: list[float] | None = None

    @abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a fresh sampler."""

    def attributes(self, trial: Trial) -> dict[str, int]:  # noqa: ARG002
        """Return what the sampler itself would have written on a trial when it proposed it."""
        return {}

    def tell(self, trial: Trial) -> None:
        """Add a trial to the study; a duplicate counts again, as it does where a sampler runs by itself."""
        from optuna.trial import TrialState, create_trial

        super().tell(trial)
        names = [objective.name for objective in self.goal.objectives]
        if trial.state in ("complete", "duplicate") and all(name in trial.values for name in names):
            values = [trial.values[name] for name in names]
            worst = values if self._worst is None else [self._poorer(i, value) for i, value in enumerate(values)]
            self._worst = worst
        elif trial.state == "infeasible" and self._learns_violations:
            values = list(self._worst) if self._worst else [0.0] * len(names)
        else:
            return
        params = {
            c.name: c.values.index(gene) if c.ordered else gene
            for c, gene in zip(self.space.choices, trial.architecture.genes, strict=True)
        }
        attributes: dict[str, float] = {**self.attributes(trial)}
        if self._learns_violations:
            attributes |= {f"constraints:{key}": float(v) for key, v in trial.violations.items()}
        stored = create_trial(
            state=TrialState.COMPLETE, values=values, params=params, distributions=self._distributions, system_attrs=attributes
        )
        self._study._storage.create_new_trial(self._study._study_id, stored)  # add_trial would copy and check it once more

    @property
    def _learns_violations(self) -> bool:
        return self.constrained or self.prescreen is None

    def _poorer(self, index: int, value: float) -> float:
        assert self._worst is not None
        pick = min if self.goal.objectives[index].direction == "maximize" else max
        return pick(self._worst[index], value)

    def ask(self, number: int) -> Architecture | None:
        """Propose what a fresh sampler does, repeated until it is new and within the budgets."""
        rng = self.rng(number)
        sampler = self.sampler(int(rng.integers(2**31)))
        sampler.infer_relative_search_space = lambda *_: self._free  # type: ignore[method-assign]
        self._study._thread_local.cached_all_trials = None  # what `Study.ask` does first
        self.prepare()
        made: list[Architecture] = []

        def draw() -> Architecture:
            if len(made) < self.draws:
                made.append(self._draw(sampler))
            else:
                made.append(self.space.mutate(made[-1], rng))
            return made[-1]

        return self.fresh(draw, rng)

    def _draw(self, sampler: optuna.samplers.BaseSampler) -> Architecture:
        from optuna.trial import FrozenTrial, TrialState

        stub = FrozenTrial(
            number=len(self.seen),
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=None,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs=self.stub_attributes(),
            intermediate_values={},
        )
        chosen = sampler.sample_relative(self._study, stub, self._free)
        genes = []
        for choice in self.space.choices:
            if choice.name in chosen:
                value = chosen[choice.name]
            elif choice.name in self._free:
                value = sampler.sample_independent(self._study, stub, choice.name, self._distributions[choice.name])
            else:
                value = 0 if choice.ordered else choice.values[0]
            genes.append(choice.values[value] if choice.ordered else value)
        canonical = self.space.canonical(tuple(genes))
        if not self.space.admits(canonical):
            canonical = self.space.sample(self.rng(len(self.seen))).genes
        return Architecture(self.space.name, self.space.version, canonical)

    def stub_attributes(self) -> dict[str, int]:
        """Return what the sampler would find on the trial that it is asked about."""
        return {}

    def prepare(self) -> None:
        """Do what must be done once before the proposals that follow."""


def _told(most: int | None) -> optuna.storages.BaseStorage:
    """Return a storage in memory that shows its samplers at most `most` trials, and lets them write nothing on a proposal."""
    from optuna.storages import InMemoryStorage

    class Told(InMemoryStorage):
        def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[optuna.trial.FrozenTrial]:
            trials = super().get_all_trials(study_id, deepcopy, states)
            if most is None or len(trials) <= most:
                return trials
            sign = -1 if self.get_study_directions(study_id)[0].name == "MAXIMIZE" else 1
            order = sorted(trials, key=lambda t: (any(v > 0 for v in t.constraints.values()), sign * t.values[0], t.number))
            best = {trial.number for trial in order[: most // 5]}
            young = [trial.number for trial in reversed(trials) if trial.number not in best][: most - len(best)]
            shown = best.union(young)
            return [trial for trial in trials if trial.number in shown]

        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            if trial_id >= 0:
                super().set_trial_system_attr(trial_id, key, value)

    return Told()


class OptunaGenerations(OptunaSearcher):
    """A genetic sampler of Optuna: it writes the generation on each trial, which follows here from those told before."""

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        super().__init__(space, goal, seed, prescreen)
        self._generation, self._members, self._selected = 0, 0, 0

    @property
    @abstractmethod
    def population(self) -> int:
        """Trials in a generation."""

    def stub_attributes(self) -> dict[str, int]:
        """Return the generation to be."""
        grown = self._members >= self.population
        return {self._key: self._generation + grown}

    def attributes(self, trial: Trial) -> dict[str, int]:
        """Return the generation that a trial was proposed in."""
        stored = super().attributes(trial) | self.stub_attributes()
        if stored[self._key] > self._generation:
            self._generation, self._members = stored[self._key], 0
        self._members += 1
        return stored

    def prepare(self) -> None:
        """Select the parents of each generation once, by chance that follows from its number, in the order of theirs."""
        generation = self.stub_attributes()[self._key]
        while self._selected < generation:
            self._selected += 1
            sampler: Any = self.sampler(int(np.random.default_rng([self.seed, self._selected, 1]).integers(2**31)))
            sampler.get_parent_population(self._study, self._selected)

    @property
    def _key(self) -> str:
        return f"{type(self.sampler(0)).__name__}:generation"
