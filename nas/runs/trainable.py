"""How large a network may be that is trained from nothing in the time that there is: it must see every picture often enough."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import InfeasibleError
from nas.events import EventBus, Notice
from nas.results import Record
from nas.runs.directory import RunDirectory, remembered
from nas.runs.pace import EXPORT_S, SEARCHED_ALONE, Pace
from nas.runs.problem import Problem, check_feasible
from nas.searching.objective import Budget, Goal
from nas.spaces.architecture import Architecture
from nas.units import Limit, parse_duration, write_duration

if TYPE_CHECKING:
    from nas.training.supernet.train import Recipe

TRAINABLE_FILE = "trainable.json"

SEEN = 30
"""How often a network that is trained from nothing must see each picture, at least. Set by hand."""

UNLIMITED_S = 900.0
"""Seconds of such a training where no time limit is given: a quarter of an hour, as of shared weights (`nas.training.supernet.train.default_recipe`)."""

WINNERS_SHARE = 0.75
"""Of a time limit, what the better of two kinds of search has (`nas.runs.contest`): its trial, and all that comes after."""

_SAMPLED, _TIMED_STEPS = 15, 4
"""Members of which the middle one is timed, and its training steps; the first of them compile kernels and are not counted. Set by hand."""


class Trainable(Record):
    """What can be trained in a run.

    Attributes:
        macs: Of the largest network.
        why: In a line.
    """

    macs: float
    why: str


def trainable(run: RunDirectory, problem: Problem, pace: Pace, bus: EventBus) -> Problem:
    """Return a problem whose networks see every picture `SEEN` times in the time of the run: multiply-adds are bounded, once and for all in a run.

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
    found = remembered(run, TRAINABLE_FILE, Trainable, lambda: _timed(problem, pace, bus))
    budget = Budget("macs", Limit("macs", found.macs, f"{found.macs / 1e6:.4g}MMACs"))
    if any(b.name == "macs" and b.limit.value <= found.macs for b in problem.goal.budgets):
        return problem
    goal = Goal(problem.goal.objectives, (*(b for b in problem.goal.budgets if b.name != "macs"), budget))
    bounded = replace(problem, goal=goal, judge=replace(problem.judge, goal=goal))
    try:
        check_feasible(bounded)
    except InfeasibleError:
        return problem
    return bounded


def _timed(problem: Problem, pace: Pace, bus: EventBus) -> Trainable:
    from nas.training.supernet.finetune import ALONE

    dataset, recipe = problem.dataset, ALONE
    assert dataset is not None
    middle = _middle(problem)
    macs = problem.judge.verdicts([middle])[0].values["macs"]
    picture_s = _picture_s(problem, middle, recipe)
    looks = dataset.count("validation") * SEEN / 3 + 2 * dataset.count("test") / 3  # a forward run is a third of a step
    search_s, training_s = _shares(problem, pace)
    often = problem.request.finetune_epochs or SEEN
    least = problem.judge.verdicts([problem.space.extreme(False)])[0].values["macs"]  # type: ignore[attr-defined]
    most = max(training_s / (picture_s * (often * dataset.count("train") + looks)) * macs, least)
    why = (
        f"size: networks of at most {most / 1e6:.3g} M multiply-adds, "
        + ("the least that there are: " if most == least else "")
        + f"larger ones would not see each of {dataset.count('train'):,} training pictures {often} times in {write_duration(training_s)} on this machine."
    )
    bus.emit(Notice(why))
    if pace.limited:
        pace.clock.say({"search": search_s, "finetune": training_s, "export": EXPORT_S})
        bus.emit(
            Notice(
                f"forecast: {write_duration(pace.clock.left_s)} from here, by the time limit: {write_duration(search_s)} at most to order candidates without training, "
                f"the rest to train the choice, export and test it."
            )
        )
    return Trainable(macs=most, why=why)


def _shares(problem: Problem, pace: Pace) -> tuple[float, float]:
    """Return seconds of the search, and of the training of the choice; of a run that shares its time with others, as if it went on as the winner."""
    if not pace.limited or problem.request.time_limit is None:
        return 0.0, UNLIMITED_S
    whole_s = parse_duration(problem.request.time_limit)
    left_s = pace.clock.left_s if pace.clock.limit_s == whole_s else WINNERS_SHARE * whole_s
    return SEARCHED_ALONE * whole_s, left_s - SEARCHED_ALONE * whole_s - EXPORT_S


def _middle(problem: Problem) -> Architecture:
    rng = np.random.default_rng([problem.request.seed, 51])
    members = [problem.space.sample(rng) for _ in range(_SAMPLED)]
    verdicts = problem.judge.verdicts(members)
    order = sorted(range(_SAMPLED), key=lambda i: verdicts[i].values["macs"])
    return members[order[_SAMPLED // 2]]


def _picture_s(problem: Problem, member: Architecture, recipe: Recipe) -> float:
    """Return the seconds that a picture takes in a training step of a member, the least of a few steps."""
    import torch
    import torch.nn.functional as F

    from nas.training.memory import keep_freed_memory
    from nas.training.supernet.finetune import fresh
    from nas.training.supernet.train import optimizer_of

    keep_freed_memory()
    assert problem.dataset is not None
    size, device = problem.judge.verdicts([member])[0].resolution, "cuda" if torch.cuda.is_available() else "cpu"
    module = fresh(problem.space, member, num_classes=problem.dataset.num_classes, resolution=size, seed=0)
    module = module.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = min(recipe.batch, problem.dataset.count("train"))
    x = torch.zeros(batch, 3, *size, device=device).to(memory_format=torch.channels_last)
    labels, optimizer = torch.zeros(batch, dtype=torch.long, device=device), optimizer_of(recipe, [list(module.parameters()), []])
    seconds = []
    for _ in range(_TIMED_STEPS):
        began_s = time.monotonic()
        loss = F.cross_entropy(module(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for a GPU
        seconds.append(time.monotonic() - began_s)
    return min(seconds[1:]) / batch
