"""Trials as rows of an Optuna study: one row a proposal, and the leases by which several workers share them.

A row is written once when it is proposed (parameters, cheap values, violations, owner) and closed by one further write, or
two where the evaluation gave more numbers than the objectives, so a search costs its storage two or three appends an evaluation. What `optuna-dashboard` shows is what is here.

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

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas.errors import ArtifactError, UsageError
from nas.searching.address import with_password, without_passwords
from nas.searching.objective import Goal
from nas.searching.searcher import TrialState
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal._file import BaseJournalFileLock

LEASE_S = 60.0
"""How long a worker may be silent before its trial is given to another."""


OPENINGS = 8
"""How often opening a database is tried while another worker creates its tables."""


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
        owner: Who works on it, see `worker_name`.
        expires_at_s: When the owner's lease ends, in seconds since 1970.
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
    owner: str = ""
    expires_at_s: float = 0.0

    @property
    def open(self) -> bool:
        """Whether somebody has to work on it still."""
        return self.state in ("waiting", "running")

    @property
    def stale(self) -> bool:
        """Whether its worker is known to be dead, or has been silent for longer than its lease."""
        return self.state == "running" and (alive(self.owner) is False or time.time() > self.expires_at_s)

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

    Raises:
        ArtifactError: The storage cannot be opened, or has no such study.
    """

    def __init__(self, url: str, *, name: str, space: SearchSpace, goal: Goal, create: bool = True) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution

        self.url, self.name, self.space, self.goal = url, name, space, goal
        self._storage = open_storage(url, create=create)
        self._distributions: Mapping[str, Any] = {choice.name: CategoricalDistribution(choice.values) for choice in space.choices}
        directions = [objective.direction for objective in goal.objectives]
        previous = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            if create:
                self._study = optuna.create_study(storage=self._storage, study_name=name, directions=directions, load_if_exists=True)
            else:
                self._study = optuna.load_study(storage=self._storage, study_name=name)
        except KeyError:
            known = ", ".join(optuna.get_all_study_names(self._storage)) or "none"
            raise ArtifactError(f"storage {url}: no such study, got {name!r}. It holds: {known}.") from None
        finally:
            optuna.logging.set_verbosity(previous)
        self._id = self._study._study_id  # the storage's functions take it, and only the name is public
        self._settled = 0
        self._seen: set[int] = set()
        if [d.name.lower() for d in self._study.directions] != directions:
            raise UsageError(f"study {name}: other objectives, got {directions} in {url}.")

    def attributes(self) -> dict[str, str]:
        """Return the facts that the study was created with."""
        return {key: value for key, value in self._storage.get_study_user_attrs(self._id).items() if isinstance(value, str)}

    def set_attribute(self, key: str, value: str) -> None:
        """Store a fact of the study."""
        self._storage.set_study_user_attr(self._id, key, value)

    def poll(self) -> list[Row]:
        """Return the rows that are open, and those that closed since the last call, by number."""
        rows = []
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in trials[self._settled :]:
            if trial.number in self._seen:
                continue
            rows.append(row := self._row(trial))
            if not row.open:
                self._seen.add(trial.number)
        while self._settled in self._seen:
            self._seen.remove(self._settled)
            self._settled += 1
        return rows

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
        from optuna.trial import FrozenTrial, TrialState

        states = {
            "waiting": TrialState.WAITING,
            "running": TrialState.RUNNING,
            "infeasible": TrialState.PRUNED,
            "duplicate": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        attributes: dict[str, Any] = {"cheap": dict(cheap)}
        if message:
            attributes["message"] = message
        if duplicate_of is not None:
            attributes["duplicate_of"] = duplicate_of
            attributes["values"] = dict(values or {})
        if retry_of is not None:
            attributes["retry_of"] = retry_of
        owner, expires_at_s = "", 0.0
        if state == "running":
            owner, expires_at_s = worker_name(), time.time() + LEASE_S
            attributes |= {"owner": owner, "expires_at_s": expires_at_s}
        now = datetime.now()
        finished = states[state].is_finished()
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=states[state],
            value=None,
            values=None,
            datetime_start=None if state == "waiting" else now,
            datetime_complete=now if finished else None,
            params={choice.name: gene for choice, gene in zip(self.space.choices, architecture.genes, strict=True)},
            distributions=dict(self._distributions),
            user_attrs=attributes,
            system_attrs={f"constraints:{key}": float(value) for key, value in violations.items()},
            intermediate_values={},
        )
        trial_id = self._storage.create_new_trial(self._id, template)
        number = self._storage.get_trial_number_from_id(trial_id)
        if finished:
            self._seen.add(number)
        return Row(
            number, trial_id, architecture, state, cheap, values or {}, violations, message, duplicate_of, retry_of, owner, expires_at_s
        )

    def claim(self, row: Row) -> Row | None:
        """Take a waiting row, or None where another worker was faster."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            if not self._storage.set_trial_state_values(row.trial_id, TrialState.RUNNING):
                return None
        except UpdateFinishedTrialError:
            return None
        return self.take_over(row)

    def take_over(self, row: Row) -> Row:
        """Write this worker's name on a row that nobody else works on."""
        self._storage.set_trial_user_attr(row.trial_id, "owner", worker_name())
        self.renew(row)
        return self._row(self._storage.get_trial(row.trial_id))

    def renew(self, row: Row) -> None:
        """Extend this worker's lease on a row."""
        self._storage.set_trial_user_attr(row.trial_id, "expires_at_s", time.time() + LEASE_S)

    def complete(self, row: Row, values: Mapping[str, float]) -> bool:
        """Close a row with its values; False where it was taken away meanwhile, and nothing is written."""
        from optuna.trial import TrialState

        return self._close(row, "values", dict(values), TrialState.COMPLETE, [values[objective.name] for objective in self.goal.objectives])

    def fail(self, row: Row, message: str) -> bool:
        """Close a row with the reason of its failure; an empty one says that its worker vanished."""
        from optuna.trial import TrialState

        return self._close(row, "message", message, TrialState.FAIL, None)

    def withdraw(self, row: Row, duplicate_of: int) -> bool:
        """Close a row that repeats another that is under way."""
        from optuna.trial import TrialState

        return self._close(row, "duplicate_of", duplicate_of, TrialState.PRUNED, None)

    def _close(self, row: Row, key: str, value: Any, state: optuna.trial.TrialState, values: list[float] | None) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            if value not in ("", None):
                self._storage.set_trial_user_attr(row.trial_id, key, value)
            done = self._storage.set_trial_state_values(row.trial_id, state, values)
        except UpdateFinishedTrialError:
            return False
        self._seen.add(row.number)
        return done

    def _row(self, trial: optuna.trial.FrozenTrial) -> Row:
        attributes = trial.user_attrs
        values = attributes.get("values") or {}
        if trial.state.name == "COMPLETE" and not values:  # cheap values and objectives are all there is
            values = {**attributes.get("cheap", {}), **dict(zip((o.name for o in self.goal.objectives), trial.values, strict=True))}
        states: dict[str, Any] = {"COMPLETE": "complete", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
        state: Any = states.get(trial.state.name) or ("duplicate" if "duplicate_of" in attributes else "infeasible")
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        try:
            genes = tuple(trial.params[choice.name] for choice in self.space.choices)
        except KeyError as error:
            raise ArtifactError(f"study {self.name}: trial {trial.number} is not of space {self.space.name}: it lacks {error}.") from None
        return Row(
            trial.number,
            trial._trial_id,
            Architecture(self.space.name, self.space.version, genes),
            state,
            attributes.get("cheap", {}),
            values if state in ("complete", "duplicate", "running") else attributes.get("cheap", {}),
            trial.constraints,
            attributes.get("message", ""),
            attributes.get("duplicate_of"),
            attributes.get("retry_of"),
            attributes.get("owner", ""),
            attributes.get("expires_at_s", started + LEASE_S),
        )


def read_attributes(url: str, name: str) -> dict[str, str]:
    """Return the facts of a study whose space and goal are not known yet.

    Raises:
        ArtifactError: The storage cannot be opened, or has no such study.
    """
    import optuna

    storage = open_storage(url, create=False)
    try:
        found = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    except KeyError:
        known = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise ArtifactError(f"storage {url}: no such study, got {name!r}. It holds: {known}.") from None
    return {key: value for key, value in found.items() if isinstance(value, str)}


def open_storage(url: str, *, create: bool = True) -> optuna.storages.BaseStorage:
    """Open a journal file by its path, or a database by its SQLAlchemy URL.

    Raises:
        ArtifactError: It cannot be opened; the message says why.
    """
    if "://" not in url:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = Path(url)
        if not create and not path.is_file():
            raise ArtifactError(f"storage {url}: no such file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=journal_lock(path)))
        except (OSError, ValueError, KeyError, AssertionError) as error:
            raise ArtifactError(f"storage {url}: not a journal that can be read ({type(error).__name__}: {error}).") from None
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    target = with_password(url)
    if target.startswith("postgresql://"):
        target = target.replace("postgresql://", "postgresql+psycopg://", 1)
    options = {"pool_pre_ping": True} if url.startswith("postgresql") else {"connect_args": {"timeout": 60}}
    try:
        for attempt in range(1, OPENINGS + 1):
            try:
                return get_storage(RDBStorage(target, engine_kwargs=options))
            except (IntegrityError, ProgrammingError):  # another worker is creating the tables
                if attempt == OPENINGS:
                    raise
                time.sleep(0.2 * attempt)
    except ImportError as error:
        raise ArtifactError(
            f"storage {url}: its driver is missing ({error}). Do this: pip install 'hardware-aware-nas[postgresql]'."
        ) from None
    except (SQLAlchemyError, StorageInternalError, ValueError) as error:
        reason = without_passwords(" ".join(str(error).split()))
        raise ArtifactError(f"storage {url}: cannot be opened ({reason}).") from None
    raise AssertionError("unreachable")


def journal_lock(path: Path) -> BaseJournalFileLock:
    """Return a lock for a journal file that the kernel releases when its holder is killed.

    Optuna's own lock file stays behind a killed process, and the next one then waits 30 s for it. Taking the lock also
    cuts off a last line that a killed writer left unfinished. Windows has no such lock and gets Optuna's.
    """
    from optuna.storages.journal import JournalFileOpenLock

    try:
        import fcntl
    except ImportError:
        return JournalFileOpenLock(str(path))

    class KernelLock(JournalFileOpenLock):
        def __init__(self) -> None:
            super().__init__(str(path))
            self._descriptor = -1

        def acquire(self) -> bool:
            descriptor = os.open(f"{path}.flock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._descriptor = descriptor
            _cut_torn_line(path)
            return True

        def release(self) -> None:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    lock = KernelLock()
    lock.acquire()
    lock.release()
    return lock


def _cut_torn_line(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        data = path.read_bytes()
        file.truncate(data.rfind(b"\n") + 1)


def worker_name() -> str:
    """Return who this process is: host, kernel and process namespace, process number and start time."""
    return _process_name(os.getpid())


def _process_name(pid: int) -> str:
    return f"{_machine()} {pid} {_start_time(pid)}"


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} - -"


def _start_time(pid: int) -> str:
    """Return when a process started; empty where there is none, or one that is dead and not yet buried by its parent."""
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else facts[18]


def alive(owner: str) -> bool | None:
    """Return whether a worker lives; None where it cannot be known from here (another machine, another container)."""
    machine, _, process = owner.rpartition(f"{_machine()} ")
    if machine or not process or _machine().endswith("- -"):
        return None
    pid = int(process.split()[0])
    return bool(_start_time(pid)) and _process_name(pid) == owner
