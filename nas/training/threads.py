"""How many threads the operators of a training have: small maps are quicker on one, since at each operator threads wait for one another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TIMED, _WORTH = 3, 1.25
"""Steps that are timed, and how much quicker twice as many threads must be: threads that wait take a processor all the same. Set by hand."""


@contextmanager
def kept_threads() -> Iterator[None]:
    """Leave the number of threads as it was before."""
    import torch

    own = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(own)


@kept_threads()
def quickest_threads(step: Callable[[], object]) -> int:
    """Return the number of threads, all that there are or fewer by halves, with which a step is quickest; fewer where more are hardly quicker.

    Args:
        step: Is taken a few times with each number.
    """
    import torch

    count, seconds = torch.get_num_threads(), dict[int, float]()
    if count == 1:
        return 1
    while count:
        torch.set_num_threads(count)
        step()
        seconds[count] = statistics.median(_taken_s(step) for _ in range(_TIMED))
        count //= 2
    best = max(seconds)
    while best > 1 and seconds[best // 2] <= _WORTH * seconds[best]:
        best //= 2
    return best


def _taken_s(step: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s
