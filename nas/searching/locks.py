"""A lock on a file that the system lets go of when its holder ends, killed or not: on Linux, macOS and Windows.

The work is that of ``filelock`` (``flock`` on POSIX, ``msvcrt.locking`` on Windows; a file that exists where there is neither).
What is added: waiting in small steps, with a line for the user and a limit.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

import filelock

FIRST_STEP_S, LONGEST_STEP_S = 0.0005, 0.05
_JITTER = random.SystemRandom()
PATIENCE_S = 2.0
"""How long a lock is waited for before anybody is told."""


class FileLock:
    """An exclusive lock. Each object takes it once; other objects and other processes wait.

    Args:
        path: The file that stands for the lock. It stays when the lock is free.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: filelock.BaseFileLock | None = None

    def acquire(self, limit_s: float = 0.0, waiting: Callable[[], None] | None = None) -> bool:
        """Take the lock; return whether it was had within `limit_s`.

        Args:
            limit_s: How long to wait for another holder.
            waiting: Called once where it takes longer than `PATIENCE_S`.
        """
        began_s, step_s = time.monotonic(), FIRST_STEP_S
        self._lock = self._lock or filelock.FileLock(str(self.path), mode=self._made())
        while True:
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                waited_s = time.monotonic() - began_s
                if waited_s >= limit_s:
                    return False
                if waiting is not None and waited_s > PATIENCE_S:
                    waiting()
                    waiting = None
                time.sleep(step_s * _JITTER.uniform(0.5, 1.0))
                step_s = min(2 * step_s, LONGEST_STEP_S)
            else:
                return True

    def _made(self) -> int:
        """Create the file where it is absent, as the umask says, and return its permissions; a link is never written through."""
        if issubclass(filelock.FileLock, filelock.SoftFileLock):  # there the file itself is the lock, and must not be there
            if self.path.is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.path))
            return 0o644
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            return stat.S_IMODE(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()
