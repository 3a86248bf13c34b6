"""How large a network may be that is trained from nothing in the time that there is: it must see every picture often enough."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from nas.errors import InfeasibleError
from nas.events import EventBus, Notice
from nas.results import Record
from nas.runs.default_space import SHARE
from nas.runs.directory import RunDirectory, remembered
from nas.runs.pace import EXPORT_S, SEARCHED_ALONE, SHOWN_EPOCHS, Pace
from nas.runs.problem import Problem, check_feasible
from nas.searching.objective import Budget, Goal
from nas.spaces.architecture import Architecture
from nas.units import Limit, parse_duration, write_duration

TRAINABLE_FILE = "trainable.json"

UNLIMITED_S = 900.0
"""Seconds of such a training where no time limit is given: a quarter of an hour, as of shared weights (`nas.training.supernet.train.default_recipe`)."""

_SAMPLED, _TIMED_STEPS = 15, 8
"""Members of which the middle one is timed, and its training steps; the first of them compile kernels and are not counted. Set by hand."""


class Trainable(Record):
    """What can be trained in a run.

    Attributes:
        macs: Multiply-adds of the largest network.
    """

    macs: float


def trainable(run: RunDirectory, problem: Problem, pace: Pace, bus: EventBus) -> Problem:
    """Return a problem whose networks see every picture as often as the recipe of such a training wants in the time of the run: multiply-adds are bounded, once and for all in a run.

    The smallest may be trained in any case. The problem itself where shared weights are trained, where it is shared among processes, and where the bound
    leaves nothing that the user's budgets and devices allow.

    Args:
        run: Where the bound is kept.
        problem: As the user poses it.
        pace: Of the run.
        bus: Told of the bound when it is found.
    """
    if not problem.evaluator.fresh or problem.request.storage or problem.request.workers:
        return problem
    macs = remembered(run, TRAINABLE_FILE, Trainable, lambda: _timed(problem, pace, bus)).macs
    if (bounded := _bounded(problem, macs)) is None:
        bus.emit(
            Notice(
                f"size: nothing of at most {_text(macs)} is within the budgets, so larger networks are searched, which see the pictures less often."
            )
        )
    return bounded or problem


def as_searched(run: RunDirectory, problem: Problem) -> Problem:
    """Return a run's problem as its study has it: bounded where `trainable` bounded it, else itself."""
    found = run.load(TRAINABLE_FILE, Trainable)
    return (found and _bounded(problem, found.macs)) or problem


def _bounded(problem: Problem, macs: float) -> Problem | None:
    """Return a problem whose networks have so many multiply-adds at most, itself where its budgets say so; None where nothing would be left."""
    if any(b.name == "macs" and b.limit.value <= macs for b in problem.goal.budgets):
        return problem
    budget = Budget("macs", Limit("macs", macs, _text(macs)))
    goal = Goal(problem.goal.objectives, (*(b for b in problem.goal.budgets if b.name != "macs"), budget))
    bounded = replace(problem, goal=goal, judge=replace(problem.judge, goal=goal))
    try:
        check_feasible(bounded)
    except InfeasibleError:
        return None
    return bounded


def _text(macs: float) -> str:
    return f"{macs / 1e6:.4g}MMACs"


def _timed(problem: Problem, pace: Pace, bus: EventBus) -> Trainable:
    """Time a few steps; return the bound, after saying it and what the run will take."""
    from nas.training.recipe import compose
    from nas.training.supernet.finetune import alone_recipe

    dataset, middle = problem.dataset, _middle(problem)
    assert dataset is not None
    recipe = alone_recipe(problem.space, dataset)
    search_s, training_s = _shares(problem, pace)
    often = problem.request.finetune_epochs or (recipe.epochs if problem.request.data else SHOWN_EPOCHS)
    looks = (dataset.count("validation") * often + 2 * dataset.count("test")) / 3  # a forward run is a third of a step
    steps_of = often * dataset.count("train") * compose(recipe.methods).pictures.cost + looks
    smallest, timed = (v.values["macs"] for v in problem.judge.verdicts([problem.space.extreme(False), middle]))  # type: ignore[attr-defined]
    second_macs = timed / _picture_s(problem, middle)
    macs = max(training_s * second_macs / steps_of, smallest)
    least = "the least that there are: " if macs == smallest else ""
    bus.emit(
        Notice(
            f"size: networks of at most {macs / 1e6:.3g} M multiply-adds, {least}larger ones would not see each of {dataset.count('train'):,} "
            f"training pictures {often} times in {write_duration(training_s)} on this machine."
        )
    )
    if pace.limited:
        pace.clock.say({"search": search_s, "finetune": training_s, "export": EXPORT_S})
        words = f"by the time limit: {write_duration(search_s)} at most to order candidates without training, the rest to train the choice, export and test it."
        bus.emit(Notice(f"forecast: {write_duration(pace.clock.left_s)} from here, {words}"))
    else:
        most_s = macs * steps_of / second_macs
        words = "Candidates are ordered without training before, its export and test come on top. Do this for less: --time-limit."
        bus.emit(Notice(f"forecast: {write_duration(most_s)} at most on this machine to train the choice. {words}"))
    return Trainable(macs=macs)


def _shares(problem: Problem, pace: Pace) -> tuple[float, float]:
    """Return seconds of the search, and of the training of the choice; of a run that shares its time with others, as if it went on as the winner."""
    if not pace.limited or problem.request.time_limit is None:
        return 0.0, UNLIMITED_S
    whole_s = parse_duration(problem.request.time_limit)
    left_s = pace.clock.left_s if pace.clock.limit_s == whole_s else (1 - SHARE) * whole_s
    search_s = SEARCHED_ALONE * whole_s
    return search_s, max(left_s - search_s - EXPORT_S, 1.0)


def _middle(problem: Problem) -> Architecture:
    rng = np.random.default_rng([problem.request.seed, 51])
    members = [problem.space.sample(rng) for _ in range(_SAMPLED)]
    verdicts = problem.judge.verdicts(members)
    order = sorted(range(_SAMPLED), key=lambda i: verdicts[i].values["macs"])
    return members[order[_SAMPLED // 2]]


def _picture_s(problem: Problem, member: Architecture) -> float:
    """Return the seconds that a picture takes in a training step of a member, the median of a few steps with the quickest number of threads."""
    import torch
    import torch.nn.functional as F

    from nas.training.memory import keep_freed_memory
    from nas.training.supernet.finetune import alone_recipe, fresh
    from nas.training.supernet.train import optimizer_of
    from nas.training.threads import kept_threads, quickest_threads

    keep_freed_memory()
    assert problem.dataset is not None
    size, device = problem.judge.verdicts([member])[0].resolution, "cuda" if torch.cuda.is_available() else "cpu"
    module = fresh(problem.space, member, num_classes=problem.dataset.num_classes, resolution=size, seed=0)
    module = module.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    recipe = alone_recipe(problem.space, problem.dataset)
    batch = min(recipe.batch, problem.dataset.count("train"))
    x = torch.zeros(batch, 3, *size, device=device).to(memory_format=torch.channels_last)
    labels, optimizer = torch.zeros(batch, dtype=torch.long, device=device), optimizer_of(recipe, [list(module.parameters()), []])

    def step() -> None:
        loss = F.cross_entropy(module(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for a GPU

    seconds = []
    with kept_threads():
        if device == "cpu":
            torch.set_num_threads(quickest_threads(step))
        for _ in range(_TIMED_STEPS):
            began_s = time.monotonic()
            step()
            seconds.append(time.monotonic() - began_s)
    return float(np.median(seconds[1:])) / batch
