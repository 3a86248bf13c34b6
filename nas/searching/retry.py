"""Calls to a storage that is away for a while: repeated with growing pauses, up to a limit.

Which calls may be repeated as they are: reading, and writing a value that replaces another. Which may not: creating a trial,
taking a waiting one, closing one. Each of these is one transaction, and the answer to it may be lost on the way although it was
done; a repeated call therefore looks first whether its first try has been done (`nas.searching.database`).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from nas.errors import ArtifactError
from nas.searching.address import without_passwords
from nas.searching.backend import one_line

T = TypeVar("T")
logger = logging.getLogger(__name__)

STORAGE_TIMEOUT_S = 60.0
"""How long a storage may be away before its user gives up; ``--storage-timeout``. Set by hand."""

_JITTER = random.SystemRandom()
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 3.0  # by hand; each pause is twice the last
QUIET_S = 0.5
"""Shorter interruptions are not worth a line: a connection that was closed while idle. Set by hand."""

_REFUSED = {"28", "3D", "42", "0A", "22"}
"""Classes of SQLSTATE that no waiting changes: authorisation, unknown database, wrong statement, unsupported, wrong data."""
_REFUSALS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied", "no password supplied")
_MYSQL_REFUSALS = {1044, 1045, 1049}


class Retry:
    """Repeats what fails because the storage is away.

    Args:
        label: Name of the storage in messages.
        limit_s: How long it may be away.
    """

    def __init__(self, label: str, limit_s: float = STORAGE_TIMEOUT_S) -> None:
        self.label, self.limit_s = label, limit_s
        self.outages = 0
        """How many interruptions there were so far."""

    def __call__(self, call: Callable[[bool], T]) -> T:
        """Return what `call` returns; it is told whether it has been tried before.

        Raises:
            ArtifactError: The storage was away for longer than the limit.
        """
        began_s, pause_s, warned = time.monotonic(), FIRST_PAUSE_S, False
        again = False
        while True:
            try:
                return call(again)
            except Exception as error:
                if not is_transient(error):
                    raise
                reason, away_s = reason_of(error), time.monotonic() - began_s
            if not again:
                self.outages += 1
            again = True
            if away_s >= self.limit_s:
                raise ArtifactError(
                    f"storage {self.label}: away for {away_s:.0f} s ({reason}). Do this: start it, then nas resume, or nas worker again; "
                    "a longer wait is --storage-timeout."
                )
            if away_s > QUIET_S and not warned:
                logger.warning("storage %s: away (%s), tried again for %.0f s", self.label, reason, self.limit_s)
                warned = True
            time.sleep(min(pause_s * _JITTER.uniform(0.5, 1.0), max(0.01, self.limit_s - away_s)))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def is_transient(error: BaseException) -> bool:
    """Return whether an error says that a database is away, starting, or busy, rather than that it refuses."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, DBAPIError):
        return False
    if cause.connection_invalidated:
        return True
    if not isinstance(cause, OperationalError | InterfaceError):
        return False
    origin: object = cause.orig
    if (name := getattr(origin, "sqlite_errorname", None)) is not None:
        return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    if state is not None:
        return str(state)[:2] not in _REFUSED
    arguments = getattr(origin, "args", ())
    return not (any(refusal in str(origin) for refusal in _REFUSALS) or (arguments and arguments[0] in _MYSQL_REFUSALS))


def reason_of(error: BaseException) -> str:
    """Return the first line of what a database says."""
    cause = error.__cause__ if error.__cause__ is not None else error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(cause).__name__]
    return without_passwords(one_line(lines[0])).rstrip(".")
