"""A chain against its own anchors: whichever is better after a short fine-tuning is handed over.

A search scores candidates before they are fine-tuned. An anchor by itself, shown pictures so small that it is within the budgets, may lose there and win once both
have learned: so the choice and each such anchor are fine-tuned for a share of the epochs, and compared on validation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nas.events import EventBus, Notice
from nas.results import Compared
from nas.runs.choice import Correct, Decision, bounds_latency, choose
from nas.runs.delivery import TRIED_FILE, recipe_of, reserve_s_of
from nas.runs.directory import RunDirectory
from nas.runs.pace import Pace
from nas.runs.problem import Problem
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.training.evaluator import Evaluator

RACED_FILES = "raced-*.safetensors"
"""Of the contestants, until one is decided on."""

SHARE = 0.2
"""Of the choice's fine-tuning, that each contestant is given first. Set by hand."""


def raced(run: RunDirectory, problem: Problem, evaluator: Evaluator, decision: Decision, pace: Pace, bus: EventBus) -> Decision:
    """Return the decision for the choice, or for an anchor by itself that is better than it once both have been fine-tuned for a while.

    The winner's weights are kept: `nas.runs.delivery.deliver` goes on from them. Where the time limit leaves none for that, all are compared as the search
    scored them. In other spaces than those of trained networks nothing is done.

    Args:
        run: Where weights are kept.
        problem: Of the run.
        evaluator: Has the weights.
        decision: By the scores of the search.
        pace: Of the run.
        bus: Told of the progress.
    """
    choice = Architecture(problem.space.name, problem.space.version, decision.genes)
    contestants = [choice, *(member for member in anchors_within(problem) if member != choice)]
    module = evaluator.module(choice, problem.judge.verdicts([choice])[0].resolution)
    if len(contestants) == 1 or problem.dataset is None or module is None:
        return decision
    late = pace.limited and pace.clock.left_s <= reserve_s_of(problem, problem.dataset, module, choice)
    if late:
        right, when = [row for member in contestants if (row := evaluator.right(member)) is not None], "as the time limit leaves them"
    else:
        tuned = list(_tuned(run, problem, evaluator, contestants, pace, bus))
        right, when = [row for row, _ in tuned], "after a short fine-tuning"
    if len(right) < len(contestants):
        return decision
    speeds = [problem.judge.verdicts([member])[0].values[f"latency_ms/{problem.device}"] for member in contestants]
    winner, _, _ = choose(speeds, right, budgeted=bounds_latency(problem))
    if not late:
        shutil.copy(tuned[winner][1], run.path / TRIED_FILE.format(0))
    shown = ", ".join(f"{100 * row.mean():.2f} % for {_named(problem, m)}" for m, row in zip(contestants, right, strict=True))
    bus.emit(Notice(f"anchors: {when}, on validation: {shown}."))
    why = f"{decision.why}; beside the anchors that are within the budgets, {when}: {shown}"
    if winner == 0:
        return decision.model_copy(update={"why": why})
    compared = [
        Compared(key=contestants[i].key, supernet_accuracy_pct=evaluator.evaluate(contestants[i]).accuracy_pct) for i in (winner, 0)
    ]
    return decision.model_copy(update={"genes": contestants[winner].genes, "why": why, "compared": tuple(compared)})


def anchors_within(problem: Problem) -> Iterator[Architecture]:
    """Yield each anchor by itself at the largest size at which it is within the budgets, as precise as that allows."""
    if not isinstance(problem.space, ElasticSpace) or not isinstance(plain := problem.space.plain, ChainSpace):
        return
    for chain in plain.anchors:
        sizes = (plain.member(chain.name, str(size)) for size in plain.choices[0].values)
        members = (variant for member in sizes for variant in _at_precisions(problem.space, member))
        fitting = next((member for member in members if problem.judge.verdicts([member])[0].feasible), None)
        if fitting is not None:
            yield fitting


def _at_precisions(space: ElasticSpace, member: Architecture) -> Sequence[Architecture]:
    precisions: Sequence[str] = getattr(space, "precisions", ())
    return [space.with_precision(member, precision) for precision in precisions] if precisions else [member]  # type: ignore[attr-defined]


def _tuned(
    run: RunDirectory, problem: Problem, evaluator: Evaluator, contestants: Sequence[Architecture], pace: Pace, bus: EventBus
) -> Iterator[tuple[Correct, Path]]:
    """Fine-tune contestants one after another; yield which validation pictures each names rightly, and its file."""
    from nas.training.supernet.finetune import finetune

    dataset = problem.dataset
    assert dataset is not None
    for i, member in enumerate(contestants):
        size = problem.judge.verdicts([member])[0].resolution
        module = evaluator.module(member, size)
        recipe = recipe_of(problem, dataset, member, pace)
        recipe = replace(recipe, epochs=max(1, round(SHARE * recipe.epochs)))
        left_s = None
        if pace.limited:
            share = SHARE / (1 - SHARE * i / len(contestants)) / len(contestants)  # of what is left now; each has the same time
            until_s = pace.clock.spent_s + share * (pace.clock.left_s - reserve_s_of(problem, dataset, module, member))
            left_s = partial(_left_s, pace, until_s)
        path = run.path / RACED_FILES.replace("*", member.key)
        device = str(next(module.parameters()).device)
        bus.emit(Notice(f"anchors: {_named(problem, member)} is fine-tuned for a while."))
        done = finetune(
            module,
            member,
            dataset,
            path,
            recipe,
            resolution=size,
            seed=problem.request.seed,
            bus=bus,
            device=device,
            left_s=left_s,
            keep_start=True,
        )
        yield np.asarray(done.right), path


def _left_s(pace: Pace, until_s: float) -> float:
    return until_s - pace.clock.spent_s


def _named(problem: Problem, member: Architecture) -> str:
    return f"{problem.space.facts(member).get('chain', member.key)} at {problem.judge.verdicts([member])[0].resolution[0]} px"
