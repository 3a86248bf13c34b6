"""A lock on a file that the system lets go of when its holder ends, killed or not: on Linux, macOS and Windows.

The work is that of ``filelock`` (``flock`` on POSIX, ``msvcrt.locking`` on Windows; a file that exists where there is neither).
What is added: waiting in small steps, with a line for the user and a limit. Where only the base of the distribution is installed, POSIX's
``flock`` is called without that library: the same lock on the same file.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

FIRST_STEP_S, LONGEST_STEP_S = 0.0005, 0.05  # by hand; each pause is twice the last
_JITTER = random.SystemRandom()
PATIENCE_S = 2.0
"""How long a lock is waited for before anybody is told. Set by hand."""


class _Lock(Protocol):
    """A lock that is tried once at a time."""

    def tried(self) -> bool:
        """Return whether it is ours now."""

    def release(self) -> None:
        """Let go of it."""


class _Flock:
    """``flock`` by itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def tried(self) -> bool:
        import fcntl

        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Library:
    """The lock of ``filelock``; where the file itself is the lock, it must not be there before."""

    def __init__(self, path: Path) -> None:
        import filelock

        if issubclass(filelock.FileLock, filelock.SoftFileLock):
            if path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            mode = 0o644
        else:
            mode = _made(path)
        self._lock = filelock.FileLock(str(path), mode=mode)
        self._timeout = filelock.Timeout

    def tried(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except self._timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()


def _lock_of(path: Path) -> _Lock:
    from importlib.util import find_spec

    if sys.platform == "win32" or find_spec("filelock") is not None:
        return _Library(path)
    _made(path)
    return _Flock(path)


def _made(path: Path) -> int:
    """Create the file where it is absent, as the umask says, and return its permissions; a link is never written through."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


class FileLock:
    """An exclusive lock. Each object takes it once; other objects and other processes wait.

    Args:
        path: The file that stands for the lock. It stays when the lock is free.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: _Lock | None = None

    def acquire(self, limit_s: float = 0.0, waiting: Callable[[], None] | None = None) -> bool:
        """Take the lock; return whether it was had within `limit_s`.

        Args:
            limit_s: How long to wait for another holder.
            waiting: Called once where it takes longer than `PATIENCE_S`.
        """
        began_s, step_s = time.monotonic(), FIRST_STEP_S
        self._lock = self._lock or _lock_of(self.path)
        while not self._lock.tried():
            waited_s = time.monotonic() - began_s
            if waited_s >= limit_s:
                return False
            if waiting is not None and waited_s > PATIENCE_S:
                waiting()
                waiting = None
            time.sleep(step_s * _JITTER.uniform(0.5, 1.0))
            step_s = min(2 * step_s, LONGEST_STEP_S)
        return True

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()
