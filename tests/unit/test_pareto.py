"""Hypervolume and front against what can be counted by hand."""

from itertools import combinations

import numpy as np
import pytest

from nas.searching.pareto import front, hypervolume


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """The union of boxes between each point and the reference."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in combinations(points, size):
            total -= (-1) ** size * np.prod(np.maximum(reference - np.max(chosen, axis=0), 0.0))
    return float(total)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_hypervolume_is_the_union_of_boxes(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for count in (1, 2, 7):
        points = rng.uniform(-1, 1.2, (count, objectives))  # some lie outside
        reference = np.ones(objectives)
        assert hypervolume(points, reference.tolist()) == pytest.approx(by_inclusion_and_exclusion(points, reference), rel=1e-12, abs=1e-12)
        assert hypervolume(np.concatenate([points, points]), reference.tolist()) == pytest.approx(hypervolume(points, reference.tolist()))


def test_nothing_within_the_reference_has_no_volume() -> None:
    assert hypervolume([], (1.0, 1.0)) == 0.0
    assert hypervolume([(1.0, 0.0), (2.0, 2.0)], (1.0, 1.0)) == 0.0


def test_equal_points_stand_once_on_the_front() -> None:
    assert front([(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (2.0, 2.0)]) == [0, 1]
