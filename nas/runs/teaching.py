"""The published network that a network from nothing learns from: looked for among the weights at hand, probed, asked once about every training picture."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError, UsageError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Record
from nas.runs.default_space import PUBLISHED
from nas.runs.directory import RunDirectory, remembered
from nas.runs.pace import Pace
from nas.runs.problem import Problem
from nas.runs.transfer_candidates import PROBE_SHARE, first_sizes
from nas.spaces.chain import ChainSpace
from nas.spaces.space import SearchSpace, spaces
from nas.units import write_duration, write_resolution

if TYPE_CHECKING:
    from nas.spaces.architecture import Architecture
    from nas.training.evaluator import Evaluator
    from nas.training.evaluators.probe import ProbeEvaluator
    from nas.training.supernet.teacher import Teacher

TEACHER_FILE, _SCORES = "teacher.json", "teacher.npy"


class Lesson(Record):
    """Who teaches a run's choice.

    Attributes:
        network: Its name and size; empty where nobody does.
        why: In a line.
    """

    network: str = ""
    why: str = ""


def teacher_of(run: RunDirectory, problem: Problem, evaluator: Evaluator, pupil: Architecture, pace: Pace, bus: EventBus) -> Teacher | None:
    """Return the published network whose scores a choice learns from; None where there is none, or where it is no better than the choice's shared weights.

    Decided once in a run. Only a search that names a folder of weights, ``--weights-dir``, has one: in a short fine-tuning it gained
    nothing (``experiments/021_own_pictures``, teachers.py), so that it is no default.
    Spaces of trained networks start from their weights instead.

    Args:
        run: Where the scores are kept.
        problem: Of the run.
        evaluator: Has the shared weights.
        pupil: The choice.
        pace: Of the run: probes have a share of its limit.
        bus: Told of the progress.

    Raises:
        UsageError: No such folder of weights.
        ArtifactError: There are no weights, or the scores that were kept are damaged.
    """
    from nas.training.supernet.teacher import Teacher

    if not _learns(problem):
        return None
    lesson = remembered(run, TEACHER_FILE, Lesson, lambda: _lesson(run, problem, evaluator, pupil, pace, bus))
    return Teacher.of(lesson.network, _read(run, problem)) if lesson.network else None


def check_teachers(problem: Problem) -> None:
    """Look for teachers before anything is trained.

    Raises:
        UsageError: No such folder of weights.
        ArtifactError: There are none in it, nor elsewhere on this machine.
    """
    if _learns(problem):
        _teachers(problem)


def _learns(problem: Problem) -> bool:
    request = problem.request
    from_nothing = "supernet" in problem.evaluator.needs and not isinstance(problem.space, ChainSpace)
    return bool(from_nothing and request.data and request.weights_dir and PUBLISHED in spaces.names())


def _teachers(problem: Problem) -> SearchSpace:
    assert problem.dataset is not None
    return spaces.get(PUBLISHED).make("", num_classes=problem.dataset.num_classes, weights_dir=problem.request.weights_dir)


def _read(run: RunDirectory, problem: Problem) -> npt.NDArray[np.float32]:
    """Return the scores that an earlier session took.

    Raises:
        ArtifactError: They are gone, damaged, or of other pictures.
    """
    assert problem.dataset is not None
    expected = problem.dataset.count("train"), problem.dataset.num_classes
    try:
        scores = np.load(run.path / _SCORES, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        scores = np.empty(0)
        fault = type(error).__name__
    else:
        fault = f"an array of {scores.shape}"
    if scores.shape != expected or scores.dtype != np.float32 or not np.isfinite(scores).all():
        raise ArtifactError(
            f"run {run.path}: {_SCORES} is damaged, got {fault}. Expected finite float32 of {expected}. Do this: remove {TEACHER_FILE}, and resume."
        )
    return np.asarray(scores, dtype=np.float32)


def _lesson(run: RunDirectory, problem: Problem, evaluator: Evaluator, pupil: Architecture, pace: Pace, bus: EventBus) -> Lesson:
    from nas.training.evaluators.probe import ProbeEvaluator

    assert problem.dataset is not None
    space = _teachers(problem)
    began_s, networks = time.monotonic(), [str(name) for name in space.choices[0].values]
    bus.emit(PhaseStarted("teach", len(networks) + 1, detail=f"a teacher among {len(networks)} networks with weights at hand"))
    probes = ProbeEvaluator(space, problem.dataset)  # type: ignore[arg-type]
    ranking = sorted(_probes(probes, networks, pace, bus), key=lambda one: -one[0])
    right = evaluator.right(pupil)
    own_pct = 0.0 if right is None else 100 * float(right.mean())
    most_s = math.inf if pace.clock.limit_s is None else PROBE_SHARE * pace.clock.limit_s
    lesson = _lesson_of(run, probes, ranking[0], own_pct, most_s) if ranking else Lesson(why="no published weights fit")
    bus.emit(PhaseFinished("teach", time.monotonic() - began_s))
    bus.emit(Notice(f"teacher: {lesson.network or 'none'}, since {lesson.why}."))
    return lesson


def _probes(probes: ProbeEvaluator, networks: list[str], pace: Pace, bus: EventBus) -> Iterator[tuple[float, Architecture]]:
    """Yield the accuracy of each network's probe at about half its own size, as long as there is time."""
    limit_s, until_s = pace.clock.limit_s, pace.clock.spent_s
    for i, network in enumerate(networks):
        if i and limit_s is not None and pace.clock.spent_s > until_s + PROBE_SHARE * limit_s:
            return
        member = first_sizes(probes.space, network)[-1]  # type: ignore[arg-type]
        try:
            accuracy_pct = probes.probe(member).accuracy_pct
        except (ArtifactError, UsageError) as error:  # weights that do not fit; a network that takes no other classes
            bus.emit(Notice(f"teacher: left out: {error}"))
            continue
        bus.emit(PhaseAdvanced("teach", i + 1, {"probe_pct": accuracy_pct}))
        yield accuracy_pct, member


def _lesson_of(run: RunDirectory, probes: ProbeEvaluator, best: tuple[float, Architecture], own_pct: float, most_s: float) -> Lesson:
    """Take a network's scores of the training pictures, where its probe is better than the pupil is without it and that does not take too long."""
    from nas.training.transfer.probe import scores_of

    accuracy_pct, member = best
    pictures = probes.dataset.count("train")
    takes_s = probes.probe(member).seconds / probes.looks * pictures
    size = probes.space.size_of(member)
    name = f"{member.genes[0]} at {write_resolution(size)} px"
    compared = f"its probe names {accuracy_pct:.1f} % of validation and the choice with shared weights {own_pct:.1f} %"
    if accuracy_pct <= own_pct:
        return Lesson(why=f"{name} is no better: {compared}")
    if takes_s > most_s:
        return Lesson(why=f"{name} would take {write_duration(takes_s)} to look at {pictures:,} training pictures")
    scores = scores_of(probes.module(member, size), probes.pictures_of(member), size, probes.device)
    part = run.path / f".{_SCORES}.part"
    with part.open("wb") as file:
        np.save(file, scores.numpy())
    part.replace(run.path / _SCORES)
    return Lesson(network=name, why=compared)
