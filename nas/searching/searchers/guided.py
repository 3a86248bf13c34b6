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

from nas.searching.objective import Goal
from nas.searching.searcher import Prescreen, Trial, searchers
from nas.searching.searchers._memory import RememberingSearcher
from nas.searching.searchers._surrogate import (
    Features,
    Floats,
    GaussianProcess,
    Posterior,
    Vocabulary,
    expected_improvement,
    winsorised,
)
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

FIRST = 15
"""Evaluations of random members before the first fit. Set by hand."""

WHOLE = 20_000
"""Spaces up to this many encodings are ranked whole. Set by hand."""

MOST = 1000
"""Trials that the model keeps: of more, the best fifth and the youngest. Set by hand."""

GREEDY = 2
"""Of so many proposals one seeks the best accuracy alone, where other objectives are known beforehand: that is the network that a run chooses.
Set by hand."""

# Source of these two: set by hand; experiments/008_search has the regrets that they lead to.
POOL = 192  # children that are drawn in each round, in spaces larger than `WHOLE`
ROUNDS = 3  # rounds before one is proposed; the best children of one are the parents of the next


@dataclass(frozen=True)
class _Model:
    """The posterior and the trials in it.

    Attributes:
        losses: Of the trials that it has taken in, shape (trials, objectives).
        upto: How many evaluated trials have been considered.
        due: At how many it is fitted anew.
    """

    posterior: Posterior
    losses: Floats
    upto: int
    due: int


@searchers.register("guided")
class GuidedSearch(RememberingSearcher):
    """Expected improvement under a Gaussian process on operator patterns, genes and costs.

    With several objectives it is the expected gain of hypervolume where one of two is known beforehand, else the
    expected improvement of a Chebyshev scalarisation with weights drawn anew for each proposal. Where one objective alone
    has to be evaluated, every second proposal is that of the greatest expected improvement in it.

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
        if len(self.able) < FIRST:
            return self.fresh(lambda: self._draw(rng), rng)
        if self._whole is None and self.space.size() <= WHOLE:
            self._whole = self._walk()
        alone = number % GREEDY == 0 and len(self.goal.objectives) > 1 and len(self._unknown()) == 1
        best = self._best_of_all(rng, alone) if self._whole is not None else self._best_of_pool(rng, alone)
        return best or self.fresh(lambda: self.space.sample(rng), rng)

    def _draw(self, rng: np.random.Generator) -> Architecture:
        """Return a random member; of its modes, one that costs no more than another in all that is known beforehand."""
        member = self.space.sample(rng)
        variants = self.space.variants(member)
        if len(variants) == 1:
            return member
        known = np.nan_to_num(self._known([cheap for cheap, _ in self._judge(variants)]))
        best = [i for i, losses in enumerate(known) if not (np.all(known <= losses, axis=1) & np.any(known < losses, axis=1)).any()]
        return variants[best[int(rng.integers(len(best)))]]

    # The model ------------------------------------------------------------------------------------------------------

    def _fitted(self) -> _Model:
        """Return the model with every evaluated trial taken in: fitted at certain counts, extended between them."""
        trials, model = self.able, self._model
        if model is None or len(trials) >= model.due:
            count = FIRST
            while (due := next_fit(count)) <= len(trials):
                count = due
            rows = trials_to_fit(self.losses[:count, 0])
            features = self._features_of([trials[i] for i in rows])
            process = GaussianProcess.fit(features, winsorised(-self.losses[rows, self._unknown()[0]]))
            candidates = self._whole.features if self._whole is not None else None
            model = _Model(Posterior(process, features, candidates), self.losses[rows], count, due)
        for trial in trials[model.upto :]:
            model.posterior.extend(self._features_of([trial]))
        losses = np.concatenate([model.losses, self.losses[model.upto :]])
        self._model = _Model(model.posterior, losses, len(trials), model.due)
        return self._model

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
                    self._costs.learn([cost_row(self._judge([trial.architecture])[0][0])])
                self._rows[trial.number] = self._features([trial.architecture])
        rows = [self._rows[trial.number] for trial in trials]
        return Features.stack(rows)

    def _features(self, architectures: Sequence[Architecture], cheap: Sequence[Mapping[str, float]] | None = None) -> Features:
        patterns, outside = self._vocabulary.write([self.space.features(a) for a in architectures])
        costs, _ = self._costs.write([cost_row(row) for row in cheap or [c for c, _ in self._judge(architectures)]])
        genes, modes = (self._gene_matrix(architectures, mode) for mode in (False, True))
        return Features((patterns, genes, costs, modes), outside)

    def _gene_matrix(self, architectures: Sequence[Architecture], mode: bool) -> Floats:
        """Return one column a value of each unordered choice, and one a choice in [0, 1] of each ordered one; of modes, or of all else."""
        codes = np.array([self.space.encode(architecture) for architecture in architectures])
        columns = [np.zeros((len(architectures), 0))]
        for choice, code in zip(self.space.choices, codes.T, strict=True):
            if choice.mode is not mode:
                continue
            size = len(choice.values)
            columns.append(code[:, None] / (size - 1) if choice.ordered and size > 1 else np.eye(size)[code] / np.sqrt(2))
        return np.hstack(columns)

    def _judge(self, architectures: Sequence[Architecture]) -> list[tuple[Mapping[str, float], float]]:
        """Return (cheap values, excess over the budgets) of each, asking the prescreen once for each network."""
        if new := [a for a in dict.fromkeys(architectures) if a not in self._judged]:
            self._judged |= dict(zip(new, self._ask(new), strict=True))
        return [self._judged[a] for a in architectures]

    def _ask(self, architectures: Sequence[Architecture]) -> list[tuple[Mapping[str, float], float]]:
        if self.prescreen is None:
            return [({}, 0.0)] * len(architectures)
        judged = self.prescreen.judge(list(architectures))
        return [(cheap, sum(max(v, 0.0) for v in violations.values())) for cheap, violations in judged]

    # Candidates -----------------------------------------------------------------------------------------------------

    def _walk(self) -> _Whole:
        judged = [(a, cheap) for a, (cheap, excess) in zip(self.members, self._ask(self.members), strict=True) if excess <= 0]
        identities = [self.space.identity(a) for a, _ in judged]
        if len(self._unknown()) == len(self.goal.objectives):  # nothing tells members of one identity apart
            first = {identity: i for i, identity in reversed(list(enumerate(identities)))}
            identities, judged = list(first), [judged[i] for i in first.values()]
        members, cheap = [a for a, _ in judged], [cheap for _, cheap in judged]
        self._vocabulary.learn([self.space.features(a) for a in members])
        self._costs.learn([cost_row(row) for row in cheap])
        self._rows.clear()
        return _Whole(members, identities, self._features(members, cheap), self._known(cheap))

    def _known(self, cheap: Sequence[Mapping[str, float]]) -> Floats:
        """Return the losses among values known beforehand, NaN where not, shape (architectures, objectives)."""
        sign = [(objective.name, objective.sign) for objective in self.goal.objectives]
        return np.array([[s * row.get(name, np.nan) for name, s in sign] for row in cheap])

    def _best_of_all(self, rng: np.random.Generator, alone: bool) -> Architecture | None:
        assert self._whole is not None
        new = self._whole.new(self.seen)
        if not new.any():
            return None
        gain = np.where(new, self._acquisition(None, self._whole.known, rng, alone), -np.inf)
        return self._whole.members[int(np.argmax(rounded(gain)))]

    def _best_of_pool(self, rng: np.random.Generator, alone: bool) -> Architecture | None:
        """Breed candidates from the best trials, then from the best candidates."""
        count = len(self.goal.objectives)
        weights = np.eye(count)[self._unknown()[0]] if alone else rng.dirichlet(np.ones(count))
        losses = self.losses
        scaled = (losses - losses.min(axis=0)) / np.maximum(np.ptp(losses, axis=0), 1e-12)
        order = np.argsort((scaled * weights).max(axis=1), kind="stable")
        parents = [self.able[i].architecture for i in order[: max(10, len(order) // 10)]]
        seen, pool, described = set(self.seen), list[Architecture](), list[Features]()
        ranked: list[Architecture] = []
        seed = int(rng.integers(2**63))
        self._fitted()  # candidates are described in the columns that the evaluated trials define
        for turn in range(ROUNDS):
            children = [self._child(parents, rng, explore=turn == 0) for _ in range(POOL)]
            fresh = {self.space.identity(a): a for a in children}
            names = [name for name in fresh if name not in seen]
            new = [fresh[name] for name, (_, e) in zip(names, self._judge([fresh[name] for name in names]), strict=True) if e <= 0]
            seen.update(names)
            if new:
                pool += new
                described.append(self._features(new))
            if not pool:
                continue
            known = self._known([cheap for cheap, _ in self._judge(pool)])
            gain = self._acquisition(Features.stack(described), known, np.random.default_rng(seed), alone)
            ranked = [pool[i] for i in np.argsort(-rounded(gain), kind="stable")]
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

    def _acquisition(self, candidates: Features | None, known: Floats, rng: np.random.Generator, alone: bool) -> Floats:
        """Return what evaluating each candidate is expected to gain, shape (candidates,); `alone`, in the first unknown objective only."""
        model = self._fitted()
        unknown = self._unknown()
        past = model.losses
        targets = winsorised(-past[:, unknown[0]])
        mean, deviation = model.posterior.predict(targets, candidates)
        if alone or len(self.goal.objectives) == 1:
            return expected_improvement(mean, deviation, float(targets.max()))
        if len(self.goal.objectives) == 2 and len(unknown) == 1:
            other = 1 - unknown[0]
            return hypervolume_improvement(mean, deviation, known[:, other], targets, past[:, other])
        weights = rng.dirichlet(np.ones(len(self.goal.objectives)))
        low, span = past.min(axis=0), np.maximum(np.ptp(past, axis=0), 1e-12)
        bound = np.zeros(len(known))
        for i in range(len(weights)):
            if i == unknown[0]:
                continue
            losses = known[:, i]
            if i in unknown:
                losses = -model.posterior.predict(-past[:, i], candidates)[0]
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


def cost_row(cheap: Mapping[str, float]) -> dict[str, float]:
    """Return the logarithms of what is known beforehand."""
    return {name: float(np.log(max(value, 1e-9))) for name, value in cheap.items()}


def rounded(gain: Floats) -> Floats:
    """Return gains without the digits that rounding errors decide, so that ties are ties on every machine and after every resume."""
    top = float(np.max(np.abs(gain), where=np.isfinite(gain), initial=1e-300))
    return np.round(gain / top, 9)


def next_fit(count: int) -> int:
    """Return at how many trials the model is fitted after a fit at `count`."""
    return count + max(10, min(count // 3, 100))


def trials_to_fit(losses: Floats) -> npt.NDArray[np.int64]:
    """Return which trials a model keeps, at most `MOST`, in their order: the best fifth, and the youngest.

    Args:
        losses: By the first objective, shape (trials,).
    """
    if len(losses) <= MOST:
        return np.arange(len(losses))
    chosen = np.zeros(len(losses), dtype=bool)
    chosen[np.argsort(losses, kind="stable")[: MOST // 5]] = True
    young = np.flatnonzero(~chosen)[-(MOST - MOST // 5) :]
    chosen[young] = True
    return np.flatnonzero(chosen)


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
    edges, levels = [], []
    level = -np.inf
    for i in np.lexsort((-gains, costs)):
        if gains[i] > level:
            level = gains[i]
            edges.append(costs[i])
            levels.append(level)
    end = max(float(costs.max()), float(cost.max()))
    order = np.argsort(cost, kind="stable")  # a step counts for those that cost less than where it ends
    mean, deviation, ranked = mean[order], deviation[order], cost[order]
    total = np.zeros(len(mean))
    for start, stop, height in zip([-np.inf, *edges], [*edges, end], [float(gains.min()), *levels], strict=True):
        n = int(np.searchsorted(ranked, stop))
        total[:n] += (stop - np.maximum(start, ranked[:n])) * expected_improvement(mean[:n], deviation[:n], height)
    gain_by_point = np.empty_like(total)
    gain_by_point[order] = total
    return gain_by_point
