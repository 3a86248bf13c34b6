"""A search by a study: train what the evaluator needs, search, choose, hand over the model file, and check what was handed over.

Each phase keeps its outcome in the run directory and takes it up from there, so a run that was killed goes on as if it
had not been: weights after every epoch, trials after every evaluation, then the choice, then the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.events import Event, EventBus, Notice, PhaseAdvanced
from nas.results import Contender, Fronts, Point, Result, Verification
from nas.runs.anchor_race import RACED_FILES, raced
from nas.runs.choice import LEADER, Correct, Decision, blocks, decide
from nas.runs.clock import clocked
from nas.runs.cluster import OneAtATime, search_on_cluster
from nas.runs.delivery import (
    MEMBER_FILE,
    NOTHING_WITHIN,
    Delivery,
    Finalists,
    Verifications,
    deliver,
    handed_over,
    revision_of,
    tune_for_a_while,
    verify,
)
from nas.runs.directory import JOURNAL, RunDirectory, remembered
from nas.runs.explain import Scored
from nas.runs.forecast import TrainingForecast
from nas.runs.pace import SEARCHED, SEARCHED_ALONE, SHOWN_EPOCHS, TRAINED, Pace, evaluations
from nas.runs.page import PAGE
from nas.runs.problem import Problem, nearest_miss
from nas.runs.published_search import published_front
from nas.runs.trainable import trainable
from nas.searching.buckets import LatencyBuckets
from nas.searching.pareto import front as pareto_front
from nas.searching.pareto import knee
from nas.searching.searcher import Trial
from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.training.evaluator import Evaluator
from nas.units import parse_duration

if TYPE_CHECKING:
    from nas.training.dataset import Dataset
    from nas.training.supernet.weights import Supernet

SEARCHER = "guided"
SUPERNET_FILE = "supernet.safetensors"
_FEW_EPOCHS = 12  # by hand
_BACK_AND_FORTH = 4
"""A training step of a picture takes as long as so many forward runs: three by arithmetic; 3.4 and 4.3 with augmentation and optimiser, in two runs on the embedded digits."""


def search_by_study(
    run: RunDirectory, problem: Problem, result: Result, bus: EventBus, timed: Finalists | None = None
) -> tuple[Result, tuple[Point, ...]]:
    """Do everything that is not done yet; return `result` with what follows from it, and every network within the budgets that was scored.

    Args:
        run: Where it is kept.
        problem: What is searched.
        result: That grows.
        bus: Told of the progress.
        timed: Times the front's best before the choice; all estimates then follow these timings. None: nothing is timed.

    Raises:
        NasError: What went wrong; `nas resume` goes on from there.
    """
    limit = problem.request.time_limit
    with clocked(run, parse_duration(limit) if limit else None, bus) as clock:
        pace = Pace(problem.request, clock)
        found, scored = _by_study(run, problem, result, bus, timed, pace)
    return found.model_copy(update={"ledger": clock.ledger}), scored


def _by_study(
    run: RunDirectory, problem: Problem, result: Result, bus: EventBus, timed: Finalists | None, pace: Pace
) -> tuple[Result, tuple[Point, ...]]:
    if problem.request.storage:  # so that workers and `nas studies` see it while its supernet is trained
        open_study(run, problem).note({"request": problem.request.model_dump_json(), "status": "training"})
    posed = problem
    zoo = remembered(run, "zoo.json", Fronts, lambda: published_front(posed)).front
    problem = trainable(run, problem, pace, bus)
    evaluator, facts = prepared(run, problem, bus, pace)
    study = searched(run, problem, evaluator, facts, bus, pace)
    front = front_of(problem, study)
    changed: dict[str, object] = {}

    def decided(judged: Problem, among: Sequence[Trial]) -> Decision:
        return raced(run, judged, evaluator, decide(judged, evaluator, among, study.trials()), pace, bus)

    if timed is not None:
        problem, front, changed = _revised(run, problem, evaluator, study, timed, decided)
    decision = remembered(run, _DECISION[bool(problem.judge.corrections)], Decision, lambda: decided(problem, front))
    architecture = Architecture(problem.space.name, problem.space.version, decision.genes)
    run.write_text("architecture.json", architecture.to_json() + "\n")
    for left in run.path.glob(RACED_FILES):
        left.unlink()
    delivery = handed_over(run, architecture, lambda: deliver(run, problem, evaluator, architecture, bus, pace))
    points = tuple(_delivered(point, architecture, delivery) for point in _with(problem, evaluator, front, architecture))
    scored = scored_points(problem, study)
    found = result.model_copy(
        update={
            "chosen": next(point for point in points if point.key == architecture.key),
            "why": decision.why,
            "blocks": tuple(blocks(problem, architecture)),
            "compared": decision.compared,
            "front": points,
            "knee": front[knee([problem.goal.losses(trial.values) for trial in front])].architecture.key,
            "scored": problem.evaluator.scored,
            "counting": counting(scored) if "table" not in problem.evaluator.needs else {},
            "objectives": tuple(objective.name for objective in problem.goal.objectives),
            "hypervolume_history": tuple(study.hypervolume_history()),
            "zoo": zoo,
            "model": str(run.path / delivery.model) if delivery.model else None,
            "model_reason": delivery.model_reason,
            "model_sha256": delivery.sha256,
            "blind": problem.dataset.blind("test", delivery.accuracy_pct)
            if problem.dataset and delivery.accuracy_pct is not None
            else None,
            "by_class": delivery.by_class,
            "lacking_operators": delivery.lacking_operators,
            "sensitivity_db": delivery.sensitivity_db,
            "evaluations": study.evaluations,
            "proposals": study.proposals,
            "why_not_more": decision.why_not_more,
            **changed,
        }
    )
    return found, scored


def try_study(run: RunDirectory, problem: Problem, bus: EventBus, rung: int, until_s: float) -> tuple[Correct, tuple[Contender, ...]]:
    """Train what scores candidates, search, choose, and fine-tune the choice until the run has taken so many seconds.

    `search_by_study` goes on from there.

    Args:
        run: Where it is kept.
        problem: What is searched.
        bus: Told of the progress.
        rung: Number of the trial: later ones fine-tune the same choice further.
        until_s: Those of earlier trials included.

    Returns:
        Which of the compared validation pictures the choice names by then, and a row for the front's best.

    Raises:
        InfeasibleError: Nothing is within the budgets.
    """
    with clocked(run, until_s, bus) as clock:
        pace, dataset = Pace(problem.request, clock), problem.dataset
        assert dataset is not None
        problem = trainable(run, problem, pace, bus)
        evaluator, facts = prepared(run, problem, bus, pace)
        study = searched(run, problem, evaluator, facts, bus, pace)
        front = front_of(problem, study)
        decision = remembered(run, DECISION, Decision, lambda: decide(problem, evaluator, front, study.trials()))
        architecture = Architecture(problem.space.name, problem.space.version, decision.genes)
        right = tune_for_a_while(run, problem, evaluator, architecture, rung, pace, bus)
    rows = []
    for point in (point_of(problem, trial) for trial in front[:_SHOWN]):
        chosen = point.key == architecture.key
        rows.append(
            Contender(
                key=point.key,
                network=point.label,
                resolution=point.resolution,
                latency_ms=point.latency_ms,
                upper_ms=point.upper_ms,
                supernet_accuracy_pct=None if problem.evaluator.fresh or not problem.evaluator.paired else point.supernet_accuracy_pct,
                scored_pictures=dataset.count("validation"),
                raced_accuracy_pct=(100 * float(right.mean()),) if chosen else (),
                pictures=len(right),
                outcome=LEADER if chosen else "scored",
            )
        )
    return right, tuple(rows)


_SHOWN = 8
"""Networks of a front that are shown where several kinds share a run: those among which the choice is made. Set by hand."""


def front_of(problem: Problem, study: Study) -> list[Trial]:
    """Return a study's front, the most accurate first.

    Raises:
        InfeasibleError: Nothing is within the budgets.
    """
    if front := study.front():
        return front
    seen = [trial.architecture for trial in study.trials()]
    raise nearest_miss(problem, list(zip(seen, problem.judge.verdicts(seen), strict=True)))


DECISION = "decision.json"
_DECISION = (DECISION, "decision-timed.json")
"""The choice by estimates alone, and that by what timings say about them."""


def _revised(
    run: RunDirectory,
    problem: Problem,
    evaluator: Evaluator,
    study: Study,
    timed: Finalists,
    decided: Callable[[Problem, Sequence[Trial]], Decision],
) -> tuple[Problem, list[Trial], dict[str, object]]:
    """Time the front's best; return the problem and the front as these timings have them, and what the result says of it."""
    front = study.front()
    scored = _scored(problem, study.trials())
    timings = timed(scored)
    revised = problem.revised(timings, {a.key: verdict.estimates[problem.device] for a, verdict, _ in scored})
    if revised is problem:
        return problem, front, {"verified": timings}
    before = remembered(run, _DECISION[False], Decision, lambda: decide(problem, evaluator, front, study.trials()))

    def taken(judged: Problem, among: Sequence[Trial], decision: Decision) -> Point:
        choice = Architecture(judged.space.name, judged.space.version, decision.genes)
        return next(point for point in _with(judged, evaluator, among, choice) if point.key == choice.key)

    former = taken(problem, front, before)
    again = _front_by(revised, study.trials())
    if not again:
        remembered(run, _DECISION[True], Decision, lambda: before)
        said = {"why": f"{before.why}; {NOTHING_WITHIN}", "revision": revision_of(revised, former, None, feasible=False)}
        return revised, _judged(revised, front), {"verified": timings, **said}

    def decided_again() -> Decision:
        decision = decided(revised, again)
        if decision.genes != before.genes:  # the former choice may have been fine-tuned already
            (run.path / MEMBER_FILE).unlink(missing_ok=True)
        return decision

    after = remembered(run, _DECISION[True], Decision, decided_again)
    return revised, again, {"verified": timings, "revision": revision_of(revised, former, taken(revised, again, after), feasible=True)}


def _scored(problem: Problem, trials: Sequence[Trial]) -> list[Scored]:
    evaluated = list({trial.architecture.key: trial for trial in trials if trial.evaluated}.values())
    verdicts = problem.judge.verdicts([trial.architecture for trial in evaluated])
    return [(trial.architecture, verdict, trial.values["accuracy_pct"]) for trial, verdict in zip(evaluated, verdicts, strict=True)]


def _front_by(problem: Problem, trials: Sequence[Trial]) -> list[Trial]:
    """Return the evaluated trials that a problem's judge finds within the budgets and that no other dominates, most accurate first."""
    found = [trial for trial in _judged(problem, [trial for trial in trials if trial.evaluated]) if trial.feasible]
    best = [found[i] for i in pareto_front([problem.goal.losses(trial.values) for trial in found])]
    return sorted(best, key=lambda trial: (problem.goal.losses(trial.values), trial.number))


def _judged(problem: Problem, trials: Sequence[Trial]) -> list[Trial]:
    """Return trials with what a problem's judge says of them by now."""
    verdicts = problem.judge.verdicts([trial.architecture for trial in trials])
    return [
        replace(trial, values={**trial.values, **verdict.values}, violations=verdict.violations)
        for trial, verdict in zip(trials, verdicts, strict=True)
    ]


def verified(run: RunDirectory, problem: Problem, scored: Sequence[Scored], bus: EventBus) -> tuple[Verification, ...]:
    """Return the timings of the finalists, measuring them first where that is not done yet."""
    return remembered(run, "verified.json", Verifications, lambda: verify(problem, scored, bus)).networks


def prepared(run: RunDirectory, problem: Problem, bus: EventBus, pace: Pace) -> tuple[Evaluator, dict[str, str]]:
    """Return the evaluator, with what it needs trained first, and the facts by which a worker knows that it has the same."""
    request, dataset = problem.request, problem.dataset
    if "supernet" not in problem.evaluator.needs or dataset is None:
        evaluator = problem.evaluator.make(problem.assignment())
        return evaluator, {"request": request.model_dump_json(), "data": dataset.key if dataset else "none"}
    supernet = trained(run, problem, dataset, bus, pace)
    here = request.model_copy(update={"supernet": request.supernet or str((run.path / SUPERNET_FILE).resolve())})  # for workers beside it
    facts = {"request": here.model_dump_json(), "weights": supernet.key, "data": dataset.key}
    return problem.evaluator.make(problem.assignment(supernet)), facts


def searched(run: RunDirectory, problem: Problem, evaluator: Evaluator, facts: Mapping[str, str], bus: EventBus, pace: Pace) -> Study:
    """Return the run's study, searched until it has enough accuracies, or a network has been chosen from it."""
    request = problem.request
    study = open_study(run, problem, attributes={name: fact for name, fact in facts.items() if name != "request"})
    study.note({"request": facts["request"], "status": "searching", "report": str(run.path.resolve() / PAGE)})
    bus.listeners.append(keeper := FrontKeeper(run, problem, study))
    judge = OneAtATime(problem.judge) if request.workers else problem.judge

    def search(session: Study, scorer: Evaluator, listening: EventBus) -> None:
        session.run(
            request.searcher or SEARCHER,
            scorer,
            judge,
            evals=evaluations(request),
            seed=request.seed,
            bus=listening,
            shared=bool(request.storage or request.workers),
            locked=True,
            left_s=pace.until(SEARCHED_ALONE if problem.evaluator.fresh else SEARCHED),
        )

    if run.read(DECISION) is not None:
        study.refresh()
    elif request.workers:
        weights = Path(request.supernet or run.path / SUPERNET_FILE) if "weights" in facts else None
        search_on_cluster(request, facts, weights, evaluator.key, study, lambda: open_study(run, problem), search, bus)
        study.refresh()
    else:
        search(study, evaluator, bus)
    study.note({"status": "finished"})
    bus.listeners.remove(keeper)
    return study


def _delivered(point: Point, architecture: Architecture, delivery: Delivery) -> Point:
    if point.key != architecture.key:
        return point
    accuracies = ("accuracy_pct", "float_accuracy_pct", "validation_accuracy_pct")
    return point.model_copy(update={name: getattr(delivery, name) for name in accuracies})


class FrontKeeper:
    """A listener that keeps the front of a running search in ``front.json``, for `nas show`.

    Args:
        run: Where.
        problem: Turns trials into points.
        study: Of the search.
    """

    def __init__(self, run: RunDirectory, problem: Problem, study: Study) -> None:
        self.run, self.problem, self.study = run, problem, study
        self._numbers: list[int] = []

    def __call__(self, event: Event) -> None:
        """Write the front where it has changed."""
        if not (isinstance(event, PhaseAdvanced) and event.phase == "search"):
            return
        front = self.study.front()
        if (numbers := [trial.number for trial in front]) != self._numbers:
            self._numbers = numbers
            self.run.write("front.json", Fronts(front=tuple(point_of(self.problem, trial) for trial in front)).dump())


def given_supernet(problem: Problem) -> Supernet:
    """Return the shared weights that the user gives.

    Raises:
        ArtifactError: See `nas.training.supernet.train.load_supernet`.
    """
    from nas.training.supernet.train import load_supernet

    assert isinstance(problem.space, ElasticSpace)
    assert problem.request.supernet is not None
    return load_supernet(Path(problem.request.supernet), problem.space.plain, problem.dataset)


def trained(run: RunDirectory, problem: Problem, dataset: Dataset, bus: EventBus, pace: Pace) -> Supernet:
    """Return the supernet: the user's, or the run's own, trained as far as is lacking."""
    from nas.training.supernet.train import PASSES, default_recipe, default_resolution, member_recipe, train

    request = problem.request
    if request.supernet:
        return given_supernet(problem)
    assert isinstance(problem.space, ElasticSpace)
    space = problem.space.plain
    path = run.path / SUPERNET_FILE
    recipe = default_recipe(dataset, space) if isinstance(space, ChainSpace) or not _begun_before(path) else member_recipe(dataset)
    shown = round(PASSES * SHOWN_EPOCHS) if recipe.methods else SHOWN_EPOCHS
    default = recipe.epochs if request.data else min(recipe.epochs, shown)
    recipe = replace(recipe, epochs=pace.epochs(request.epochs, default))
    side = request.proxy_resolution
    proxy = (side, side) if side else default_resolution(dataset, space.least_proxy)
    draw = LatencyBuckets(problem.space, problem.judge, request.seed).draw if isinstance(space, ChainSpace) and recipe.epochs else None
    looks = min(space.calibration_pictures, dataset.count("train")) + dataset.count("validation")
    passes = 1 if recipe.methods else 2 + recipe.random_members
    trained_pictures = _BACK_AND_FORTH * passes * dataset.count("train")
    bus.listeners.append(forecast := TrainingForecast(bus, looks / trained_pictures, evaluations(request), pace.clock))
    try:
        left_s = pace.until(TRAINED)
        done = train(space, dataset, path, recipe, resolution=proxy, seed=request.seed, bus=bus, draw=draw, left_s=left_s)
        if left_s and len(done.history) < min(_FEW_EPOCHS, recipe.epochs):
            bus.emit(
                Notice(
                    f"the time limit of {request.time_limit} left {len(done.history)} epochs for shared weights, which then say little of candidates. "
                    "Do this: a longer --time-limit, a smaller --proxy-resolution, or published weights (--space zoo)."
                )
            )
        return done.supernet
    finally:
        bus.listeners.remove(forecast)


def _begun_before(path: Path) -> bool:
    """Return whether a run's shared weights were begun by 0.1.0, which trained four members a step; such a training goes on as it began."""
    from nas.training.supernet.checkpoint import read_checkpoint

    return path.is_file() and not read_checkpoint(path, "supernet").identity.get("recipe", {}).get("methods")


def open_study(run: RunDirectory, problem: Problem, *, attributes: Mapping[str, str] | None = None, create: bool = True) -> Study:
    """Open the study of a run."""
    request = problem.request
    return Study.open(
        request.storage or str(run.path / JOURNAL),
        name=request.study,
        space=problem.space,
        goal=problem.goal,
        attributes=attributes,
        create=create,
        score="" if problem.evaluator.scored.endswith("score") else problem.evaluator.scored,
        timeout_s=request.storage_timeout,
    )


def _with(problem: Problem, evaluator: Evaluator, front: Sequence[Trial], choice: Architecture) -> list[Point]:
    """Return a front's points, and that of the choice where it is none of them: an anchor that is better once fine-tuned."""
    points = [point_of(problem, trial) for trial in front]
    if all(point.key != choice.key for point in points):
        score_pct = evaluator.evaluate(choice).accuracy_pct
        points.append(problem.point(choice, problem.judge.verdicts([choice])[0], supernet_accuracy_pct=score_pct))
    return points


def scored_points(problem: Problem, study: Study) -> tuple[Point, ...]:
    """Return every network within the budgets that a study has scored."""
    return tuple(point_of(problem, trial) for trial in study.trials() if trial.evaluated and trial.feasible)


_TELLING = 8
"""Scored networks from which on their order is compared with that of counting. Set by hand."""


def counting(scored: Sequence[Point]) -> dict[str, float]:
    """Return Kendall's tau of scores with parameters, multiply-adds and latencies: near 1, they say little that costs more than counting."""
    from nas.training.rank import kendall

    each = list({point.key: point for point in scored}.values())
    if len(each) < _TELLING:
        return {}
    costs = {name: np.array([getattr(point, name) for point in each], dtype=float) for name in ("params", "macs")}
    costs |= {f"latency_ms/{d}": np.array([point.devices[d].latency_ms for point in each]) for d in each[0].devices}
    scores = np.array([point.supernet_accuracy_pct for point in each], dtype=float)
    found = {name: kendall(scores, values) for name, values in costs.items()}
    return {name: round(tau, 3) for name, tau in found.items() if tau is not None}


def point_of(problem: Problem, trial: Trial) -> Point:
    """Return an evaluated trial as a point of the result."""
    verdict = problem.judge.verdicts([trial.architecture])[0]
    return problem.point(trial.architecture, verdict, supernet_accuracy_pct=trial.values["accuracy_pct"], trial=trial.number)
