"""How a search that trains shares its time limit among its phases, and what it does by default without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.runs.clock import Clock
from nas.runs.request import Request

EVALUATIONS = 120
"""Accuracies that a search computes by default."""

SHOWN_EPOCHS, SHOWN_EVALUATIONS = 3, 24
"""Epochs of fine-tuning (`nas.training.supernet.train.PASSES` times as many of shared weights) and accuracies where no pictures are given: the embedded ones show that everything works, in some three minutes on two cores.
Set by hand."""

MOST_EPOCHS = 300
"""Of a training whose time limit decides. Set by hand."""

TRAINED, SEARCHED = 0.55, 0.68
"""Share of the limit after which shared weights are trained, and after which no further candidate is scored; fine-tuning has the rest."""

SEARCHED_ALONE = 0.1
"""Likewise where no weights are shared, and candidates are ordered by training-free scores."""

EXPORT_S = 30.0
"""Kept for the export itself; the test of the file comes on top. Set by hand."""


@dataclass(frozen=True)
class Pace:
    """What each phase of a run may take.

    Args:
        request: Of the run.
        clock: Of the run; its limit, if there is one, is for all phases.
    """

    request: Request
    clock: Clock

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.clock.limit_s is not None

    def until(self, share: float) -> Callable[[], float] | None:
        """Return what says how many seconds are left until a share of the limit is spent; None without a limit."""
        limit_s = self.clock.limit_s
        return None if limit_s is None else lambda: share * limit_s - self.clock.spent_s

    def but(self, reserve_s: float) -> Callable[[], float] | None:
        """Return what says how many seconds are left but for a reserve at the end; None without a limit."""
        return (lambda: self.clock.left_s - reserve_s) if self.limited else None

    def epochs(self, requested: int | None, default: int) -> int:
        """Return the epochs of a training: as asked; else by the limit, if there is one; else the default. Nothing that is not trained by default is."""
        return requested or (MOST_EPOCHS if self.limited and default else default)


def evaluations(request: Request) -> int:
    """Return how many accuracies a search computes."""
    by_user = request.data or request.storage or request.tables or request.supernet or request.evaluator or request.time_limit
    return request.evals or (EVALUATIONS if by_user else SHOWN_EVALUATIONS)
