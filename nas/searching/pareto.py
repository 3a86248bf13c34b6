"""Pareto dominance, hypervolume and knee points, on losses (everything is minimised)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nas.searching.objective import COSTS, Goal
from nas.searching.searcher import Trial

Floats = npt.NDArray[np.float64]


def front(losses: npt.ArrayLike) -> list[int]:
    """Return the indices of the points that no other point dominates, in the order given; of equal points the first.

    Args:
        losses: Shape (points, objectives).
    """
    points = np.asarray(losses, dtype=float)
    members: list[int] = []
    for i in np.lexsort(points.T[::-1]).tolist() if len(points) else []:
        if not any(np.all(points[k] <= points[i]) for k in members):
            members.append(i)
    return sorted(members)


def hypervolume(losses: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Return the volume that the points dominate within `reference`; points outside it add nothing.

    Source:
        moocore's exact algorithm (Fonseca, Paquete and López-Ibáñez, CEC 2006; HV3D+ and HV4D+ in three and four dimensions).
    """
    import moocore

    points = np.asarray(losses, dtype=float).reshape(-1, len(reference))
    inside = points[np.all(points < np.asarray(reference), axis=1)]
    return float(moocore.hypervolume(inside, ref=np.asarray(reference, dtype=float))) if len(inside) else 0.0


def knee(losses: npt.ArrayLike) -> int:
    """Return the index of the front point farthest below the line (plane) through the extremes, after scaling to [0, 1].

    Source:
        Das, "On characterizing the knee of the Pareto curve based on normal-boundary intersection", 1999; here the
        distance is measured along the diagonal, which orders points alike.
    """
    points = np.asarray(losses, dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))


class Front:
    """The trials that no other one dominates, kept as they come.

    Args:
        goal: Gives the losses.
    """

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._points: dict[int, tuple[float, ...]] = {}
        self._worst: tuple[float, ...] | None = None

    @property
    def numbers(self) -> frozenset[int]:
        """Numbers of the trials on the front."""
        return frozenset(self._points)

    def losses(self) -> list[tuple[float, ...]]:
        """Return the losses of the points."""
        return list(self._points.values())

    def add(self, trial: Trial) -> bool:
        """Take a trial in; return whether the front changed. An infeasible one, or one that repeats a point, does not count."""
        if not (trial.evaluated and trial.feasible):
            return False
        new = self._goal.losses(trial.values)
        self._worst = new if self._worst is None else tuple(map(max, self._worst, new))
        if any(all(a <= b for a, b in zip(old, new, strict=True)) for old in self._points.values()):
            return False
        self._points = {n: old for n, old in self._points.items() if not all(a <= b for a, b in zip(new, old, strict=True))}
        self._points[trial.number] = new
        return True

    def reference(self) -> tuple[float, ...]:
        """Return the reference point: the limit where an objective has a budget, 0 % accuracy, else the worst value seen."""
        limits = {
            COSTS[b.limit.quantity] + (f"/{b.device}" if b.device else ""): b.limit.value
            for b in self._goal.budgets
            if b.limit.quantity in COSTS
        }
        worst = self._worst or (0.0,) * len(self._goal.objectives)
        return tuple(
            0.0 if objective.direction == "maximize" and loss <= 0 else limits.get(objective.name, loss)
            for objective, loss in zip(self._goal.objectives, worst, strict=True)
        )
