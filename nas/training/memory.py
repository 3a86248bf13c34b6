"""What a step leaves is kept for the next one: freed memory, and the kernels that were compiled for its shapes."""

from __future__ import annotations

import ctypes
import os
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


def keep_compiled_kernels() -> None:
    """Let oneDNN keep as many compiled kernels as the members of a space have shapes; it must be called before the first convolution of a process.

    By default oneDNN keeps 1,024 and compiles one anew for each shape that it has forgotten. A supernet's step has some hundred shapes, other ones in every
    step: six steps of `hybrid-s`, run again, took 1.86 s of processor time each with the default and 1.04 s with all kept, for 20 MB.

    Source:
        ``ONEDNN_PRIMITIVE_CACHE_CAPACITY``, https://uxlfoundation.github.io/oneDNN/dev_guide_primitive_cache.html; a value that the user has set stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")
