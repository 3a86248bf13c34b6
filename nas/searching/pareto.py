"""Pareto dominance, hypervolume and knee points, on losses (everything is minimised)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def front(losses: npt.ArrayLike) -> list[int]:
    """Return the indices of the points that no other point dominates, in the order given; of equal points the first.

    Args:
        losses: Shape (points, objectives).
    """
    points = np.asarray(losses, dtype=float)
    kept: list[int] = []
    for i in np.lexsort(points.T[::-1]).tolist() if len(points) else []:
        if not any(np.all(points[k] <= points[i]) for k in kept):
            kept.append(i)
    return sorted(kept)


def hypervolume(losses: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Return the volume that the points dominate within `reference`; points outside it add nothing.

    Source:
        Optuna's exact algorithm (WFG; sweep in two dimensions).
    """
    from optuna._hypervolume import compute_hypervolume

    points = np.asarray(losses, dtype=float).reshape(-1, len(reference))
    inside = points[np.all(points < np.asarray(reference), axis=1)]
    return float(compute_hypervolume(inside, np.asarray(reference, dtype=float))) if len(inside) else 0.0


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
