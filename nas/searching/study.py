"""A search: proposals, judgements and evaluations, kept in an Optuna study so that it can be resumed, shared and watched.

The state of a search is the storage alone. A searcher is told every finished trial in the order of their numbers, and its
randomness is that of (run seed, trial number); so a run that is killed at any moment and resumed proposes what the
unbroken one would have. With several workers (``shared``) each proposes from what it knows, and leases decide who works on what.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from nas.errors import ArtifactError, NasError, UsageError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.searching.leases import LEASE_S, LeaseKeeper
from nas.searching.objective import Goal
from nas.searching.pareto import Front, hypervolume
from nas.searching.retry import STORAGE_TIMEOUT_S
from nas.searching.searcher import Prescreen, Searcher, Trial, searchers
from nas.searching.storage import Row, TrialStore
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace
from nas.training.evaluator import FAILURES, Evaluator

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""How often a network is evaluated before its failure is believed. Set by hand."""

POLL_S = 0.2
"""How often a worker without work looks whether there is some. Set by hand."""


class Study:
    """A search of one space for one goal. Use `Study.open`."""

    def __init__(self, store: TrialStore, space: SearchSpace, goal: Goal) -> None:
        self._store, self.space, self.goal = store, space, goal
        self._trials: dict[int, Trial] = {}
        self._open: dict[int, Row] = {}
        self._holders: dict[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._retried: set[int] = set()
        self._vanished: dict[int, Row] = {}
        self._evaluations = 0
        self._front = Front(goal)
        self._absorb(store.poll())

    @classmethod
    def open(
        cls,
        storage: str,
        *,
        name: str,
        space: SearchSpace,
        goal: Goal,
        attributes: Mapping[str, str] | None = None,
        create: bool = True,
        score: str = "",
        timeout_s: float = STORAGE_TIMEOUT_S,
    ) -> Study:
        """Open a study, creating it where it is absent.

        Args:
            storage: Path of a journal file, or a URL (``sqlite:///…``, ``postgresql://…``).
            name: Name of the study.
            space: What is searched.
            goal: What for.
            attributes: Further facts that must be the same whenever it is opened (profile hash, split hash, …).
            create: Whether an absent study is created.
            score: What a dashboard calls the scores of candidates; empty where they are accuracies.
            timeout_s: How long the storage may be away, or its lock be held by another process, before this one gives up.

        Raises:
            ArtifactError: The storage cannot be opened, or the study is of other facts.
        """
        store = TrialStore(storage, name=name, space=space, goal=goal, create=create, score=score, timeout_s=timeout_s)
        study = cls(store, space, goal)
        study.agree({"space": f"{space.name} version {space.version}", "goal": goal_text(goal), **(attributes or {})})
        return study

    def agree(self, facts: Mapping[str, str]) -> None:
        """Store the facts that are new, and refuse those that differ from what is stored.

        Raises:
            ArtifactError: One differs; the message names it.
        """
        stored = self._store.attributes()
        for key, value in facts.items():
            if key in stored and stored[key] != value:
                raise ArtifactError(
                    f"study {self._store.name}: of another {key}, got {value!r}. Expected {stored[key]!r}, as stored in {self._store.url}. "
                    "Do this: resume with what it was started with, or start anew elsewhere."
                )
        for key, value in facts.items():
            if key not in stored:
                self._store.set_attribute(key, value)

    def note(self, facts: Mapping[str, str]) -> None:
        """Store facts for people and for workers, which may change: where the data lie, what the search is doing."""
        stored = self._store.attributes()
        for key, value in facts.items():
            if stored.get(key) != value:
                self._store.set_attribute(key, value)

    @property
    def attributes(self) -> Mapping[str, str]:
        """The facts stored with the study."""
        return self._store.attributes()

    @property
    def evaluations(self) -> int:
        """Number of accuracies computed so far."""
        return self._evaluations

    @property
    def proposals(self) -> int:
        """Number of trials, finished or not."""
        return len(self._trials) + len(self._open)

    def refresh(self) -> None:
        """Take note of what other processes have stored since."""
        self._absorb(self._store.poll())

    def trials(self) -> list[Trial]:
        """Return the finished trials by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def front(self) -> list[Trial]:
        """Return the evaluated, feasible trials that no other one dominates, best first objective first."""
        best = [trial for trial in self.trials() if trial.number in self._front.numbers]
        return sorted(best, key=lambda trial: (self.goal.losses(trial.values), trial.number))

    def hypervolume_history(self, reference: Sequence[float] | None = None) -> list[float]:
        """Return the hypervolume after each evaluation, in the order of the trials' numbers.

        Args:
            reference: Worst losses that count, one an objective; by default those of `Front.reference` at the end.
        """
        reference = reference or self._front.reference()
        grown = Front(self.goal)
        history: list[float] = []
        for trial in self.trials():
            if trial.evaluated:
                changed = grown.add(trial)
                history.append(hypervolume(grown.losses(), reference) if changed or not history else history[-1])
        return history

    def run(
        self,
        searcher: str | Searcher,
        evaluator: Evaluator,
        judge: Prescreen,
        *,
        evals: int,
        seed: int,
        bus: EventBus | None = None,
        shared: bool = False,
        locked: bool = False,
        max_proposals: int | None = None,
        left_s: Callable[[], float] | None = None,
    ) -> None:
        """Search until `evals` accuracies are known, the space has been seen whole, or proposals run out.

        Args:
            searcher: Name of a searcher, or one that was made for this space, goal and seed.
            evaluator: Scores what the judge lets through.
            judge: Gives cheap values and violations before any evaluation.
            evals: Accuracies to compute in all, those of earlier sessions included.
            seed: The run's seed.
            bus: Where to report; nowhere by default.
            shared: Whether other workers may be at the same study. If not, an open trial is taken up under its own number.
            locked: Whether the caller holds a lock that every other session on this machine would hold, so that there is none.
            max_proposals: Trials in all; by default 100 an evaluation and 1,000 more.
            left_s: Returns the seconds that are left: once there are none and something feasible is known, the search ends.

        Raises:
            UsageError: Not a positive number of evaluations.
            ArtifactError: The study belongs to another searcher, seed or evaluator, or a living process is at work on it.
        """
        if evals < 1:
            raise UsageError(f"evals: too few, got {evals}. Expected at least 1.")
        name = searcher if isinstance(searcher, str) else type(searcher).__name__
        proposer = searchers.get(searcher)(self.space, self.goal, seed, judge) if isinstance(searcher, str) else searcher
        self.agree({"searcher": name, "seed": str(seed), "evaluator": evaluator.key})
        limit = max_proposals or 100 * evals + 1000
        session = _Session(self, self._store, proposer, evaluator, judge, evals, bus or EventBus(), shared, limit, left_s)
        if not shared:
            session.await_the_silent(locked)
        session.run()

    def _absorb(self, rows: Iterable[Row]) -> list[Trial]:
        """Take rows into the view; return the trials that they finished, by number."""
        absorbed = []
        for row in rows:
            identity = self.space.identity(row.architecture)
            if row.retry_of is not None:
                self._retried.add(row.retry_of)
                self._vanished.pop(row.retry_of, None)
            if row.open:
                self._open[row.number] = row
                self._hold(identity, row.number)
                continue
            self._open.pop(row.number, None)
            if row.state == "failed":
                if self._holders.get(identity) == row.number:
                    del self._holders[identity]
                self._failures[identity] += 1
                if row.vanished and row.number not in self._retried:
                    self._vanished[row.number] = row
            elif row.state == "complete":
                self._hold(identity, row.number)
                self._evaluations += 1
            message = row.message or ("its worker stopped" if row.state == "failed" else "")
            trial = Trial(row.number, row.architecture, row.state, row.values or row.cheap, row.violations, message)  # type: ignore[arg-type]
            self._trials[row.number] = trial
            if trial.evaluated:
                self._front.add(trial)
            absorbed.append(trial)
        return absorbed

    def _hold(self, identity: str, number: int) -> None:
        self._holders[identity] = min(number, self._holders.get(identity, number))

    def _holder(self, architecture: Architecture) -> int | None:
        return self._holders.get(self.space.identity(architecture))


_PATIENCE = 20
"""Proposals after which, late and with nothing within the budgets, the smallest member is tried. Set by hand."""


class _Session:
    """One process at work on a study."""

    def __init__(
        self,
        study: Study,
        store: TrialStore,
        searcher: Searcher,
        evaluator: Evaluator,
        judge: Prescreen,
        evals: int,
        bus: EventBus,
        shared: bool,
        max_proposals: int,
        left_s: Callable[[], float] | None,
    ) -> None:
        self.study, self.store, self.searcher, self.evaluator, self.judge = study, store, searcher, evaluator, judge
        self.evals, self.bus, self.shared, self.max_proposals, self.left_s = evals, bus, shared, max_proposals, left_s
        self.pended: set[int] = set()
        self.resorted = False
        self.progress = _Progress(study, bus, evals)

    def run(self) -> None:
        study = self.study
        study.refresh()
        self.progress.start()
        for trial in study.trials():
            self.searcher.tell(trial)
        self._enqueue_vanished()
        with LeaseKeeper(self.store.renew) as lease:
            while True:
                if self.shared:
                    self._tell(self.store.poll())
                    self._recover()
                if study.evaluations >= self.evals:
                    break
                late = self.left_s is not None and self.left_s() <= 0 and not study._open
                if late and study._front.numbers:
                    self._notice(f"search: its share of the time limit is spent after {study.evaluations} of {self.evals} evaluations.")
                    break
                row = self._last_resort() if late else self._take_up()
                if row is None and self.shared and study.evaluations + len(study._open) >= self.evals:
                    time.sleep(POLL_S)
                    continue
                if row is None:
                    if study.proposals >= self.max_proposals:
                        self._notice(f"search: stopped after {study.proposals} proposals with {study.evaluations} evaluations.")
                        break
                    architecture = self.searcher.ask(study.proposals)
                    if architecture is None:
                        if self.shared and study._open:
                            time.sleep(POLL_S)
                            continue
                        self._notice(f"search: the space has been seen whole after {study.evaluations} evaluations.")
                        break
                    row = self._propose(architecture)
                if row.open:
                    lease.hold(row)
                    try:
                        self._evaluate(row)
                    finally:
                        lease.release()
        self.progress.finish()

    def _last_resort(self) -> Row | None:
        """Propose the smallest member, once, where the time is over and nothing feasible is known: few others may be within the budgets."""
        if self.resorted or self.study.proposals < _PATIENCE or not hasattr(self.study.space, "extreme"):
            return None
        self.resorted = True
        return self._propose(self.study.space.extreme(False))

    def await_the_silent(self, locked: bool) -> None:
        """Let no two sessions that know nothing of each other work on one study: wait until the other's lease has run out.

        Raises:
            ArtifactError: The other one is at work.
        """
        warned = False
        while True:
            self.study.refresh()
            doubtful = [row for row in self.study._open.values() if row.state == "running" and self._may_live(row, locked)]
            for row in doubtful:
                if row.lease.worker.alive or (warned and self.store.silent_s(row) < 2 * POLL_S):
                    raise ArtifactError(
                        f"study {self.store.name}: trial {row.number} is being worked on by {row.lease.worker}. "
                        "Do this: wait until that process has ended, or end it."
                    )
            if not doubtful:
                return
            if not warned:
                row = doubtful[0]
                left_s = LEASE_S - self.store.silent_s(row)
                self._notice(f"search: {row.lease.worker} may be at work on trial {row.number}; looked at for {left_s:.0f} s.", loud=True)
                warned = True
                time.sleep(3 * POLL_S)
            time.sleep(POLL_S)

    def _may_live(self, row: Row, locked: bool) -> bool:
        worker = row.lease.worker
        if locked and (worker.on_this_machine or not worker.host):
            return False
        return not self.store.stale(row)

    def _tell(self, rows: Iterable[Row]) -> None:
        for trial in self.study._absorb(rows):
            self.searcher.tell(trial)
            self.progress.advance(trial)
        if self.shared:
            for number in self.study._open.keys() - self.pended:
                self.pended.add(number)
                self.searcher.pend(self.study._open[number].architecture)

    def _recover(self) -> None:
        """Fail the trials of vanished workers, and enqueue each of them again once."""
        for row in list(self.study._open.values()):
            if self.store.stale(row) and self.store.fail(row, ""):
                logger.warning("trial %d: its worker, %s, has vanished", row.number, row.lease.worker)
                self._tell([replace(row, state="failed", message="")])
        self._enqueue_vanished()

    def _enqueue_vanished(self) -> None:
        for row in list(self.study._vanished.values()):
            if self.study._failures[self.study.space.identity(row.architecture)] > ATTEMPTS:
                del self.study._vanished[row.number]
                continue
            retry = self.store.propose(row.architecture, row.cheap, row.violations, state="waiting", retry_of=row.number)
            self._tell([retry])

    def _take_up(self) -> Row | None:
        """Return an open trial that is this process's to finish: its own from before, or one that waits."""
        for number in sorted(self.study._open):
            row = self.study._open[number]
            if row.state == "waiting":
                claimed = self.store.claim(row)
                if claimed is None:
                    continue
                if self.shared:  # what was there before the claim may make it superfluous
                    self._tell([other for other in self.store.poll() if other.number != number])
                self._tell([claimed])
                if self.shared and self._withdrawn(claimed):
                    continue
                return claimed
            if not self.shared:
                return self.store.take_over(row)
        return None

    def _propose(self, architecture: Architecture) -> Row:
        study = self.study
        study.space.validate(architecture)
        cheap, violations = self.judge.judge([architecture])[0]
        if study.goal.budgets and set(violations) != {budget.name for budget in study.goal.budgets}:
            raise NasError(
                f"judge: violations of other budgets, got {sorted(violations)}. Expected {[b.name for b in study.goal.budgets]}."
            )
        identity, known = study.space.identity(architecture), study.proposals
        holder = study._holders.get(identity)
        if any(violation > 0 for violation in violations.values()):
            row = self.store.propose(architecture, cheap, violations, state="infeasible")
        elif holder is not None:
            scored = study._trials[holder].values if holder in study._trials else {}
            row = self.store.propose(
                architecture, cheap, violations, state="duplicate", duplicate_of=holder, values={**scored, **cheap} if scored else {}
            )
        elif study._failures[identity] >= ATTEMPTS:
            message = next(t.message for t in study.trials() if t.state == "failed" and study.space.identity(t.architecture) == identity)
            row = self.store.propose(architecture, cheap, violations, state="failed", message=message)
        else:
            row = self.store.propose(architecture, cheap, violations, state="running")
        if not self.shared:
            self._tell([row])
            return row
        if row.number > known:  # others have proposed since this process looked
            self._tell([other for other in self.store.poll() if other.number != row.number])
        self._tell([row])
        if row.open and self._withdrawn(row):
            return replace(row, state="duplicate")
        return row

    def _withdrawn(self, row: Row) -> bool:
        """Give a row up that another one makes superfluous: the numbers decide, so all workers decide alike."""
        study = self.study
        holder = study._holder(row.architecture)
        earlier = sum(number < row.number for number in study._open)
        if holder is not None and holder < row.number:
            reason = holder
        elif study.evaluations + earlier >= self.evals:
            reason = row.number
        else:
            return False
        if self.store.withdraw(row, reason):
            self._tell([replace(row, state="duplicate", duplicate_of=reason, values={})])
        return True

    def _evaluate(self, row: Row) -> None:
        message = ""
        values = dict(row.values)
        if not all(objective.name in values for objective in self.study.goal.objectives):  # not evaluated, or seen in the middle of it
            try:
                metrics = self.evaluator.evaluate(row.architecture)
            except FAILURES as error:
                message = " ".join(f"{type(error).__name__}: {error}".split())
            else:
                values = {**row.cheap, **metrics.extra, "accuracy_pct": metrics.accuracy_pct}
                broken = [o.name for o in self.study.goal.objectives if not math.isfinite(values.get(o.name, math.nan))]
                if broken:
                    message = f"the evaluation gave no finite {broken[0]}, got {sorted(values)}"
        if message:
            stored = self.store.fail(row, message)
            done = replace(row, state="failed", message=message)
        else:
            stored = self.store.complete(row, values)
            done = replace(row, state="complete", values=values)
        if stored:
            self._tell([done])
        else:
            self._notice(f"search: trial {row.number} was given to another worker, its result here is dropped.")
            self.study._open.pop(row.number, None)

    def _notice(self, text: str, loud: bool = False) -> None:
        logger.log(logging.WARNING if loud and not self.bus.listeners else logging.INFO, text)
        self.bus.emit(Notice(text))


class _Progress:
    """Says how a search is going: evaluations a second, best so far, front, hypervolume, time left."""

    def __init__(self, study: Study, bus: EventBus, evals: int) -> None:
        self.study, self.bus, self.evals = study, bus, evals
        self.started_s = time.monotonic()
        self.before = 0
        self.volume, self.size = 0.0, -1

    def start(self) -> None:
        self.before = self.study.evaluations
        self.bus.emit(PhaseStarted("search", total=self.evals, done=self.before, detail=f"{self.study.space.name}"))

    def advance(self, trial: Trial) -> None:
        if not trial.evaluated or not self.bus.listeners:
            return
        study, first = self.study, self.study.goal.objectives[0]
        seconds = time.monotonic() - self.started_s
        speed = (study.evaluations - self.before) / max(seconds, 1e-9)
        points = study._front.losses()
        numbers = {
            "evaluations_per_s": speed,
            "proposals": float(study.proposals),
            "front_size": float(len(points)),
            "seconds_left": max(self.evals - study.evaluations, 0) / max(speed, 1e-9),
        }
        if points:
            numbers[f"best_{first.name}"] = first.sign * min(point[0] for point in points)
            if trial.number in study._front.numbers or self.size < 0:
                self.volume, self.size = hypervolume(points, study._front.reference()), len(points)
            numbers["hypervolume"] = self.volume
        self.bus.emit(PhaseAdvanced("search", done=study.evaluations, numbers=numbers))

    def finish(self) -> None:
        self.bus.emit(PhaseFinished("search", seconds=time.monotonic() - self.started_s))


def goal_text(goal: Goal) -> str:
    """Return a goal as one line, for people and for comparison."""
    objectives = ", ".join(f"{objective.direction} {objective.name}" for objective in goal.objectives)
    budgets = ", ".join(f"{budget.name} within {budget.limit.value:g} ({budget.limit.quantity})" for budget in goal.budgets)
    return f"{objectives}; {budgets or 'no budget'}"
