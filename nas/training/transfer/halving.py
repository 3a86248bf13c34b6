"""Successive halving: contestants train a while, the better half goes on, until two are left that a paired test compares.

What the winner trained is not lost: each runs the beginning of its own full schedule.

Source:
    Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", arXiv 1502.07943. Differs: a contestant's
    resource is its share of a schedule whose length suits its own speed, so that all are compared after equal time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nas.errors import TrainingError

K = TypeVar("K")
Right = npt.NDArray[np.bool_]

RUNGS = (0.06, 0.16)
"""Share of the schedule that is done when contestants are compared, rung by rung. Set by hand."""


def halve(
    contestants: Sequence[K],
    train: Callable[[K, int], Right],
    *,
    rungs: int = len(RUNGS),
    dropped: Callable[[K, str], None] = lambda _contestant, _why: None,
) -> tuple[Mapping[K, Right], tuple[K, ...]]:
    """Return what each was worth when it was last looked at, and those that are left, the best first.

    Args:
        contestants: The most promising first; ties are broken in their favour.
        train: Trains one up to a rung and returns which validation pictures it gets right; it may raise TrainingError.
        rungs: Their number.
        dropped: Told of one that could not be trained, and why.

    Raises:
        TrainingError: None could be trained.
    """
    alive, worth = list(contestants), dict[K, Right]()
    fault = TrainingError("fine-tuning: nothing to train.")
    for rung in range(rungs):
        if len(alive) < 2:
            break
        for contestant in list(alive):
            try:
                worth[contestant] = train(contestant, rung)
            except TrainingError as error:
                fault = error
                alive.remove(contestant)
                dropped(contestant, str(error))
        alive.sort(key=lambda one: -float(worth[one].mean()))  # stable: the order given breaks ties
        left = len(alive) if rung == rungs - 1 else max((len(alive) + 1) // 2, min(len(alive), 2))
        alive = alive[:left]
    if not alive:
        raise fault
    return worth, tuple(alive)
