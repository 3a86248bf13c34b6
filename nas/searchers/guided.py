"""Guided search: a Gaussian process on what the networks are made of proposes, the evaluation disposes.

Budgets and every objective that costs nothing to know (latency, size, MACs) are judged before anything is evaluated, so
the model has only the accuracy to guess. A space that can be walked is ranked whole; from a larger one a pool of
candidates is bred towards the acquisition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.arch import Architecture
from nas.objective import Goal
from nas.searcher import Prescreen, Trial, searchers
from nas.searchers._memory import RememberingSearcher
from nas.searchers._surrogate import (
    Features,
    Floats,
    GaussianProcess,
    Posterior,
    Vocabulary,
    expected_improvement,
    winsorised,
)
from nas.space import SearchSpace

FIRST = 15
"""Evaluations of random members before the first fit."""

WHOLE = 20_000
"""Spaces up to this many encodings are ranked whole."""

MOST = 1000
"""Trials that the model keeps: of more, the best fifth and the youngest."""

POOL = 192
ROUNDS = 3


@dataclass(frozen=True)
class _Model:
    """The posterior and the trials in it.

    Attributes:
        members: Trials that it has taken in.
        upto: How many evaluated trials have been considered.
        due: At how many it is fitted anew.
    """

    posterior: Posterior
    members: list[Trial]
    upto: int
    due: int


@searchers.register("guided")
class GuidedSearch(RememberingSearcher):
    """Expected improvement under a Gaussian process on operator patterns, genes and costs.

    With several objectives it is the expected gain of hypervolume where one of two is known beforehand, else the
    expected improvement of a Chebyshev scalarisation with weights drawn anew for each proposal.

    Source:
        Jones, Schonlau and Welch, "Efficient global optimization", 1998; White et al., "BANANAS", AAAI 2021 (ranking a
        pool); Ru et al., ICLR 2021 (patterns); Emmerich et al., 2011 (expected hypervolume). Differs: an evaluation
        counts as it is read, its noise included, so the noise stays in the predictive variance.
    """

    def __init__(self, space: SearchSpace, goal: Goal, seed: int, prescreen: Prescreen | None = None) -> None:
        super().__init__(space, goal, seed, prescreen)
        self._vocabulary = Vocabulary()
        self._costs = Vocabulary()
        self._rows: dict[int, Features] = {}
        self._model: _Model | None = None
        self._whole: _Whole | None = None
        self._judged: dict[Architecture, tuple[Mapping[str, float], float]] = {}

    def ask(self, number: int) -> Architecture | None:
        """Propose the candidate of the greatest acquisition, or a draw while little is known."""
        rng = self.rng(number)
        if sum(trial.feasible for trial in self.evaluated) < FIRST:
            return self.fresh(lambda: self.space.sample(rng), rng)
        if self._whole is None and self.space.size() <= WHOLE:
            self._whole = self._walk()
        best = self._best_of_all(rng) if self._whole is not None else self._best_of_pool(rng)
        return best or self.fresh(lambda: self.space.sample(rng), rng)

    # The model ------------------------------------------------------------------------------------------------------

    def _fitted(self) -> _Model:
        """Return the model with every evaluated trial taken in: fitted at certain counts, extended between them."""
        trials = [trial for trial in self.evaluated if trial.feasible]
        model = self._model
        if model is None or len(trials) >= model.due:
            count = FIRST
            while (due := next_fit(count)) <= len(trials):
                count = due
            members = kept(trials[:count], self.goal)
            features = self._features_of(members)
            process = GaussianProcess.fit(features, winsorised(self._scores(members)))
            candidates = self._whole.features if self._whole is not None else None
            model = _Model(Posterior(process, features, candidates), members, count, due)
        members = list(model.members)
        for trial in trials[model.upto :]:
            model.posterior.extend(self._features_of([trial]))
            members.append(trial)
        self._model = _Model(model.posterior, members, len(trials), model.due)
        return self._model

    def _scores(self, trials: Sequence[Trial], index: int | None = None) -> Floats:
        """Return an objective that must be evaluated, as a gain."""
        if index is None:
            index = next(iter(self._unknown()))
        return np.array([-self.goal.losses(trial.values)[index] for trial in trials])

    def _unknown(self) -> list[int]:
        """Indices of the objectives that only an evaluation tells; the first objective if all are known beforehand."""
        cheap = set(self._judge([self.evaluated[0].architecture])[0][0])
        return [i for i, objective in enumerate(self.goal.objectives) if objective.name not in cheap] or [0]

    # Features -------------------------------------------------------------------------------------------------------

    def _features_of(self, trials: Sequence[Trial]) -> Features:
        for trial in trials:
            if trial.number not in self._rows:
                if self._whole is None:
                    self._vocabulary.learn([self.space.features(trial.architecture)])
                    self._costs.learn([self._cost_row(trial.architecture)])
                self._rows[trial.number] = self._features([trial.architecture])
        rows = [self._rows[trial.number] for trial in trials]
        return Features.stack(rows)

    def _features(self, architectures: Sequence[Architecture]) -> Features:
        patterns, outside = self._vocabulary.write([self.space.features(a) for a in architectures])
        costs, _ = self._costs.write([self._cost_row(a) for a in architectures])
        return Features((patterns, self._gene_matrix(architectures), costs), outside)

    def _gene_matrix(self, architectures: Sequence[Architecture]) -> Floats:
        """Return one column a value of each unordered choice, and one a choice in [0, 1] of each ordered one."""
        codes = np.array([self.space.encode(architecture) for architecture in architectures])
        columns = []
        for choice, code in zip(self.space.choices, codes.T, strict=True):
            size = len(choice.values)
            columns.append(code[:, None] / (size - 1) if choice.ordered and size > 1 else np.eye(size)[code] / np.sqrt(2))
        return np.hstack(columns)

    def _cost_row(self, architecture: Architecture) -> dict[str, float]:
        """Return the logarithms of what is known beforehand."""
        return {name: float(np.log(max(value, 1e-9))) for name, value in self._judge([architecture])[0][0].items()}

    def _judge(self, architectures: Sequence[Architecture]) -> list[tuple[Mapping[str, float], float]]:
        """Return (cheap values, excess over the budgets) of each, asking the prescreen once for each network."""
        if self.prescreen is None:
            return [({}, 0.0)] * len(architectures)
        new = [a for a in dict.fromkeys(architectures) if a not in self._judged]
        if new:
            for architecture, (cheap, violations) in zip(new, self.prescreen.judge(new), strict=True):
                self._judged[architecture] = cheap, sum(max(v, 0.0) for v in violations.values())
        return [self._judged[a] for a in architectures]

    # Candidates -----------------------------------------------------------------------------------------------------

    def _walk(self) -> _Whole:
        judged = self._judge(self.members)
        members = [a for a, (_, excess) in zip(self.members, judged, strict=True) if excess <= 0]
        if len(self._unknown()) == len(self.goal.objectives):  # nothing tells members of one identity apart
            members = list({self.space.identity(a): a for a in reversed(members)}.values())
        rows = [self.space.features(a) for a in members]
        self._vocabulary.learn(rows)
        self._costs.learn([self._cost_row(a) for a in members])
        self._rows.clear()
        return _Whole(members, [self.space.identity(a) for a in members], self._features(members), self._known(members))

    def _known(self, architectures: Sequence[Architecture]) -> Floats:
        """Return the losses that are known beforehand, NaN where not, shape (architectures, objectives)."""
        sign = [(objective.name, objective.sign) for objective in self.goal.objectives]
        return np.array([[s * cheap.get(name, np.nan) for name, s in sign] for cheap, _ in self._judge(architectures)])

    def _best_of_all(self, rng: np.random.Generator) -> Architecture | None:
        assert self._whole is not None
        new = self._whole.new(self.seen)
        if not new.any():
            return None
        gain = np.where(new, self._acquisition(None, self._whole.known, rng), -np.inf)
        return self._whole.members[int(np.argmax(rounded(gain)))]

    def _best_of_pool(self, rng: np.random.Generator) -> Architecture | None:
        """Breed candidates from the best trials, then from the best candidates."""
        weights = rng.dirichlet(np.ones(len(self.goal.objectives)))
        able = [trial for trial in self.evaluated if trial.feasible]
        losses = np.array([self.goal.losses(trial.values) for trial in able])
        scaled = (losses - losses.min(axis=0)) / np.maximum(np.ptp(losses, axis=0), 1e-12)
        order = np.lexsort((np.arange(len(able)), (scaled * weights).max(axis=1)))
        parents = [able[i].architecture for i in order[: max(10, len(able) // 10)]]
        pool: dict[str, Architecture] = {}
        ranked: list[Architecture] = []
        seed = int(rng.integers(2**63))
        self._fitted()  # candidates are described in the columns that the evaluated trials define
        for turn in range(ROUNDS):
            children = [self._child(parents, rng, explore=turn == 0) for _ in range(POOL)]
            fresh = {self.space.identity(a): a for a in children}
            names = [name for name in fresh if name not in self.seen and name not in pool]
            excess = [e for _, e in self._judge([fresh[name] for name in names])]
            pool |= {name: fresh[name] for name, e in zip(names, excess, strict=True) if e <= 0}
            if not pool:
                continue
            candidates = list(pool.values())
            gain = self._acquisition(self._features(candidates), self._known(candidates), np.random.default_rng(seed))
            ranked = [candidates[i] for i in np.argsort(-rounded(gain), kind="stable")]
            parents = ranked[:20]
        return ranked[0] if ranked else None

    def _child(self, parents: Sequence[Architecture], rng: np.random.Generator, *, explore: bool) -> Architecture:
        kind = rng.random()
        if explore and kind < 0.2:
            return self.space.sample(rng)
        child = parents[int(rng.integers(len(parents)))]
        if kind < 0.5:
            child = self.space.crossover(child, parents[int(rng.integers(len(parents)))], rng)
        for _ in range(1 + int(rng.integers(2))):
            child = self.space.mutate(child, rng)
        return child

    # Acquisition ----------------------------------------------------------------------------------------------------

    def _acquisition(self, candidates: Features | None, known: Floats, rng: np.random.Generator) -> Floats:
        """Return what evaluating each candidate is expected to gain, shape (candidates,)."""
        model = self._fitted()
        unknown = self._unknown()
        targets = winsorised(self._scores(model.members, unknown[0]))
        mean, deviation = model.posterior.predict(targets, candidates)
        if len(self.goal.objectives) == 1:
            return expected_improvement(mean, deviation, float(targets.max()))
        if len(self.goal.objectives) == 2 and len(unknown) == 1:
            other = 1 - unknown[0]
            costs = np.array([self.goal.losses(trial.values)[other] for trial in model.members])
            return hypervolume_improvement(mean, deviation, known[:, other], targets, costs)
        weights = rng.dirichlet(np.ones(len(self.goal.objectives)))
        past = np.array([self.goal.losses(trial.values) for trial in model.members])
        low, span = past.min(axis=0), np.maximum(np.ptp(past, axis=0), 1e-12)
        bound = np.zeros(len(known))
        for i in range(len(weights)):
            if i == unknown[0]:
                continue
            losses = known[:, i]
            if i in unknown:
                targets_i = self._scores(model.members, i)
                losses = -model.posterior.predict(targets_i, candidates)[0]
            bound = np.maximum(bound, weights[i] * (losses - low[i]) / span[i])
        w = max(float(weights[unknown[0]]), 1e-3)
        top, reach = targets.max(), max(float(np.ptp(targets)), 1e-12)
        scaled = (past - low) / span
        scaled[:, unknown[0]] = (top - targets) / reach
        best = float((scaled * weights).max(axis=1).min())
        # the weighted loss of the guessed objective is W ~ N(w (top - mean) / reach, …): E[max(best - max(bound, W), 0)]
        centre, width = -w * (top - mean) / reach, w * deviation / reach
        gain = expected_improvement(centre, width, -best) - expected_improvement(centre, width, -bound)
        return np.where(bound < best, gain, -bound)


class _Whole:
    """Every member within the budgets.

    Args:
        members: In the order of the encoding.
        identities: Of the members.
        features: Likewise.
        known: Losses known beforehand.
    """

    def __init__(self, members: list[Architecture], identities: list[str], features: Features, known: Floats) -> None:
        self.members, self.features, self.known = members, features, known
        self._rows: dict[str, list[int]] = {}
        for row, identity in enumerate(identities):
            self._rows.setdefault(identity, []).append(row)

    def new(self, seen: set[str]) -> npt.NDArray[np.bool_]:
        """Return which members are not of an identity that was seen, shape (members,)."""
        new = np.ones(len(self.members), dtype=bool)
        new[[row for identity in seen for row in self._rows.get(identity, ())]] = False
        return new


def rounded(gain: Floats) -> Floats:
    """Return gains without the digits that rounding errors decide, so that ties are ties on every machine and after every resume."""
    top = float(np.max(np.abs(gain), where=np.isfinite(gain), initial=1e-300))
    return np.round(gain / top, 9)


def next_fit(count: int) -> int:
    """Return at how many trials the model is fitted after a fit at `count`."""
    return count + max(10, min(count // 3, 100))


def kept(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """Return at most `MOST` trials in their order: the best fifth by the first objective, and the youngest."""
    if len(trials) <= MOST:
        return list(trials)
    order = sorted(range(len(trials)), key=lambda i: (goal.losses(trials[i].values)[0], i))
    best = set(order[: MOST // 5])
    young = [i for i in range(len(trials) - 1, -1, -1) if i not in best][: MOST - len(best)]
    return [trials[i] for i in sorted(best | set(young))]


def hypervolume_improvement(
    mean: Floats, deviation: Floats, cost: Floats, gains: npt.NDArray[np.float64], costs: npt.NDArray[np.float64]
) -> Floats:
    """Return the expected growth of the area that (gain, cost) points dominate, where only the gain is uncertain.

    Above each cost the front has a level; a candidate of gain X raises it by max(X - level, 0) from its own cost on.

    Args:
        mean: Of the candidates' gains, shape (candidates,).
        deviation: Likewise.
        cost: Of the candidates.
        gains: Of what is evaluated, shape (trials,).
        costs: Likewise.
    """
    order = np.lexsort((-gains, costs))
    edges, levels = [], []
    level = -np.inf
    for i in order:
        if gains[i] > level:
            level = gains[i]
            edges.append(costs[i])
            levels.append(level)
    floor = float(gains.min())
    end = max(float(costs.max()), float(cost.max()))
    starts = np.array([-np.inf, *edges])
    ends = np.array([*edges, end])
    total = np.zeros(len(mean))
    for start, stop, height in zip(starts, ends, [floor, *levels], strict=True):
        width = np.clip(stop - np.maximum(start, cost), 0.0, None)
        total += width * expected_improvement(mean, deviation, height)
    return total
