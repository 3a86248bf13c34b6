"""Trials as rows of an Optuna study: one row a proposal, and the leases by which several workers share them.

A row is written once when it is proposed (parameters, cheap values, violations, owner, lease) and closed by one further write, or
two where the evaluation gave more numbers than the objectives, so a search costs its storage two or three appends an evaluation. What `optuna-dashboard` shows is what is here: objectives by their titles, each trial's architecture, and by how much each budget is broken.

==========  ===============  ====================================================
state       Optuna's state   what else is stored
==========  ===============  ====================================================
complete    COMPLETE         objective values; ``values`` where there are more
infeasible  PRUNED           cheap values; constraints
duplicate   PRUNED           ``duplicate_of``, the number of the trial it repeats
failed      FAIL             ``message``; none where its worker vanished
==========  ===============  ====================================================
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nas.errors import ArtifactError, NasError, UsageError
from nas.searching.address import keep_password, with_password
from nas.searching.backend import Backend, Record, one_line
from nas.searching.database import Database
from nas.searching.journal import DAMAGE, Journal
from nas.searching.leases import LEASE_S, Lease, LeaseWatch
from nas.searching.objective import Goal
from nas.searching.retry import STORAGE_TIMEOUT_S
from nas.searching.searcher import TrialState
from nas.searching.worker import this_worker
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

STATES = {
    "waiting": "WAITING",
    "running": "RUNNING",
    "complete": "COMPLETE",
    "infeasible": "PRUNED",
    "duplicate": "PRUNED",
    "failed": "FAIL",
}
"""Optuna's state by ours."""


@dataclass(frozen=True, slots=True)
class Row:
    """A trial as it is stored.

    Attributes:
        number: Position in the study.
        trial_id: The storage's own name of it.
        architecture: What was proposed.
        state: ``waiting`` for a worker, ``running`` at one, else how it ended.
        cheap: Values known before any evaluation.
        values: All values; empty unless it ended with some.
        violations: By budget name; ≤ 0 where it holds.
        message: Why it failed.
        duplicate_of: Number of the trial that it repeats.
        retry_of: Number of the trial whose worker vanished.
        lease: Who works on it, and when it was heard of last.
    """

    number: int
    trial_id: int
    architecture: Architecture
    state: TrialState | Literal["waiting", "running"]
    cheap: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    duplicate_of: int | None = None
    retry_of: int | None = None
    lease: Lease = field(default_factory=lambda: Lease.from_json(None, None))

    @property
    def open(self) -> bool:
        """Whether somebody has to work on it still."""
        return self.state in ("waiting", "running")

    @property
    def vanished(self) -> bool:
        """Whether it was failed because its worker fell silent; such a trial is enqueued again once."""
        return self.state == "failed" and not self.message


class TrialStore:
    """The rows of one study.

    Args:
        url: Path of a journal file, or an SQLAlchemy URL (``sqlite:///…``, ``postgresql://…``).
        name: Name of the study; created where absent.
        space: Gives the parameters their names and values.
        goal: Gives the directions and the constraint keys.
        create: Whether an absent study may be created.
        score: What a dashboard calls the scores of candidates; empty where they are accuracies.
        timeout_s: How long the storage may be away, or its lock be held by another process.

    Raises:
        ArtifactError: The storage cannot be opened, or has no such study.
        UsageError: The study has other objectives.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        space: SearchSpace,
        goal: Goal,
        create: bool = True,
        score: str = "",
        timeout_s: float = STORAGE_TIMEOUT_S,
    ) -> None:
        from optuna.distributions import CategoricalDistribution

        self.url, self.name, self.space, self.goal = url, name, space, goal
        self.worker = this_worker()
        self._backend = open_backend(url, create=create, timeout_s=timeout_s)
        self._distributions: Mapping[str, Any] = {choice.name: CategoricalDistribution(choice.values) for choice in space.choices}
        directions = [objective.direction for objective in goal.objectives]
        titles = [score if objective.name == "accuracy_pct" and score else objective.title for objective in goal.objectives]
        self._id = self._backend.open_study(name, directions, titles) if create else study_named(self._backend, name)
        self._settled = 0
        self._seen: set[int] = set()
        self._open: dict[int, tuple[Record, Row]] = {}
        self._watch = LeaseWatch(self._backend.clock_s)
        self._outages = 0
        if self._backend.directions(self._id) != directions:
            raise UsageError(f"study {name}: other objectives, got {directions} in {url}.")

    def attributes(self) -> dict[str, str]:
        """Return the facts that the study was created with."""
        return {key: value for key, value in self._backend.study_attributes(self._id).items() if isinstance(value, str)}

    def set_attribute(self, key: str, value: str) -> None:
        """Store a fact of the study."""
        self._backend.set_study_attribute(self._id, key, value)

    def poll(self) -> list[Row]:
        """Return the rows that are open, and those that closed since the last call, by number."""
        rows = []
        for record in self._backend.records(self._id, self._settled, self._seen):
            rows.append(row := self._row(record))
            if row.open:
                self._watch.look(row.trial_id, row.lease)
            else:
                self._seen.add(row.number)
                self._watch.forget(row.trial_id)
        while self._settled in self._seen:
            self._seen.remove(self._settled)
            self._settled += 1
        if self._outages != self._backend.outages:
            self._outages = self._backend.outages
            self._watch.restart()
        return rows

    def stale(self, row: Row) -> bool:
        """Return whether a row's worker is known to be dead, or has been silent for longer than its lease."""
        return row.state == "running" and (row.lease.worker.alive is False or self.silent_s(row) > LEASE_S)

    def silent_s(self, row: Row) -> float:
        """Return for how long a row's worker has been silent, as of the last `poll`."""
        return self._watch.silent_s(row.trial_id)

    def propose(
        self,
        architecture: Architecture,
        cheap: Mapping[str, float],
        violations: Mapping[str, float],
        *,
        state: TrialState | Literal["waiting", "running"],
        values: Mapping[str, float] | None = None,
        message: str = "",
        duplicate_of: int | None = None,
        retry_of: int | None = None,
    ) -> Row:
        """Append a row in one write and return it."""
        attributes: dict[str, object] = {"architecture": architecture.key, "cheap": dict(cheap)}
        if message:
            attributes["message"] = message
        if duplicate_of is not None:
            attributes["duplicate_of"] = duplicate_of
            attributes["values"] = dict(values or {})
        if retry_of is not None:
            attributes["retry_of"] = retry_of
        lease = Lease.from_json(None, None)
        if state == "running":
            lease = self._lease(0)
            attributes |= {"owner": self.worker.to_json(), "lease": lease.to_json()}
        record = Record(
            trial_id=-1,
            number=-1,
            state=STATES[state],
            params={choice.name: gene for choice, gene in zip(self.space.choices, architecture.genes, strict=True)},
            attributes=attributes,
            violations={key: float(value) for key, value in violations.items()},
        )
        done = self._backend.create(self._id, record, self._distributions, uuid.uuid4().hex)
        if state not in ("waiting", "running"):
            self._seen.add(done.number)
        return Row(done.number, done.trial_id, architecture, state, cheap, values or {}, violations, message, duplicate_of, retry_of, lease)

    def claim(self, row: Row) -> Row | None:
        """Take a waiting row, or None where another worker was faster."""
        lease = self._lease(0)
        if not self._backend.claim(row.trial_id, {"owner": self.worker.to_json(), "lease": lease.to_json()}):
            return None
        return replace(row, state="running", lease=lease)

    def take_over(self, row: Row) -> Row:
        """Write this worker's name on a row that nobody else works on."""
        lease = self._lease(row.lease.count + 1)
        self._backend.set_attributes(row.trial_id, {"owner": self.worker.to_json(), "lease": lease.to_json()})
        return replace(row, lease=lease)

    def renew(self, row: Row) -> Row:
        """Extend this worker's lease on a row."""
        lease = self._lease(row.lease.count + 1)
        self._backend.set_attributes(row.trial_id, {"lease": lease.to_json()})
        return replace(row, lease=lease)

    def complete(self, row: Row, values: Mapping[str, float]) -> bool:
        """Close a row with its values; False where it was taken away meanwhile, and nothing is written."""
        objectives = {objective.name: float(values[objective.name]) for objective in self.goal.objectives}
        known = {**row.cheap, **objectives}
        more = {} if known == dict(values) else {"values": dict(values)}
        return self._close(row, "COMPLETE", more, list(objectives.values()))

    def fail(self, row: Row, message: str) -> bool:
        """Close a row with the reason of its failure; an empty one says that its worker vanished."""
        return self._close(row, "FAIL", {"message": message} if message else {})

    def withdraw(self, row: Row, duplicate_of: int) -> bool:
        """Close a row that repeats another that is under way."""
        return self._close(row, "PRUNED", {"duplicate_of": duplicate_of})

    def _close(self, row: Row, state: str, attributes: Mapping[str, Any], values: list[float] | None = None) -> bool:
        done = self._backend.close(row.trial_id, state, values, attributes)
        if done:
            self._seen.add(row.number)
            self._watch.forget(row.trial_id)
        return done

    def _lease(self, count: int) -> Lease:
        return Lease(self.worker, count, self._backend.clock_s() or time.time())

    def _row(self, record: Record) -> Row:
        cached = self._open.pop(record.number, None)
        if cached is not None and cached[0] is record:
            self._open[record.number] = cached
            return cached[1]
        try:
            row = self._unchecked(record)
        except ArtifactError:
            raise
        except (NasError, *DAMAGE) as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise ArtifactError(f"storage {self.url}: trial {record.number} of study {self.name} is damaged ({reason}).") from None
        if row.open:
            self._open[record.number] = record, row
        return row

    def _unchecked(self, record: Record) -> Row:
        attributes = record.attributes
        cheap, values = _numbers(attributes.get("cheap", {})), _numbers(attributes.get("values") or {})
        if record.state == "COMPLETE":
            raw = [float(value) for value in record.values or ()]
            objectives = dict(zip((o.name for o in self.goal.objectives), raw, strict=True))
            if not all(map(math.isfinite, raw)):
                raise ValueError(f"objectives that are not finite, got {raw}")
            values = values or {**cheap, **objectives}  # cheap values and objectives may be all there is
        states: dict[str, str] = {"COMPLETE": "complete", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
        state: Any = states.get(record.state) or ("duplicate" if "duplicate_of" in attributes else "infeasible")
        try:
            genes = tuple(record.params[choice.name] for choice in self.space.choices)
        except KeyError as error:
            raise ArtifactError(f"study {self.name}: trial {record.number} is not of space {self.space.name}: it lacks {error}.") from None
        architecture = Architecture(self.space.name, self.space.version, genes)
        self.space.validate(architecture)
        return Row(
            record.number,
            record.trial_id,
            architecture,
            state,
            cheap,
            values if state in ("complete", "duplicate", "running") else cheap,
            _numbers(record.violations),
            str(attributes.get("message", "")),
            _number_of(attributes.get("duplicate_of")),
            _number_of(attributes.get("retry_of")),
            Lease.from_json(attributes.get("owner"), attributes.get("lease")),
        )


def _numbers(data: Any) -> dict[str, float]:
    """Return numbers by name.

    Raises:
        TypeError: It is something else.
    """
    numbers = dict(data)
    if not all(isinstance(key, str) and isinstance(value, int | float) for key, value in numbers.items()):
        raise TypeError(f"expected numbers by name, got {numbers}")
    return numbers


def _number_of(data: Any) -> int | None:
    if data is None or (isinstance(data, int) and data >= 0):
        return data
    raise TypeError(f"expected the number of a trial, got {data!r}")


class AbsentStudyError(ArtifactError):
    """A storage that is not there yet, or holds no such study yet."""


def study_named(backend: Backend, name: str) -> int:
    """Return a study by its name.

    Raises:
        AbsentStudyError: There is none; the message says which there are.
    """
    studies = backend.studies()
    if name not in studies:
        known = one_line(", ".join(sorted(studies))) or "none"
        raise AbsentStudyError(f"storage {backend.label}: no such study, got {name!r}. It holds: {known}.")
    return studies[name]


def open_backend(url: str, *, create: bool = True, timeout_s: float = STORAGE_TIMEOUT_S) -> Backend:
    """Open a journal file by its path, or a database by its SQLAlchemy URL.

    Raises:
        ArtifactError: It cannot be opened; the message says why.
    """
    if "://" in url:
        shown = keep_password(url)
        return Database(with_password(shown), label=shown, timeout_s=timeout_s)
    path = Path(url)
    if not create and not path.is_file():
        raise AbsentStudyError(f"storage {url}: no such file.")
    return Journal(path, timeout_s=timeout_s)
