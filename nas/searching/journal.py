"""Trials in a journal: a file of Optuna's, to which every process appends one line for each thing that happens."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ArtifactError
from nas.searching.backend import CONSTRAINT, Backend, Record, constraints, one_line
from nas.searching.database import open_optuna_study
from nas.searching.locks import FileLock

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages.journal import JournalFileBackend
    from optuna.storages.journal._file import BaseJournalFileLock

logger = logging.getLogger(__name__)

DAMAGE = (ValueError, KeyError, TypeError, AttributeError, AssertionError, IndexError, OverflowError, RecursionError)
"""What Optuna raises at lines that it did not write."""


class Journal(Backend):
    """Trials in a file.

    Args:
        path: The file; made where it is absent.
        timeout_s: How long another process may hold its lock.

    Raises:
        ArtifactError: It cannot be opened; the message says why.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        from optuna.storages import JournalStorage

        self.label = str(path)
        with self._reading():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _file_backend(path, timeout_s)
            self._storage = JournalStorage(self._file)

    @property
    def outages(self) -> int:
        """A file is not away."""
        return 0

    @property
    def optuna_storage(self) -> optuna.storages.BaseStorage:
        """Optuna's object for the same storage."""
        return self._storage

    def studies(self) -> dict[str, int]:
        """Return the studies by name."""
        with self._reading():
            return {study.study_name: study._study_id for study in self._storage.get_all_studies()}

    def open_study(self, name: str, directions: Sequence[str], titles: Sequence[str]) -> int:
        """Return a study by its name, made where it is absent."""
        with self._reading():
            known = {study.study_name: study._study_id for study in self._storage.get_all_studies()}
            return known[name] if name in known else open_optuna_study(self._storage, name, directions, titles)

    def directions(self, study_id: int) -> list[str]:
        """Return the directions of a study's objectives."""
        with self._reading():
            return [direction.name.lower() for direction in self._storage.get_study_directions(study_id)]

    def study_attributes(self, study_id: int) -> Mapping[str, object]:
        """Return the facts stored with a study."""
        with self._reading():
            return dict(self._storage.get_study_user_attrs(study_id))

    def set_study_attribute(self, study_id: int, key: str, value: str) -> None:
        """Store a fact of a study."""
        with self._reading():
            self._storage.set_study_user_attr(study_id, key, value)

    def records(self, study_id: int, first: int, known: set[int]) -> list[Record]:
        """Return the trials from number `first` on, but for the numbers in `known`, in order."""
        with self._reading():
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            return [_record(trial) for trial in trials[first:] if trial.number not in known]

    def create(self, study_id: int, record: Record, distributions: Mapping[str, BaseDistribution], token: str) -> Record:  # noqa: ARG002
        """Append a trial; a file answers at once, so the token is not needed."""
        from optuna.trial import FrozenTrial, TrialState

        state, now = TrialState[record.state], datetime.now()
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=None,
            values=None,
            datetime_start=None if state == TrialState.WAITING else now,
            datetime_complete=now if state.is_finished() else None,
            params=dict(record.params),
            distributions=dict(distributions),
            user_attrs=dict(record.attributes),
            system_attrs=constraints(record.violations),
            intermediate_values={},
        )
        with self._reading():
            trial_id = self._storage.create_new_trial(study_id, template)
            return replace(record, trial_id=trial_id, number=self._storage.get_trial_number_from_id(trial_id))

    def claim(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Set a waiting trial running with its owner."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with self._reading():
            try:
                if not self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    return False
            except UpdateFinishedTrialError:
                return False
        return self.set_attributes(trial_id, attributes)

    def close(self, trial_id: int, state: str, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> bool:
        """End a trial."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if not self.set_attributes(trial_id, attributes):
            return False
        with self._reading():
            try:
                return self._storage.set_trial_state_values(trial_id, TrialState[state], values)
            except UpdateFinishedTrialError:
                return False

    def set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Store attributes of a trial that is not closed."""
        from optuna.exceptions import UpdateFinishedTrialError

        with self._reading():
            try:
                for key, value in attributes.items():
                    self._storage.set_trial_user_attr(trial_id, key, value)
            except UpdateFinishedTrialError:
                return False
        return True

    def clock_s(self) -> float | None:
        """A file has no clock."""
        return None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what a damaged or unreachable file raises into one line."""
        try:
            yield
        except OSError as error:
            raise ArtifactError(f"storage {self.label}: cannot be used ({error.strerror or error}).") from None
        except DAMAGE as error:
            line = getattr(getattr(self, "_file", None), "line", 0)
            where = f"line {line}: " if line else ""
            reason = one_line(f"{type(error).__name__}: {error}")
            raise ArtifactError(f"storage {self.label}: not a journal that can be read ({where}{reason}).") from None


def _record(trial: optuna.trial.FrozenTrial) -> Record:
    violations = {k.removeprefix(CONSTRAINT): v for k, v in trial.system_attrs.items() if k.startswith(CONSTRAINT)}
    return Record(trial._trial_id, trial.number, trial.state.name, trial.params, trial.user_attrs, violations, trial.values)


def _file_backend(path: Path, timeout_s: float) -> JournalFileBackend:
    from optuna.storages.journal import JournalFileBackend

    class NumberedFile(JournalFileBackend):
        """Optuna's file, which knows the line that was read last."""

        line = 0

        def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # a generator is one
            self.line = log_number_from + 1
            for log in super().read_logs(log_number_from):
                yield log
                self.line += 1

    return NumberedFile(str(path), lock_obj=journal_lock(path, timeout_s))


def journal_lock(path: Path, timeout_s: float) -> BaseJournalFileLock:
    """Return a lock for a journal file that the system lets go of when its holder is killed.

    Optuna's own lock file stays behind a killed process, and the next one then waits 30 s for it. Taking the lock also
    cuts off a last line that a killed writer left unfinished.
    """
    from optuna.storages.journal import JournalFileOpenLock

    class JournalLock(JournalFileOpenLock):
        def __init__(self) -> None:
            super().__init__(str(path))
            self._held = FileLock(Path(f"{path}.flock"))

        def acquire(self) -> bool:
            if not self._held.acquire(timeout_s, self._say):
                raise ArtifactError(
                    f"storage {path}: its lock was held for {timeout_s:.0f} s by another process, which may have been stopped. "
                    "Do this: end that process, or a longer --storage-timeout."
                )
            _cut_torn_line(path)
            return True

        def release(self) -> None:
            self._held.release()

        @staticmethod
        def _say() -> None:
            logger.warning("storage %s: its lock is held by another process, waited for up to %.0f s", path, timeout_s)

    lock = JournalLock()
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
