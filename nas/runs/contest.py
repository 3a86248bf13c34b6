"""Kinds of search that share one time limit: each tried for equal minutes, the worse half left behind, the last one given all that is left.

    zoo ─▶ tried ─┐
    chain ─▶ tried ┼─▶ validation ─▶ the better half ─▶ … ─▶ the winner's run is the run
    hybrid ─▶ tried ┘

A kind works in a run directory of its own, ``kinds/NAME``. The winner's files move up, its manifest last: from then on the run is one of that kind, which goes on where
its trial ended, and is resumed, shown and exported like any other.

Source:
    Successive halving: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", arXiv 1502.07943. Differs: a share of the
    limit (`TRIED`) is for trials, the rest for the winner.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from pydantic import Field

from nas.errors import ArtifactError, GraphError, InfeasibleError, NasError, TrainingError, UsageError
from nas.events import Event, EventBus, Notice
from nas.report.results import with_interval
from nas.results import Contender, Record, Result
from nas.runs.choice import LEADER, mcnemar_p
from nas.runs.clock import CLOCK_FILE, clocked
from nas.runs.default_space import Kind, Space
from nas.runs.directory import CONTEST_FILE, RunDirectory
from nas.runs.pace import EXPORT_S
from nas.runs.problem import Problem, make_problem
from nas.runs.trained_search import try_study
from nas.runs.transfer_search import try_published
from nas.units import parse_duration, write_duration

KINDS = "kinds"

TRIED = 0.5
"""Share of the time limit that trials take together: of two kinds one wins, so that a quarter of the limit is lost on the other. Set by hand."""

_OWN = {"lock", "owner", "status.json", "manifest.json", CLOCK_FILE}
"""Files of a kind's directory that say nothing of the run that it becomes; the manifest is moved last."""


class Standing(Record):
    """What a kind is worth after a trial.

    Attributes:
        right: A ``1`` for each compared validation picture whose class its best network names, else a ``0``; the same pictures for every kind.
        networks: Its own, as the result's table has them.
        fault: Why it was given up; empty where it was not.
    """

    right: str = ""
    networks: tuple[Contender, ...] = ()
    fault: str = ""

    @property
    def accuracy_pct(self) -> float:
        """On the compared pictures."""
        return 100 * self.right.count("1") / max(len(self.right), 1)


class Arm(Protocol):
    """A kind of search that is tried.

    Attributes:
        name: Of its space.
    """

    name: Space

    def advance(self, rung: int, until_s: float) -> Standing:
        """Work until its own clock, which outlasts the process, shows so many seconds; return what it is worth then.

        Args:
            rung: Number of the trial; all before it are done.
            until_s: Those of earlier trials included.

        Raises:
            NasError: It cannot go on, say since nothing of it is within the budgets.
        """


class Contest(Record):
    """What a run that shares its time among kinds has found out so far.

    Attributes:
        kinds: That are tried, the most promising first.
        standings: By ``name/rung``.
        winner: None while there is none.
        why: In words.
    """

    kinds: tuple[Kind, ...]
    standings: dict[str, Standing] = Field(default_factory=dict)
    winner: Space | None = None
    why: str = ""

    @property
    def networks(self) -> tuple[Contender, ...]:
        """Every kind's networks, as they were when it was last looked at."""
        last = {key.rpartition("/")[0]: standing.networks for key, standing in self.standings.items() if not standing.fault}
        return tuple(row for kind in self.kinds for row in last.get(kind.space, ()))


def share(arms: Sequence[Arm], limit_s: float, contest: Contest, save: Callable[[Contest], None], bus: EventBus) -> Contest:
    """Try arms by successive halving, each trial as long for every arm that is left; return the contest with its winner.

    Args:
        arms: The most promising first: ties are broken in their favour.
        limit_s: Of the whole run.
        contest: What earlier sessions found out.
        save: Keeps it, after every trial.
        bus: Told how each trial ended.

    Raises:
        NasError: No arm can be tried.
    """
    rungs, alive, granted_s = max(1, math.ceil(math.log2(len(arms)))), list(arms), 0.0
    fault: NasError | None = None
    for rung in range(rungs):
        granted_s += TRIED * limit_s / (rungs * len(alive))
        for arm in list(alive):
            key = f"{arm.name}/{rung}"
            if key not in contest.standings:
                try:
                    standing = arm.advance(rung, granted_s)
                except (InfeasibleError, TrainingError, UsageError) as error:
                    fault, standing = error, Standing(fault=str(error))
                    bus.emit(Notice(f"kind {arm.name}: given up: {error}"))
                contest = contest.model_copy(update={"standings": {**contest.standings, key: standing}})
                save(contest)
            if contest.standings[key].fault:
                alive.remove(arm)
        alive.sort(key=lambda arm: -contest.standings[f"{arm.name}/{rung}"].accuracy_pct)  # stable: the order given breaks ties
        if not alive:
            raise fault or TrainingError(next(s.fault for s in reversed(contest.standings.values()) if s.fault))
        why = _line(alive, contest, rung, granted_s)
        bus.emit(Notice(why))
        alive = alive[: 1 if rung == rungs - 1 else math.ceil(len(alive) / 2)]
        if len(alive) == 1:
            break
    contest = contest.model_copy(update={"winner": alive[0].name, "why": why})
    save(contest)
    return contest


def _line(arms: Sequence[Arm], contest: Contest, rung: int, granted_s: float) -> str:
    """Return how arms stand after a trial, the best first."""
    standings = [contest.standings[f"{arm.name}/{rung}"] for arm in arms]
    shown = ", ".join(f"{arm.name} {with_interval(s.accuracy_pct, len(s.right))} %" for arm, s in zip(arms, standings, strict=True))
    if len(arms) == 1:
        return f"kinds: {shown} on {len(standings[0].right)} validation pictures after {write_duration(granted_s)}; no other could be tried"
    p_value = mcnemar_p(*(np.array([mark == "1" for mark in s.right]) for s in standings[:2]))
    return (
        f"kinds: {shown} on {len(standings[0].right)} validation pictures after {write_duration(granted_s)} each "
        f"(McNemar p = {p_value:.2g} between the first two)"
    )


def open_contest(run: RunDirectory, kinds: Sequence[Kind]) -> None:
    """Note in a new run that it shares its time among kinds."""
    run.write(CONTEST_FILE, Contest(kinds=tuple(kinds)).dump())


def settled(run: RunDirectory, problem: Problem, bus: EventBus) -> Problem:
    """Return the problem of the kind that a run takes, tried first where that is not done; `problem` itself where there is one kind alone.

    Raises:
        NasError: No kind can be tried, or what went wrong; `nas resume` goes on from there.
    """
    contest = run.load(CONTEST_FILE, Contest)
    if contest is None:
        return problem
    if contest.winner is None:
        contest = _tried(run, problem, contest, bus)
    kind = next((kind for kind in contest.kinds if kind.space == contest.winner), None)
    if kind is None:
        raise ArtifactError(f"run {run.path}: {CONTEST_FILE} is damaged, got the winner {contest.winner!r}. Expected one of its kinds.")
    own = RunDirectory(run.path / KINDS / kind.space)
    if (own.path / "manifest.json").is_file():  # else it has moved already
        for path in sorted(own.path.iterdir()):
            if path.name not in _OWN:
                os.replace(path, run.path / path.name)
        os.replace(own.path / "manifest.json", run.path / "manifest.json")
    return _of_kind(problem, kind)


def _tried(run: RunDirectory, problem: Problem, contest: Contest, bus: EventBus) -> Contest:
    limit_s = parse_duration(problem.request.time_limit or "")
    names = ", ".join(kind.space for kind in contest.kinds)
    with clocked(run, limit_s, bus) as clock:
        clock.say({"race": TRIED * limit_s, "finetune": max(clock.left_s - TRIED * limit_s - EXPORT_S, 0.0), "export": EXPORT_S})
        bus.emit(
            Notice(
                f"forecast: {write_duration(limit_s)} by the time limit: {write_duration(TRIED * limit_s)} to try {names} for equal minutes, "
                "the rest for the winner, its export and its test."
            )
        )
        arms = [_Tried(run, problem, kind, bus) for kind in contest.kinds]
        try:
            return share(arms, limit_s, contest, lambda now: run.write(CONTEST_FILE, now.dump()), bus)
        except InfeasibleError:
            shutil.rmtree(run.path / KINDS, ignore_errors=True)  # nothing was found out
            (run.path / CONTEST_FILE).unlink(missing_ok=True)
            raise


def _of_kind(problem: Problem, kind: Kind) -> Problem:
    request = problem.request.model_copy(update={"space": kind.space, "anchors": kind.anchors})
    return problem if request == problem.request else make_problem(request, decoder=problem.dataset.decoder if problem.dataset else None)


class _Tried:
    """A kind of a run, which works in a directory of its own.

    Args:
        run: That shares its time.
        problem: Of the first kind.
        kind: This one.
        bus: Told of the progress; what a person should know is said with the kind's name.
    """

    def __init__(self, run: RunDirectory, problem: Problem, kind: Kind, bus: EventBus) -> None:
        self.name, self._run, self._first, self._kind, self._bus = kind.space, run, problem, kind, bus

    def advance(self, rung: int, until_s: float) -> Standing:
        """See `Arm.advance`."""
        path, problem = self._run.path / KINDS / self.name, self._problem
        if not (path / "manifest.json").is_file():
            shutil.rmtree(path, ignore_errors=True)
            facts = self._run.manifest.facts | {"the space": f"{problem.space.name} version {problem.space.version}"}
            RunDirectory.create(path, self.name, problem.request.model_dump(), facts)
        run, bus = RunDirectory(path), EventBus([self._hand_on])
        trial = try_published if problem.evaluator.transfers else try_study
        right, rows = trial(run, problem, bus, rung, until_s)
        return Standing(
            right="".join("1" if one else "0" for one in right), networks=tuple(r.model_copy(update={"kind": self.name}) for r in rows)
        )

    @cached_property
    def _problem(self) -> Problem:
        try:
            return _of_kind(self._first, self._kind)
        except (ArtifactError, GraphError) as error:  # its weights or networks cannot be used; other kinds need others
            raise UsageError(str(error)) from error

    def _hand_on(self, event: Event) -> None:
        if not isinstance(event, Notice):
            self._bus.emit(event)
        elif not event.text.startswith("forecast: "):  # of a search that has all the time
            self._bus.emit(Notice(f"{self.name}: {event.text}"))


def with_all_kinds(run: RunDirectory, result: Result) -> Result:
    """Return a result whose table has the networks of every kind that was tried; itself where one kind had all the time."""
    contest = run.load(CONTEST_FILE, Contest)
    if contest is None or contest.winner is None or result.chosen is None:
        return result
    chosen, own = result.chosen, {row.key: row.model_copy(update={"kind": contest.winner}) for row in result.contenders}
    rows = []
    for row in contest.networks:
        if row.kind == contest.winner:
            row = own.pop(row.key, row)
            if row.key == chosen.key and not result.contenders:
                scores = {
                    "validation_accuracy_pct": chosen.validation_accuracy_pct,
                    "accuracy_pct": chosen.accuracy_pct,
                    "outcome": "chosen",
                }
                row = row.model_copy(update=scores)
        elif row.outcome.startswith(LEADER):
            row = row.model_copy(update={"outcome": f"left behind with {row.kind}"})
        rows.append(row)
    first = next((i for i, row in enumerate(rows) if row.kind == contest.winner), 0)
    rows[first:first] = own.values()
    return result.model_copy(update={"contenders": tuple(rows), "why": f"{result.why}. {contest.why}"})
