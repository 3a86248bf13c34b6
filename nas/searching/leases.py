"""Leases: a worker says at times that it still works on its trial, and the others notice when it has stopped.

No two machines need agree on the time. A worker counts its renewals; whoever waits for it looks at the number and measures on its own clock for how
long it has not changed. A database has one clock that all can ask: with it, a process that has just been started need not look on for a whole lease
at a trial that has been silent for days.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from nas.errors import NasError
from nas.searching.worker import Worker

T = TypeVar("T")
logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long a worker may be silent before its trial is given to another. Set by hand."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's word that it is at work.

    Attributes:
        worker: Whose.
        count: How often it was renewed.
        at_s: When last, in seconds since 1970 by the storage's clock, or by the worker's where the storage has none.
    """

    worker: Worker
    count: int = 0
    at_s: float = 0.0

    def to_json(self) -> dict[str, float]:
        """Return what changes when it is renewed."""
        return {"count": self.count, "at_s": self.at_s}

    @classmethod
    def from_json(cls, worker: object, data: object) -> Lease:
        """Read a lease; anything but `to_json`'s output is one that was never renewed."""
        fields = data if isinstance(data, Mapping) else {}
        count, at_s = fields.get("count", 0), fields.get("at_s", 0.0)
        number = isinstance(count, int) and isinstance(at_s, int | float)
        return cls(Worker.from_json(worker), count if number else 0, float(at_s) if number else 0.0)


class LeaseWatch:
    """Measures for how long the workers of open trials have been silent, as seen from here.

    Args:
        clock: The storage's, None where it has none.
    """

    def __init__(self, clock: Callable[[], float | None]) -> None:
        self._clock = clock
        self._since_s: dict[int, tuple[int, float]] = {}

    def look(self, trial_id: int, lease: Lease) -> None:
        """Take note of a lease that has just been read."""
        known = self._since_s.get(trial_id)
        if known is None:
            now_s = self._clock()
            silent_s = max(0.0, now_s - lease.at_s) if now_s is not None and lease.at_s else 0.0
            self._since_s[trial_id] = lease.count, time.monotonic() - silent_s
        elif known[0] != lease.count:
            self._since_s[trial_id] = lease.count, time.monotonic()

    def forget(self, trial_id: int) -> None:
        """Drop a trial that has been closed."""
        self._since_s.pop(trial_id, None)

    def restart(self) -> None:
        """Measure anew: while the storage was away, nobody could renew anything."""
        self._since_s = {trial_id: (count, time.monotonic()) for trial_id, (count, _) in self._since_s.items()}

    def silent_s(self, trial_id: int) -> float:
        """Return for how long a trial's worker has been silent; 0 for one that was not looked at."""
        known = self._since_s.get(trial_id)
        return 0.0 if known is None else time.monotonic() - known[1]


class LeaseKeeper(Generic[T]):
    """Renews the lease on the trial at hand from a thread of its own.

    Args:
        renew: Writes a renewal; returns the trial with it.
    """

    def __init__(self, renew: Callable[[T], T]) -> None:
        self._renew = renew
        self._trial: T | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nas-lease", daemon=True)

    def __enter__(self) -> LeaseKeeper[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=LEASE_S)

    def hold(self, trial: T) -> None:
        """Begin with a trial."""
        self._trial = trial

    def release(self) -> None:
        """End with it."""
        self._trial = None

    def _run(self) -> None:
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        while not self._over.wait(LEASE_S / 3):
            trial = self._trial
            if trial is None:
                continue
            try:
                renewed = self._renew(trial)
            except (OptunaError, SQLAlchemyError, NasError, OSError) as error:
                logger.warning("lease: could not be renewed (%s)", error)
            else:
                if self._trial is trial:  # else it was closed meanwhile
                    self._trial = renewed
