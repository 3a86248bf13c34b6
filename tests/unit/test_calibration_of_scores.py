"""Scores corrected by a handful of true accuracies: what is predicted, and how often the intervals hold."""

from pathlib import Path

import numpy as np
import pytest

from nas.errors import UsageError
from nas.training.calibration import calibrate
from nas.training.rank import kendall

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench201_accuracy.npz"


@pytest.mark.parametrize("count", [5, 8, 10, 20])
def test_intervals_on_real_accuracies_hold_as_often_as_they_say(count: int) -> None:
    """Scores are made up from the true order of 500 networks of NAS-Bench-201, so that the test needs no training."""
    if not TABLE.exists():
        pytest.skip("the accuracies are not at ../shared/data")
    rng = np.random.default_rng(0)
    with np.load(TABLE) as table:
        truth = rng.choice(table["accuracy"][:, 0], 500, replace=False)
    order = np.argsort(np.argsort(truth)) / len(truth)
    scores = np.stack([order + spread * rng.normal(size=500) for spread in (0.25, 0.3, 0.5)], axis=1)
    held, better = [], []
    for _ in range(60):
        known = rng.permutation(500)[:count]
        rest = np.setdiff1d(np.arange(500), known)
        found = calibrate(scores, known, truth[known])
        assert np.all((found.lower_pct <= found.accuracy_pct) & (found.accuracy_pct <= found.upper_pct))
        held.append(np.mean((truth[rest] >= found.lower_pct[rest]) & (truth[rest] <= found.upper_pct[rest])))
        better.append((kendall(truth[rest], found.accuracy_pct[rest]) or 0) - (kendall(truth[rest], scores[rest, 2]) or 0))
    assert 0.85 <= np.mean(held) <= 0.95
    assert count < 10 or np.mean(better) > 0


def test_the_model_recovers_what_it_assumes() -> None:
    scores = np.linspace(-1, 1, 200)[:, None] ** 3
    ranks = np.log((np.arange(200) + 0.5) / 200)
    truth = 100 - np.exp(2.0 - 0.3 * (ranks - ranks.mean()) / ranks.std())
    known = np.arange(5, 200, 16)
    found = calibrate(scores, known, truth[known])
    assert np.max(np.abs(found.accuracy_pct - truth)) < 0.5
    nothing = np.where(np.arange(200) == 0, -np.inf, scores[:, 0])[:, None]
    assert np.all(np.isfinite(calibrate(nothing, known, truth[known]).accuracy_pct))


def test_too_few_known_accuracies_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got 4\. Expected at least 5"):
        calibrate(np.arange(20.0)[:, None], np.arange(4), np.linspace(80, 90, 4))
