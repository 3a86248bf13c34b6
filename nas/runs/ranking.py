"""``nas rank``: networks of a space whose accuracy is known, and how everything that scores them orders them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas.errors import UsageError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Agreement, Contestant, Intervals, Predicted, Ranking
from nas.searching.judge import Judge, Target
from nas.searching.objective import Goal
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.space import Resolution, SearchSpace
from nas.training.calibration import COVERAGE, FEWEST_KNOWN, Calibrated, calibrate
from nas.training.dataset import Dataset
from nas.training.rank import Values, agreements, train_alone
from nas.training.score import vote

if TYPE_CHECKING:
    from nas.training.supernet.scores import SharedScores
    from nas.training.supernet.train import Recipe
    from nas.training.supernet.weights import Supernet

FEWEST = 3
"""Networks of a ranking. Set by hand."""

RESULT, PLOT = "ranking.json", "ranking.png"
RANKED = "rank"
"""Folder of a ranking: where the user is, or in the run whose scores it judges."""

_TRIES = 200
"""Draws for each network that is wanted, before a space counts as too small. Set by hand."""


@dataclass(frozen=True)
class Contest:
    """What is ranked and what is known of it.

    Attributes:
        space: Whose members are drawn.
        n: Members.
        folder: For the result and for the networks that are trained alone.
        seed: Of everything random.
        dataset: Of the training and of the scores; None where a table knows the accuracies and nothing is trained.
        recipe: How members are trained alone; None where a table knows.
        resolution: Of the pictures; None for the space's own.
        table: File of known accuracies.
        column: Of that file.
        supernet: Whose scores are held against the accuracies.
        targets: Devices whose estimated latency is a baseline.
        twice: Members that are trained with a second seed.
        known: Members whose accuracies calibrate the scores of the others; they are in no comparison.
        judge: Within whose budgets members are drawn; None for any.
        candidates: Further members, by name, that are not trained: their accuracies are predicted from those that are.
        bus: Told of the progress.
    """

    space: SearchSpace
    n: int
    folder: Path
    seed: int = 0
    dataset: Dataset | None = None
    recipe: Recipe | None = None
    resolution: Resolution | None = None
    table: Path | None = None
    column: str | None = None
    supernet: Supernet | None = None
    targets: Sequence[Target] = ()
    twice: int = 0
    known: int = 0
    judge: Judge | None = None
    candidates: Mapping[str, Architecture] = field(default_factory=dict)
    bus: EventBus = field(default_factory=EventBus)


def rank_members(contest: Contest) -> Ranking:
    """Draw members, learn their accuracies, score them, and compare the orders; the result is written into the contest's folder, too.

    Raises:
        UsageError: The space has not so many networks, or its members cannot be built.
        DataError: The table lacks one.
        TrainingError: A training diverged.
        ArtifactError: A file of the folder is damaged.
    """
    members = draw(contest.space, contest.n, contest.seed, contest.judge)
    accuracy, again = _accuracies(contest, members)
    every = [*members, *contest.candidates.values()]
    supernet, measured = _supernet_scores(contest, every), _training_free(contest, every)
    costs = _counts(contest, every) | _latencies(contest, every)
    told = _telling(supernet, measured, costs)
    own = slice(len(members))
    supernet = {name: values[own] for name, values in supernet.items()}
    baselines = {name: values[own] for name, values in costs.items()} | {"vote": vote(measured[own])}
    calibrated, known = _calibrated(contest, accuracy, told[own])
    scores = supernet | ({"calibrated": calibrated.accuracy_pct} if calibrated else {})
    rest = ~known
    judged, compared = agreements(accuracy[rest], _of(scores, rest), _of(baselines, rest), contest.seed)
    every_score = scores | baselines
    result = Ranking(
        n=int(rest.sum()),
        space=contest.space.name,
        truth=_truth(contest),
        data=f"{contest.dataset.name} {contest.dataset.key}" if contest.dataset else None,
        scores=judged,
        baselines=compared,
        intervals=_intervals(calibrated, accuracy, known),
        ceiling=_ceiling(accuracy, again, contest.seed),
        networks=tuple(
            Contestant(
                architecture=member.to_json(),
                accuracy_pct=float(accuracy[i]),
                again_pct=float(again[i]) if i < len(again) else None,
                scores={name: float(values[i]) for name, values in every_score.items()},
                known=bool(known[i]),
                interval_pct=(float(calibrated.lower_pct[i]), float(calibrated.upper_pct[i])) if calibrated else None,
            )
            for i, member in enumerate(members)
        ),
        predicted=_predicted(contest, accuracy, told),
        plot=PLOT,
    )
    _write(contest.folder, result)
    return result


def _of(scores: Mapping[str, Values], rows: npt.NDArray[np.bool_]) -> dict[str, Values]:
    return {name: values[rows] for name, values in scores.items()}


def _telling(supernet: Mapping[str, Values], measured: Values, costs: Mapping[str, Values]) -> Values:
    """Return the scores from which accuracies are calibrated, networks × scores: what shared features, untrained networks, multiply-adds and latencies tell.

    Of ten known accuracies they make a better order than scores alone (``experiments/014_rank``). Parameters are left out: in a space of several
    sizes of picture they say little.
    """
    return np.column_stack(
        [*([supernet["features"]] if supernet else []), measured, *(values for name, values in costs.items() if name != "params")]
    )


def _predicted(contest: Contest, accuracy: Values, scores: Values) -> tuple[Predicted, ...]:
    """Return the accuracies of the candidates by those of all trained networks, whose rows come first."""
    n = len(accuracy)
    if not contest.candidates or n < FEWEST_KNOWN:
        return ()
    found = calibrate(scores, np.arange(n), accuracy)
    ends = zip(contest.candidates, found.accuracy_pct[n:], found.lower_pct[n:], found.upper_pct[n:], strict=True)
    return tuple(Predicted(key=key, accuracy_pct=float(a), interval_pct=(float(low), float(high))) for key, a, low, high in ends)


def _calibrated(contest: Contest, accuracy: Values, scores: Values) -> tuple[Calibrated | None, npt.NDArray[np.bool_]]:
    """Return what scores say once some accuracies are known, and which are: drawn at random, so that the intervals hold."""
    known = np.zeros(len(accuracy), dtype=bool)
    if not contest.known:
        return None, known
    chosen = np.random.default_rng([contest.seed, 33]).permutation(len(accuracy))[: contest.known]
    known[chosen] = True
    return calibrate(scores, chosen, accuracy[chosen]), known


def _intervals(calibrated: Calibrated | None, accuracy: Values, known: npt.NDArray[np.bool_]) -> Intervals | None:
    if calibrated is None:
        return None
    rest = ~known
    inside = (accuracy >= calibrated.lower_pct) & (accuracy <= calibrated.upper_pct)
    return Intervals(
        known=int(known.sum()),
        n=int(rest.sum()),
        nominal=COVERAGE,
        covered=float(inside[rest].mean()),
        median_points=float(np.median((calibrated.upper_pct - calibrated.lower_pct)[rest])),
    )


def draw(space: SearchSpace, n: int, seed: int, judge: Judge | None = None) -> list[Architecture]:
    """Return `n` members that are different networks, within a judge's budgets where there is one.

    Raises:
        UsageError: So many were not found.
    """
    rng = np.random.default_rng([seed, 31])
    members: dict[str, Architecture] = {}
    for _ in range(_TRIES * n):
        member = space.sample(rng)
        if judge is not None and not judge.verdicts([member])[0].feasible:
            continue
        members.setdefault(space.identity(member), member)
        if len(members) == n:
            return list(members.values())
    raise UsageError(
        f"rank: {space.name} has too few networks{' within the budgets' if judge else ''}, got {len(members)} different ones in {_TRIES * n} draws. Expected {n}."
    )


def _accuracies(contest: Contest, members: Sequence[Architecture]) -> tuple[Values, Values]:
    """Return the known accuracies, and for the first members those of a second seed, in percent."""
    if contest.table is not None:
        from nas.training.evaluators.table import TableAccuracy

        known = TableAccuracy(contest.space, contest.table, contest.column)
        return np.array([known.evaluate(member).accuracy_pct for member in members]), np.empty(0)
    import torch

    assert contest.dataset is not None
    assert contest.recipe is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    runs = [(member, contest.seed) for member in members] + [(member, contest.seed + 1) for member in members[: contest.twice]]
    detail = f"{len(members)} members of {contest.space.name} trained alone on {contest.dataset.name}"
    began_s, accuracies = time.monotonic(), list[float]()
    contest.bus.emit(PhaseStarted("rank", len(runs), 0, detail))
    for member, seed in runs:
        size = _size(contest, member)
        alone = train_alone(contest.space, member, contest.dataset, contest.recipe, contest.folder, size=size, seed=seed, device=device)
        accuracies.append(alone)
        contest.bus.emit(PhaseAdvanced("rank", len(accuracies), {"alone_accuracy_pct": alone}))
    contest.bus.emit(PhaseFinished("rank", time.monotonic() - began_s))
    return np.array(accuracies[: len(members)]), np.array(accuracies[len(members) :])


def _size(contest: Contest, member: Architecture) -> Resolution:
    """Return the size of the pictures that a member is trained on: the proxy's where a supernet serves the space, else its own up to the contest's."""
    space = contest.space
    if contest.resolution is None:
        height, width = space.lower(member).inputs[0].shape[2:]
        return height, width
    return space.proxy(member, contest.resolution) if isinstance(space, ElasticSpace) else contest.resolution


def _supernet_scores(contest: Contest, members: Sequence[Architecture]) -> dict[str, Values]:
    if contest.supernet is None:
        return {}
    from nas.training.evaluators.supernet import SupernetEvaluator

    assert contest.dataset is not None
    evaluator = SupernetEvaluator(contest.supernet, contest.dataset)
    found: list[SharedScores] = []

    def score(member: Architecture) -> float:
        found.append(evaluator.scores(member))
        return found[-1].accuracy_pct

    accuracy = _each(contest, "members scored with shared weights", members, score)
    return {"supernet": accuracy, "features": np.array([one.explained for one in found])}


def _each(contest: Contest, detail: str, members: Sequence[Architecture], score: Callable[[Architecture], float]) -> Values:
    began_s, scores = time.monotonic(), list[float]()
    contest.bus.emit(PhaseStarted("score", len(members), 0, detail))
    for member in members:
        scores.append(score(member))
        contest.bus.emit(PhaseAdvanced("score", len(scores)))
    contest.bus.emit(PhaseFinished("score", time.monotonic() - began_s))
    return np.array(scores)


def _counts(contest: Contest, members: Sequence[Architecture]) -> dict[str, Values]:
    costs = [contest.space.lower(member, _size(contest, member)).cost for member in members]
    return {name: np.array([float(getattr(cost, name)) for cost in costs]) for name in ("params", "macs")}


def _latencies(contest: Contest, members: Sequence[Architecture]) -> dict[str, Values]:
    """Return the estimated latencies at the deployment resolution; a device that cannot run every member is left out, and named."""
    if not contest.targets:
        return {}
    verdicts = Judge(contest.space, Goal(()), contest.targets).verdicts(members)
    latencies = {}
    for target in contest.targets:
        device = target.profile.name
        lacking = sum(bool(verdict.estimates[device].unsupported) for verdict in verdicts)
        if lacking:
            contest.bus.emit(Notice(f"latency on {device} is no baseline here: {lacking} of {len(members)} networks cannot be priced."))
        else:
            latencies[f"latency_ms/{device}"] = np.array([verdict.values[f"latency_ms/{device}"] for verdict in verdicts])
    return latencies


def _training_free(contest: Contest, members: Sequence[Architecture]) -> Values:
    """Return the members' training-free scores, members × scores."""
    from nas.training.evaluators.zero_cost import ZeroCost

    evaluator = ZeroCost(contest.space, contest.seed, contest.dataset)
    measured: list[tuple[float, ...]] = []

    def measure(member: Architecture) -> float:
        measured.append(evaluator.measure(member))
        return 0.0

    _each(contest, "members looked at by training-free scores", members, measure)
    return np.array(measured)


def _ceiling(accuracy: Values, again: Values, seed: int) -> Agreement | None:
    """Return how training alone with a second seed orders the networks that were trained twice."""
    if not len(again):
        return None
    judged, _ = agreements(accuracy[: len(again)], {"again": again}, {}, seed)
    return judged["again"]


def _truth(contest: Contest) -> str:
    if contest.table is not None:
        return f"{contest.column or 'accuracy'} of {contest.table.name}"
    assert contest.recipe is not None
    return f"validation accuracy of networks trained alone, {contest.recipe.epochs} epochs"


def _write(folder: Path, result: Ranking) -> None:
    import json
    import os

    from nas.report.plots import draw_ranking

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{RESULT}.part"
    part.write_text(json.dumps(result.dump(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, folder / RESULT)
    draw_ranking(folder / PLOT, result)
