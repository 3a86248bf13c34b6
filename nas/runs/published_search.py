"""The answer without training: every published network within the budgets."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Fronts, Point, Result
from nas.runs.delivery import NOTHING_WITHIN, Delivery, Finalists, export_as_scored, handed_over, revision_of
from nas.runs.directory import RunDirectory
from nas.runs.explain import why_not_more
from nas.runs.problem import Problem, nearest_miss
from nas.searching.judge import Judge, Verdict
from nas.searching.objective import Goal
from nas.searching.pareto import front as pareto_front
from nas.searching.pareto import knee
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.space import spaces
from nas.training.evaluator import Evaluator, Metrics, evaluators


@dataclass(frozen=True)
class Candidate:
    """An architecture with everything that was found out about it."""

    architecture: Architecture
    verdict: Verdict
    metrics: Metrics

    def losses(self, goal: Goal) -> tuple[float, ...]:
        """Return its losses in the order of the goal's objectives."""
        return goal.losses({**self.verdict.values, "accuracy_pct": self.metrics.accuracy_pct})

    def point(self, problem: Problem) -> Point:
        """Return it as results show it."""
        return problem.point(self.architecture, self.verdict, accuracy_pct=self.metrics.accuracy_pct)


@runtime_checkable
class WithWeights(Protocol):
    """A space that knows of whose members trained weights are on this machine."""

    def weights_here(self, architecture: Architecture) -> str | None:
        """Return the name under which a member's weights are found; None where they are not here."""


def survey_space(
    run: RunDirectory, problem: Problem, result: Result, bus: EventBus, timed: Finalists | None = None
) -> tuple[Result, tuple[Point, ...]]:
    """Judge and score every member of a space whose accuracies cost nothing; nothing is trained.

    The choice is exported with its published weights where they are on this machine.

    Args:
        run: Where what is handed over is kept.
        problem: What is searched.
        result: That grows.
        bus: Told of the progress.
        timed: Times the front's best; all estimates then follow these timings, and the choice is made again. None: nothing is timed.

    Returns:
        `result` with what follows from it, and all members as points.

    Raises:
        InfeasibleError: Nothing is within the budgets.
    """
    candidates = survey(problem.judge, problem.evaluator.make(problem.assignment()), bus)
    answered, winner, points = _answered(problem, result, candidates, bus)
    if timed is not None:
        problem, answered, winner, points = _revised(problem, result, candidates, (answered, winner, points), timed, bus)
    delivery = handed_over(run, winner, lambda: _handed_over(run, problem, winner, bus))
    written: dict[str, object] = {"model_reason": delivery.model_reason}
    if delivery.model:
        written |= {
            "model": str(run.path / delivery.model),
            "model_sha256": delivery.sha256,
            "lacking_operators": delivery.lacking_operators,
        }
    return answered.model_copy(update=written), points


Answer = tuple[Result, Architecture, tuple[Point, ...]]
"""What a search has found, its choice, and all members as points."""


def _revised(
    problem: Problem, result: Result, candidates: Sequence[Candidate], answer: Answer, timed: Finalists, bus: EventBus
) -> tuple[Problem, Result, Architecture, tuple[Point, ...]]:
    """Time the finalists; return the problem and the answer as these timings have them."""
    device, (answered, winner, points) = problem.device, answer
    timings = timed([(c.architecture, c.verdict, c.metrics.accuracy_pct) for c in candidates])
    revised, former = problem.revised(timings, {c.architecture.key: c.verdict.estimates[device] for c in candidates}), answered.chosen
    if revised is not problem and former is not None:
        again = [replace(c, verdict=revised.judge.revised(c.architecture.key, c.verdict, device)) for c in candidates]
        if feasible := any(c.verdict.feasible for c in again):
            answered, winner, points = _answered(revised, result, again, bus)
        else:
            now = {c.architecture.key: c.point(revised) for c in again}
            front = tuple(now[point.key] for point in answered.front)
            points = tuple(now[point.key] for point in points)
            why = f"{answered.why}; {NOTHING_WITHIN}"
            answered = answered.model_copy(update={"chosen": now[former.key], "why": why, "front": front, "zoo": front})
        problem = revised
        answered = answered.model_copy(update={"revision": revision_of(revised, former, answered.chosen, feasible)})
    return problem, answered.model_copy(update={"verified": timings}), winner, points


def _answered(problem: Problem, result: Result, candidates: Sequence[Candidate], bus: EventBus) -> Answer:
    feasible = [c for c in candidates if c.verdict.feasible]
    if not feasible:
        raise nearest_miss(problem, [(c.architecture, c.verdict) for c in candidates])
    best = [feasible[i] for i in pareto_front([c.losses(problem.goal) for c in feasible])]
    points = tuple(c.point(problem) for c in best)
    chosen = max(points, key=lambda p: (p.compared_accuracy_pct, -p.latency_ms))
    winner = next(c.architecture for c in best if c.architecture.key == chosen.key)
    if quantised := sorted({p.precision for p in points if p.precision.startswith("w")}):
        bus.emit(
            Notice(f"published accuracies are those of float weights; what {' and '.join(quantised)} costs these networks is not known.")
        )
    scored = [(c.architecture, c.verdict, c.metrics.accuracy_pct) for c in candidates]
    answered = result.model_copy(
        update={
            "chosen": chosen,
            "why": "the most accurate network"
            + (" whose upper end is within every budget" if problem.goal.budgets else "; no budget was given"),
            "front": points,
            "knee": points[knee([c.losses(problem.goal) for c in best])].key,
            "objectives": tuple(objective.name for objective in problem.goal.objectives),
            "zoo": points,
            "evaluations": len(feasible),
            "proposals": len(candidates),
            "why_not_more": why_not_more(problem.judge, scored, winner),
        }
    )
    return answered, winner, tuple(c.point(problem) for c in candidates)


def _handed_over(run: RunDirectory, problem: Problem, winner: Architecture, bus: EventBus) -> Delivery:
    space = problem.space
    if isinstance(space, WithWeights) and space.weights_here(winner):
        return export_as_scored(run, problem, space.build(winner), winner, bus)
    do = space.recipe(winner)
    return Delivery(model=None, model_reason="published weights are not copied." + (f" Do this: {do}" if do else ""))


def survey(judge: Judge, evaluator: Evaluator, bus: EventBus | None = None) -> list[Candidate]:
    """Judge and score every member of a space."""
    bus = bus or EventBus()
    members = list(judge.space.enumerate())
    began_s = time.monotonic()
    bus.emit(PhaseStarted("search", total=len(members), detail=f"{judge.space.name}, {len(members)} published weights"))
    verdicts: list[Verdict] = []
    with _uncollected():
        for judged in _side_by_side(judge, [members[i : i + 64] for i in range(0, len(members), 64)]):
            verdicts += judged
            bus.emit(PhaseAdvanced("search", len(verdicts)))
    bus.emit(PhaseFinished("search", time.monotonic() - began_s))
    return [Candidate(a, v, evaluator.evaluate(a)) for a, v in zip(members, verdicts, strict=True)]


def _side_by_side(judge: Judge, chunks: Sequence[list[Architecture]]) -> Iterator[list[Verdict]]:
    """Yield the verdicts of each chunk, in order; every core takes its share where processes can be forked cheaply."""
    cores = os.cpu_count() or 1
    if cores < 2 or len(chunks) < 2 or sys.platform != "linux" or "torch" in sys.modules:
        yield from map(judge.verdicts, chunks)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(cores, 8), context) as pool:
        yield from pool.map(judge.verdicts, chunks)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let graphs pile up without a search for garbage among them, which takes as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def published_front(problem: Problem) -> Fronts:
    """Return the front of the networks that stand beside every search (see `SearchSpace.stands_beside`), within its budgets."""
    if any(target.predictor is None for target in problem.targets):
        return Fronts(front=())
    request, feasible = problem.request, list[tuple[Problem, Candidate]]()
    for space in [get_space(family) for family, family_kind in spaces.items() if family_kind.stands_beside]:
        kind = evaluators.get(space.evaluator)
        judge = Judge(space, problem.goal, problem.targets, request.confidence, None, request.batch)
        beside = Problem(request, problem.targets, problem.goal, space, judge, kind)
        feasible += [(beside, c) for c in survey(judge, kind.make(beside.assignment())) if c.verdict.feasible]
    best = [feasible[i] for i in pareto_front([c.losses(problem.goal) for _, c in feasible])]
    return Fronts(front=tuple(candidate.point(beside) for beside, candidate in best))
