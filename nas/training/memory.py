"""Large tensors without page faults: memory that a step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``: ``malloc.h``."""


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; return whether it took that (glibc alone does).

    By default glibc takes each large tensor from the system and gives it back at once, so that every step pays a page fault for each 4 KiB of it:
    a fifth to a third of the time of a step of EfficientNet-Lite1 at 128 px on the machine where that was tried. The process keeps its peak.

    Source:
        mallopt(3), ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
