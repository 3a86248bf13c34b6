"""How large a network may be for the time in which it is trained, alone or after shared weights: it must see every picture often enough."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import InfeasibleError
from nas.events import EventBus, Notice
from nas.results import Record
from nas.runs.default_space import SHARE
from nas.runs.directory import RunDirectory, remembered
from nas.runs.pace import EXPORT_S, SEARCHED, SEARCHED_ALONE, SHOWN_EPOCHS, Pace
from nas.runs.problem import Problem, check_feasible
from nas.searching.objective import Budget, Goal
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.units import Limit, parse_duration, write_duration

if TYPE_CHECKING:
    from nas.training.supernet.train import Recipe

TRAINABLE_FILE = "trainable.json"

UNLIMITED_S = 900.0
"""Seconds of such a training where no time limit is given: a quarter of an hour, as of shared weights (`nas.training.supernet.train.default_recipe`)."""

ENOUGH_AFTER_SHARING = 4
"""How often a network that starts from shared weights is to see every picture. Shared scores rise with the size of the pictures, members that are fine-tuned for the
same seconds end the lower the larger it is (``experiments/031_resolution_scores``: some ten points between 128 and 288 px in one epoch or two). Set by hand, as published ones."""

_SAMPLED, _TIMED_STEPS = 15, 8
"""Members of which the middle one is timed, and its training steps; the first of them compile kernels and are not counted. Set by hand."""


_TIMED_PIXELS = 64 * 128**2
"""Of such a step, at most: with larger pictures one takes seconds, and fewer of them say as much of each. Set by hand."""


class Trainable(Record):
    """What can be trained in a run.

    Attributes:
        macs: Multiply-adds of the largest network.
    """

    macs: float


def trainable(run: RunDirectory, problem: Problem, pace: Pace, bus: EventBus) -> Problem:
    """Return a problem whose networks see every picture as often as their training wants in the time of the run: multiply-adds are bounded, once and for all in a run.

    Trained alone that is as often as its recipe says; fine-tuned from shared weights under a time limit, `ENOUGH_AFTER_SHARING` times. The smallest may be trained
    in any case, after shared weights the smallest of a few that are drawn. The problem itself where nothing is trained from nothing, where it is shared among processes, and where the bound leaves nothing that the user's
    budgets and devices allow.

    Args:
        run: Where the bound is kept.
        problem: As the user poses it.
        pace: Of the run.
        bus: Told of the bound when it is found.
    """
    if not (problem.evaluator.fresh or _tuned_in_time(problem, pace)) or problem.request.storage or problem.request.workers:
        return problem
    macs = remembered(run, TRAINABLE_FILE, Trainable, lambda: _timed(problem, pace, bus)).macs
    if any(b.name == "macs" and b.limit.value <= macs for b in problem.goal.budgets):
        return problem
    budget = Budget("macs", Limit("macs", macs, f"{macs / 1e6:.4g}MMACs"))
    goal = Goal(problem.goal.objectives, (*(b for b in problem.goal.budgets if b.name != "macs"), budget))
    bounded = replace(problem, goal=goal, judge=replace(problem.judge, goal=goal))
    try:
        check_feasible(bounded)
    except InfeasibleError:
        bus.emit(
            Notice(
                f"size: nothing of at most {budget.limit.text} is within the budgets, so larger networks are searched, which see the pictures less often."
            )
        )
        return problem
    return bounded


def _tuned_in_time(problem: Problem, pace: Pace) -> bool:
    """Return whether the choice is fine-tuned, from shared weights that began at nothing, for what is left of a time limit."""
    space = problem.space.plain if isinstance(problem.space, ElasticSpace) else None
    trains = "supernet" in problem.evaluator.needs and problem.dataset is not None
    return pace.limited and trains and space is not None and not isinstance(space, ChainSpace)


def _recipe(problem: Problem) -> Recipe:
    """Return how a network is trained, with as many epochs as it is to have at least."""
    from nas.training.supernet.finetune import FINETUNING, alone_recipe

    assert problem.dataset is not None
    recipe = alone_recipe(problem.space, problem.dataset) if problem.evaluator.fresh else replace(FINETUNING, epochs=ENOUGH_AFTER_SHARING)
    often = problem.request.finetune_epochs or (recipe.epochs if problem.request.data else min(recipe.epochs, SHOWN_EPOCHS))
    return replace(recipe, epochs=often)


def _timed(problem: Problem, pace: Pace, bus: EventBus) -> Trainable:
    """Time a few steps; return the bound, after saying it and what the run will take."""
    from nas.training.recipe import compose

    dataset, drawn, recipe = problem.dataset, _drawn(problem), _recipe(problem)
    assert dataset is not None
    timed, middle = drawn[len(drawn) // 2]
    search_s, training_s = _shares(problem, pace)
    often = recipe.epochs
    looks = (dataset.count("validation") * often + 2 * dataset.count("test")) / 3  # a forward run is a third of a step
    steps_of = often * dataset.count("train") * compose(recipe.methods).pictures.cost + looks
    smallest = problem.judge.verdicts([problem.space.extreme(False)])[0].values["macs"]  # type: ignore[attr-defined]
    least = smallest if problem.evaluator.fresh else max(smallest, drawn[0][0])  # shared weights have something to choose from
    second_macs = timed / _picture_s(problem, middle, recipe)
    macs = max(training_s * second_macs / steps_of, least)
    small = "which only the smallest have: " if macs == least else ""
    bus.emit(
        Notice(
            f"size: networks of at most {macs / 1e6:.3g} M multiply-adds, {small}larger ones would not see each of {dataset.count('train'):,} "
            f"training pictures {often} times in {write_duration(training_s)} on this machine."
        )
    )
    if not problem.evaluator.fresh:  # the training of shared weights says its own forecast
        return Trainable(macs=macs)
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
    limit_s = pace.clock.limit_s
    if limit_s is None or problem.request.time_limit is None:
        return 0.0, UNLIMITED_S
    whole_s = parse_duration(problem.request.time_limit)
    left_s = pace.clock.left_s if limit_s == whole_s else (1 - SHARE) * whole_s
    search_s = SEARCHED_ALONE * whole_s if problem.evaluator.fresh else SEARCHED * limit_s
    return search_s, max(left_s - search_s - EXPORT_S, 1.0)


def _drawn(problem: Problem) -> list[tuple[float, Architecture]]:
    """Return a few members with their multiply-adds, the smallest first."""
    rng = np.random.default_rng([problem.request.seed, 51])
    members = [problem.space.sample(rng) for _ in range(_SAMPLED)]
    priced = [(verdict.values["macs"], member) for verdict, member in zip(problem.judge.verdicts(members), members, strict=True)]
    return sorted(priced, key=lambda one: one[0])


def _picture_s(problem: Problem, member: Architecture, recipe: Recipe) -> float:
    """Return the seconds that a picture takes in a training step of a member, the median of a few steps with the quickest number of threads."""
    import torch
    import torch.nn.functional as F

    from nas.training.memory import keep_freed_memory
    from nas.training.supernet.finetune import fresh
    from nas.training.supernet.train import optimizer_of
    from nas.training.threads import kept_threads, quickest_threads

    keep_freed_memory()
    assert problem.dataset is not None
    size, device = problem.judge.verdicts([member])[0].resolution, "cuda" if torch.cuda.is_available() else "cpu"
    module = fresh(problem.space, member, num_classes=problem.dataset.num_classes, resolution=size, seed=0)
    module = module.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = min(recipe.batch, problem.dataset.count("train"), max(1, _TIMED_PIXELS // (size[0] * size[1])))
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
