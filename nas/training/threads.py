"""How many threads the operators of a training have: small maps are quicker on one, since at each operator threads wait for one another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_TIMED = 3  # by hand


@contextmanager
def kept_threads() -> Iterator[None]:
    """Leave the number of threads as it was before."""
    own = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(own)


@kept_threads()
def quickest_threads(step: Callable[[], object]) -> int:
    """Return the number of threads, all that there are or fewer by halves, with which a step is quickest.

    Args:
        step: Is taken a few times with each number.
    """
    count, seconds = torch.get_num_threads(), dict[int, float]()
    if count == 1:
        return 1
    while count:
        torch.set_num_threads(count)
        step()
        seconds[count] = statistics.median(_taken_s(step) for _ in range(_TIMED))
        count //= 2
    return min(seconds, key=seconds.__getitem__)


def _taken_s(step: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s
