"""Published networks on the user's pictures: priced, probed while frozen, fine-tuned one against the other, the winner fully, then handed over.

    price ─▶ probe (network × size) ─▶ time (--verify) ─▶ successive halving ─▶ the winner to its end ─▶ export, reload, test
                     │                                                                 │
                     └──────── kept: shipped where fine-tuning ◀───────────────────────┘ does not beat it

Each step keeps its outcome in the run directory; a run that was killed loses the last half minute of a training, or one probe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas.errors import TrainingError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Contender, Point, Result
from nas.runs.choice import LEADER, LEVEL, bounds_latency, choose
from nas.runs.clock import Clock, clocked
from nas.runs.delivery import (
    MEMBER_FILE,
    NOTHING_WITHIN,
    Delivery,
    Finalists,
    deliver_tuned,
    handed_over,
    revision_before_race,
    revision_of,
)
from nas.runs.directory import RunDirectory
from nas.runs.facts import as_expected
from nas.runs.problem import Problem
from nas.runs.transfer_candidates import Candidate, Candidates
from nas.runs.transfer_times import ENOUGH_ALONE, ENOUGH_EPOCHS, Times
from nas.searching.pareto import front as pareto_front
from nas.training.memory import keep_freed_memory
from nas.units import parse_duration, write_duration, write_resolution

if TYPE_CHECKING:
    from nas.training.dataset import Dataset
    from nas.training.evaluators.probe import ProbeEvaluator
    from nas.training.transfer.tuning import Tuning

Right = npt.NDArray[np.bool_]
Report = Callable[[int, Mapping[str, float]], None]

CONTESTANTS = 4  # by hand: two halvings
_CONTESTANTS, _RACE = "contestants.json", "race.json"
_SIZES_EACH = 2
"""Sizes of one network among the contestants, at most. Set by hand."""

_LEAST_EPOCHS, _LEAST_ALONE = 1.5, 0.3
"""How often, times the number of contestants, each of them must see every picture in the time that is left in any case; where none could alone, the quickest
is fine-tuned from the latter. Set by hand."""

_OVER = "over a budget by the timings"

_EVERY_S = 1.0
"""Seconds between two events of a training: each writes a file. Set by hand."""


def search_published(run: RunDirectory, problem: Problem, result: Result, bus: EventBus, timed: Finalists | None = None) -> Result:
    """Do everything that is not done yet; return `result` with what follows from it.

    Args:
        run: Where it is kept.
        problem: What is searched.
        result: That grows.
        bus: Told of the progress.
        timed: Times the finalists among those that were probed; only what is within the budgets by then is fine-tuned. None: nothing is timed.

    Raises:
        InfeasibleError: No network at any size is within the budgets.
        NasError: What went wrong; `nas resume` goes on from there.
    """
    limit = problem.request.time_limit
    with clocked(run, parse_duration(limit) if limit else None, bus) as clock:
        return _Search(run, problem, bus, clock).result(result, timed)


TRIED_BY_LIMIT = 0.44
"""Share of its limit after which a search has compared its contestants: the probes' 15 %, and of the rest four times the first rung of a schedule and twice the second."""


def try_published(run: RunDirectory, problem: Problem, bus: EventBus, rung: int, until_s: float) -> tuple[Right, tuple[Contender, ...]]:
    """Probe, fine-tune the best one against the other, and go on with the winner until the run has taken so many seconds.

    `search_published` goes on from there.

    Args:
        run: Where it is kept.
        problem: What is searched.
        bus: Told of the progress.
        rung: Number of the trial: in the first contestants are compared.
        until_s: Those of earlier trials included.

    Returns:
        Which of the compared validation pictures the winner names by then, and a row for every candidate.

    Raises:
        InfeasibleError: No network at any size is within the budgets.
    """
    with clocked(run, until_s / TRIED_BY_LIMIT if rung == 0 else None, bus) as clock:
        return _Search(run, problem, bus, clock).tried(until_s)


class _Search:
    def __init__(self, run: RunDirectory, problem: Problem, bus: EventBus, clock: Clock) -> None:
        self.run, self.problem, self.bus, self.clock = run, problem, bus, clock
        assert problem.dataset is not None
        self.dataset: Dataset = problem.dataset
        self.evaluator: ProbeEvaluator = problem.evaluator.make(problem.assignment())  # type: ignore[assignment]
        self.space = self.evaluator.space
        keep_freed_memory()
        self.times = Times(problem, self.evaluator, clock)
        self.found = Candidates(run, self.times, bus)
        self._rows = self.found.rows
        self._frozen = frozenset[str]()

    # --- timing --------------------------------------------------------------------------------------------------------

    def timed(self, candidates: Sequence[Candidate], finalists: Finalists) -> tuple[list[Candidate], dict[str, object]]:
        """Time the finalists; return the candidates within the budgets by then, all where none is, and what the result says of it."""
        device, favourite = self.problem.device, candidates[0]
        timings = finalists([(c.architecture, c.verdict, c.accuracy_pct) for c in candidates])
        revised = self.problem.revised(timings, {c.key: c.verdict.estimates[device] for c in candidates})
        if revised is self.problem:
            return list(candidates), {"verified": timings}
        again = [replace(c, verdict=revised.judge.revised(c.key, c.verdict, device)) for c in candidates]
        within = [c for c in again if c.verdict.feasible]
        if within:
            revision = revision_before_race(revised, favourite.key, len(within), len(again))
        else:
            point = self.problem.point(favourite.architecture, favourite.verdict)
            revision = revision_of(revised, point, None, feasible=False)
        self.problem = revised
        for one in again:
            latency = {"latency_ms": one.verdict.values[f"latency_ms/{device}"], "upper_ms": one.verdict.estimates[device].upper_ms}
            outcome = {} if one.verdict.feasible else {"outcome": _OVER}
            self._rows[one.key] = self._rows[one.key].model_copy(update=latency | outcome)
        return within or again, {"verified": timings, "revision": revision}

    # --- fine-tuning ---------------------------------------------------------------------------------------------------

    def contestants(self, candidates: Sequence[Candidate]) -> dict[Candidate, float]:
        """Return the candidates that are fine-tuned, each with the epochs of its schedule: decided once in a run, and anew where timings leave none of them.

        The best by their probes that can see every picture often enough in the time that is left; the fewer, the less time there is, and
        one alone where the schedules are too short for a comparison on the way.
        """
        by_key = {candidate.key: candidate for candidate in candidates}
        record = self.run.read(_CONTESTANTS)
        if record is None or (record["epochs"] and not by_key.keys() & record["epochs"].keys()):
            chosen = self._alone(candidates) or self._compared(candidates)
            frozen = [one.key for one in chosen if self._keeps_norms(one)]
            record = {"epochs": {one.key: self._schedule(one, len(chosen)) for one in chosen}, "frozen_norms": frozen}
            self.run.write(_CONTESTANTS, record)
        self._frozen = frozenset(record["frozen_norms"])
        return {by_key[key]: float(epochs) for key, epochs in record["epochs"].items() if key in by_key}

    def _keeps_norms(self, candidate: Candidate) -> bool:
        from nas.training.transfer.tuning import keeps_norms

        member = candidate.architecture
        size, dataset = self.space.size_of(member), self.evaluator.pictures_of(member)
        frozen = keeps_norms(self.evaluator.module(member, size), dataset, size, candidate.right, self.evaluator.device)
        self.dataset.release()
        return frozen

    def _alone(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the best that can be trained often enough, where others could not be compared with it in time; else none."""
        best = next((one for one in candidates if self._epochs(one, 1) >= ENOUGH_ALONE), None)
        return [best] if best is not None and not self.times.telling(self._schedule(best, 2)) else []

    def _compared(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        tries = (*product((ENOUGH_EPOCHS, 0.0), range(CONTESTANTS, 1, -1)), (0.0, 1))
        fields = (self._field(candidates, many, enough) for enough, many in tries)
        chosen = next((field for field in fields if field), [])
        quickest = min(candidates, key=lambda c: c.picture_s)
        return chosen or ([quickest] if self._epochs(quickest, 1) >= _LEAST_ALONE else [])

    def _field(self, candidates: Sequence[Candidate], contestants: int, enough: float) -> list[Candidate]:
        """Return so many of the best that are worth comparing in the time that is left, each for `enough` epochs; none where there are not so many."""
        chosen: list[Candidate] = []
        least = 0.0 if self.clock.limit_s is None else max(_LEAST_EPOCHS * contestants, enough)
        for one in candidates:
            alike = sum(other.network == one.network for other in chosen)
            if alike < _SIZES_EACH and self._epochs(one, contestants) >= least:
                chosen.append(one)
        return chosen[:contestants] if len(chosen) >= contestants else []

    def _epochs(self, candidate: Candidate, contestants: int) -> float:
        return self.times.epochs(candidate.architecture, candidate.picture_s, contestants)

    def _schedule(self, candidate: Candidate, contestants: int) -> float:
        """Return the epochs of the schedule of one of so many contestants: those for which there is time, at most as many as the user asks for."""
        return min(self._epochs(candidate, contestants), self.times.most_epochs)

    def tuning(self, candidate: Candidate, epochs: float) -> Tuning:
        """Return a candidate ready to be fine-tuned from its probe, or its fine-tuning where an earlier session began it."""
        from nas.training.transfer.recipe import transfer_recipe
        from nas.training.transfer.tuning import Tuning

        member, dataset = candidate.architecture, self.evaluator.pictures_of(candidate.architecture)
        recipe = transfer_recipe(dataset.count("train"), max(1, round(epochs)))
        steps = max(10, round(epochs * max(1, dataset.count("train") // recipe.batch)))
        recipe = replace(recipe, frozen_norms=member.key in self._frozen)
        size = self.space.size_of(member)
        module = self.evaluator.module(member, size)
        path = self.run.path / f"tuning-{member.key}.safetensors"
        return Tuning(module, dataset, size, path, recipe, steps, member.to_json(), self.problem.request.seed, self.evaluator.device)

    def forecast(self, contestants: Mapping[Candidate, float]) -> None:
        """Say what the rest will take, by phase, before training begins."""
        from nas.training.transfer.halving import RUNGS

        many = len(contestants) > 1
        schedules = sorted((self.times.epoch_s(c.picture_s) * epochs for c, epochs in contestants.items()), reverse=True)
        scored_s = sum(c.picture_s * (1024 + len(c.right)) for c in contestants)
        race_s = sum(schedules) * RUNGS[0] + sum(schedules[:2]) * (RUNGS[1] - RUNGS[0]) + 1.5 * scored_s if many else 0.0
        last_s = max(self.times.reserve_s(c.architecture, c.picture_s) for c in contestants)
        final_s = schedules[0] * (1 - RUNGS[1] if many else 1.0)
        if self.clock.limit_s is not None:  # to which the last schedule is cut
            final_s = min(final_s, max(self.clock.left_s - race_s - last_s, 0.0))
        self.clock.say({"race": race_s, "finetune": final_s, "export": last_s})
        names = ", ".join(map(_named, contestants))
        self.bus.emit(
            Notice(
                f"forecast: {write_duration(race_s + final_s + last_s)} from here on this machine: {write_duration(race_s)} to compare {names}; "
                f"{write_duration(final_s)} for the winner; {write_duration(last_s)} to export and test it."
            )
        )

    def race(self, contestants: Mapping[Candidate, float]) -> tuple[Candidate, str]:
        """Fine-tune contestants one against the other; return the winner and why."""
        from nas.training.transfer.halving import RUNGS, halve

        began_s, device = time.monotonic(), f"latency_ms/{self.problem.device}"
        turns = len(contestants) + (min(2, len(contestants)) if len(contestants) > 1 else 0)
        self.bus.emit(PhaseStarted("race", turns, detail=f"{len(contestants)} networks are fine-tuned one against the other"))
        done = 0

        def train(candidate: Candidate, rung: int) -> Right:
            nonlocal done
            marks = self.run.read(_RACE) or {}
            if (mark := f"{candidate.key}/{rung}") not in marks:
                marks[mark] = _written(self._to_rung(candidate, contestants[candidate], RUNGS[rung], done))
                self.run.write(_RACE, marks)
            done += 1
            right = _read(str(marks[mark]))
            row = self._rows[candidate.key]
            accuracies = (*row.raced_accuracy_pct, 100 * float(right.mean()))
            self._rows[candidate.key] = row.model_copy(
                update={"raced_accuracy_pct": accuracies, "outcome": f"left behind after {rung + 1} of {len(RUNGS)}"}
            )
            return right

        def dropped(candidate: Candidate, why: str) -> None:
            self._rows[candidate.key] = self._rows[candidate.key].model_copy(update={"outcome": f"given up: {why}"})
            self.bus.emit(Notice(f"{candidate.network}: {why}"))

        worth, left = halve(list(contestants), train, dropped=dropped)
        self.bus.emit(PhaseFinished("race", time.monotonic() - began_s))
        if len(left) == 1:
            best = "the best probe of those that there is time for; the time is too short to compare several while they are fine-tuned"
            if left[0].verdict.feasible and any(row.outcome == _OVER for row in self._rows.values()):
                best = "the best probe of those that are within the budgets by the timings and that there is time for"
            only = best if len(self._rows) > 1 else "the only published network that was fine-tuned"
            return left[0], only if len(contestants) == 1 else "the others could not be fine-tuned"
        speeds = [c.verdict.values[device] for c in left]
        budgeted = bounds_latency(self.problem)
        chosen, other, p_value = choose(speeds, [worth[c] for c in left], budgeted=budgeted)
        why = "the most accurate on validation while fine-tuned against the others"
        if chosen != other:
            fast, slow = (other, chosen) if budgeted else (chosen, other)
            alike = (
                f"({speeds[fast]:.3g} against {speeds[slow]:.3g} ms), and a McNemar test on {len(worth[left[0]])} validation images "
                f"cannot tell them apart at {LEVEL:.0%} (p = {p_value:.2f})"
            )
            why = f"{why}; {_named(left[fast])} is faster {alike}" if budgeted else f"faster than {_named(left[slow])} {alike}"
        return left[chosen], why

    def _to_rung(self, candidate: Candidate, epochs: float, share: float, done: int) -> Right:
        from nas.training.transfer.tuning import right_on_validation

        tuning = self.tuning(candidate, epochs)
        until = max(1, round(share * tuning.steps))
        first = tuning.step

        def report(step: int, numbers: Mapping[str, float]) -> None:
            self.bus.emit(PhaseAdvanced("race", done, dict(numbers), min(0.9, (step - first) / max(until - first, 1))))

        tuning.advance(until, _seldom(report))
        right = right_on_validation(tuning.averaged(), tuning.dataset, tuning.size, tuning.device)
        self.dataset.release()
        return right

    def finish(self, winner: Candidate, epochs: float) -> bool:
        """Fine-tune the winner to its end; return whether it beat its probe. `MEMBER_FILE` holds what is shipped."""
        from nas.training.transfer.tuning import right_on_validation, write_member

        began_s, tuning = time.monotonic(), self.tuning(winner, epochs)

        def percent() -> tuple[int, float]:  # of a schedule that is cut to the time that is left
            whole, rest = divmod(100 * tuning.step, tuning.steps)
            return whole, rest / tuning.steps

        def told(_step: int, numbers: Mapping[str, float]) -> None:
            done, part = percent()
            self.bus.emit(PhaseAdvanced("finetune", done, dict(numbers), part))

        done, part = percent()
        self.bus.emit(PhaseStarted("finetune", 100, done, _named(winner), "%", part))
        report = _seldom(told)
        right, better = winner.right, False
        try:
            while tuning.step < tuning.steps:
                if self.clock.limit_s is not None and tuning.seconds:
                    left_s = max(self.clock.left_s - self.times.reserve_s(winner.architecture, winner.picture_s), 0.0)
                    tuning.fit_into(left_s, self.times.most_epochs)
                each = max(tuning.seconds.values(), default=1.0)
                ahead = tuning.epoch_steps if self.clock.limit_s is None else max(4, round(30 / each)) if tuning.seconds else 4
                tuning.advance(tuning.step + ahead, report)
            network = tuning.averaged()
            right = right_on_validation(network, tuning.dataset, tuning.size, tuning.device)
            better = float(right.mean()) > float(winner.right.mean())
        except TrainingError as error:
            self.bus.emit(Notice(f"{winner.network}: {error}"))
        self.dataset.release()
        outcome = "chosen" if better else "chosen, with its probe: fine-tuning did not beat it on validation"
        changes = {
            "validation_accuracy_pct": 100 * float(right.mean()),
            "epochs": round(tuning.step / tuning.epoch_steps, 2),
            "outcome": outcome,
        }
        self._rows[winner.key] = self._rows[winner.key].model_copy(update=changes)
        if not better:
            network = self.evaluator.module(winner.architecture, tuning.size)
        write_member(self.run.path / MEMBER_FILE, network, tuning.identity, tuning.history)
        self.bus.emit(PhaseFinished("finetune", time.monotonic() - began_s))
        return better

    def _finished(self, winner: Candidate, epochs: float) -> bool:
        """Return whether fine-tuning beat the probe, from the run directory where an earlier session came so far."""
        record = self.run.read("finished.json")
        if record is not None and record["row"]["key"] != winner.key:  # made before the timings
            record = None
            (self.run.path / "export.json").unlink(missing_ok=True)
        if record is None:
            better = self.finish(winner, epochs)
            self.run.write("finished.json", {"better": better, "row": self._rows[winner.key].dump()})
            return better
        self._rows[winner.key] = Contender.model_validate(record["row"])
        return bool(record["better"])

    def _ship_probe(self, winner: Candidate) -> None:
        from nas.training.transfer.tuning import write_member

        size = self.space.size_of(winner.architecture)
        facts = {"architecture": winner.architecture.to_json(), "classes": self.dataset.num_classes, "resolution": list(size)}
        facts |= {"data": self.dataset.key, "seed": self.problem.request.seed}
        write_member(self.run.path / MEMBER_FILE, self.evaluator.module(winner.architecture, size), facts, [])
        changes = {"validation_accuracy_pct": winner.probe.accuracy_pct, "outcome": "chosen, with its probe"}
        self._rows[winner.key] = self._rows[winner.key].model_copy(update=changes)

    def tried(self, until_s: float) -> tuple[Right, tuple[Contender, ...]]:
        """See `try_published`."""
        from nas.training.transfer.tuning import right_on_validation

        candidates = self.found.probed()
        contestants = self.contestants(candidates)
        if not contestants:
            (self.run.path / _CONTESTANTS).unlink()  # whoever has all the time looks again
            winner, right = candidates[0], candidates[0].right
        else:
            winner, _ = self.race(contestants)
            tuning, began_s = self.tuning(winner, contestants[winner]), time.monotonic()
            self.bus.emit(PhaseStarted("race", detail=f"{_named(winner)} until the kinds are compared"))
            while tuning.step < tuning.steps - 1 and self.clock.spent_s < until_s:
                each = max(tuning.seconds.values(), default=5.0)
                ahead = max(1, round(min(until_s - self.clock.spent_s, 10.0) / each))
                tuning.advance(min(tuning.steps - 1, tuning.step + ahead))
                self.bus.emit(PhaseAdvanced("race", 0))
            right = right_on_validation(tuning.averaged(), tuning.dataset, tuning.size, tuning.device)
            self.bus.emit(PhaseFinished("race", time.monotonic() - began_s))
            self.dataset.release()
        row = self._rows[winner.key]
        raced = (*row.raced_accuracy_pct, 100 * float(right.mean())) if contestants else ()
        self._rows[winner.key] = row.model_copy(update={"raced_accuracy_pct": raced, "outcome": LEADER})
        return right, tuple(self._rows[c.key] for c in candidates)

    # --- the whole -----------------------------------------------------------------------------------------------------

    def result(self, empty: Result, timed: Finalists | None) -> Result:
        """Run every step that is not done; return what follows."""
        candidates, changed = self.found.probed(), dict[str, object]()
        everyone = [c.key for c in candidates]
        if timed is not None:
            candidates, changed = self.timed(candidates, timed)
        contestants = self.contestants(candidates)
        if contestants:
            if self.run.read(_RACE) is None:
                self.forecast(contestants)
            winner, why = self.race(contestants)
            better = self._finished(winner, contestants[winner])
            if not better:
                why = f"{why}; its probe is shipped, since fine-tuning did not beat it on validation"
        else:
            winner, why = candidates[0], "the best probe: the time limit leaves none for fine-tuning"
            self._ship_probe(winner)
        if not winner.verdict.feasible:
            why = f"{why}; {NOTHING_WITHIN}"
        self.run.write_text("architecture.json", winner.architecture.to_json() + "\n")
        delivery = handed_over(self.run, winner.architecture, lambda: self._deliver(winner))
        for left in self.run.path.glob("tuning-*.safetensors"):
            left.unlink()
        answered = self._answered(empty, candidates, winner, delivery, why)
        rows = tuple(self._rows[key] for key in everyone)
        return answered.model_copy(update={"evaluations": len(rows), "contenders": rows, **changed})

    def _deliver(self, winner: Candidate) -> Delivery:
        dataset = as_expected(self.dataset, self.problem.space, winner.architecture)
        return deliver_tuned(self.run, self.problem, dataset, winner.architecture, self.bus)

    def _front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates that no other beats in every objective, by their probes."""
        values = [{**c.verdict.values, "accuracy_pct": c.accuracy_pct} for c in candidates]
        return [candidates[i] for i in pareto_front([self.problem.goal.losses(each) for each in values])]

    def _answered(
        self,
        empty: Result,
        candidates: Sequence[Candidate],
        winner: Candidate,
        delivery: Delivery,
        why: str,
    ) -> Result:
        points = dict[str, Point]()
        for c in candidates:
            row = self._rows[c.key]
            scores = {"probe_accuracy_pct": row.probe_accuracy_pct, "validation_accuracy_pct": row.validation_accuracy_pct}
            points[c.key] = self.problem.point(c.architecture, c.verdict).model_copy(update=scores)
        accuracies = ("accuracy_pct", "float_accuracy_pct", "validation_accuracy_pct")
        chosen = points[winner.key].model_copy(update={name: getattr(delivery, name) for name in accuracies})
        points[winner.key] = chosen
        self._rows[winner.key] = self._rows[winner.key].model_copy(update={"accuracy_pct": delivery.accuracy_pct})
        front = {c.key: points[c.key] for c in self._front(candidates)} | {winner.key: chosen}
        return empty.model_copy(
            update={
                "chosen": chosen,
                "why": why,
                "front": tuple(front.values()),
                "objectives": tuple(objective.name for objective in self.problem.goal.objectives),
                "model": str(self.run.path / delivery.model) if delivery.model else None,
                "model_reason": delivery.model_reason,
                "model_sha256": delivery.sha256,
                "blind": None if delivery.accuracy_pct is None else self.dataset.blind("test", delivery.accuracy_pct),
                "by_class": delivery.by_class,
                "lacking_operators": delivery.lacking_operators,
                "sensitivity_db": delivery.sensitivity_db,
                "proposals": len(self.found.priced),
                "ledger": self.clock.ledger,
            }
        )


def _named(candidate: Candidate) -> str:
    return f"{candidate.network} at {write_resolution(candidate.verdict.resolution)} px"


def _seldom(report: Report) -> Report:
    """Return a listener that hands on no more than one step a second: each writes a file."""
    last_s = -math.inf

    def listen(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= _EVERY_S:
            last_s = time.monotonic()
            report(step, numbers)

    return listen


def _written(right: Right) -> str:
    return "".join("1" if one else "0" for one in right)


def _read(text: str) -> Right:
    return np.array([mark == "1" for mark in text])
