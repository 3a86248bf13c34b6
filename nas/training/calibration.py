"""Accuracies of many candidates from scores of all and true accuracies of a handful, with an interval for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.errors import UsageError

Values = npt.NDArray[np.float64]

COVERAGE = 0.9  # nominal; the same as for latencies
FEWEST_KNOWN = 5
"""True accuracies that an interval takes at least. By hand: from five, intervals at 90 % held 86 to 88 % of NAS-Bench-201's networks (``experiments/033_known_accuracies``)."""
_SAME = 0.1
"""Penalty on the weight that all scores have in common, in observations. Set by hand."""


@dataclass(frozen=True)
class Calibrated:
    """What the scores of candidates say of their accuracies.

    Attributes:
        accuracy_pct: Predicted, shape (n,).
        lower_pct: Lower end of the interval, shape (n,).
        upper_pct: Upper end, shape (n,).
    """

    accuracy_pct: Values
    lower_pct: Values
    upper_pct: Values


def calibrate(scores: Values, known: npt.NDArray[np.int64], accuracy_pct: Values, coverage: float = COVERAGE) -> Calibrated:
    """Correct scores of any scale by the true accuracies of a few candidates.

    Each score becomes the logarithm of its rank among the candidates, as in `nas.training.score.vote`. The logarithm of the error is a line in their mean, from
    which the single scores' weights differ as far as the true accuracies insist.

    Args:
        scores: Candidates × scores; higher is better.
        known: Indices of the candidates whose accuracy is known; drawn at random, or the intervals do not hold.
        accuracy_pct: Theirs, shape (len(known),).
        coverage: Of the intervals.

    Raises:
        UsageError: Too few are known.

    Source:
        Ridge regression towards equal weights, as for a vote; the penalty of a deviation is as many observations as there are. Intervals: jackknife+,
        Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+", arXiv 1905.02928, equation 1.4: they hold for candidates drawn as
        the known ones were, whatever the model is worth, at 1 − 2α by proof and at 1 − α in practice. They need not hold for candidates picked by their score.
        They take α⁻¹ − 1 known accuracies, nine at 90 %; of fewer, Student's t with the residuals of leaving one out, which takes them for normal.
    """
    m = len(known)
    if m < FEWEST_KNOWN:
        raise UsageError(f"calibration: too few known accuracies, got {m}. Expected at least {FEWEST_KNOWN}.")
    x, y = _features(scores), np.log(np.maximum(100.0 - accuracy_pct, 0.01))
    left_out = np.stack([x @ _weights(np.delete(x[known], i, axis=0), np.delete(y, i)) for i in range(m)])  # (m, n)
    residuals = np.abs(y - left_out[np.arange(m), known])
    predicted = x @ _weights(x[known], y)
    least, most = _ends(left_out, residuals, predicted, coverage)
    return Calibrated(_accuracy(predicted), _accuracy(np.maximum(most, predicted)), _accuracy(np.minimum(least, predicted)))


def _ends(left_out: Values, residuals: Values, predicted: Values, coverage: float) -> tuple[Values, Values]:
    """Return the ends of the intervals on the logarithm of the error, each of shape (n,)."""
    m = len(residuals)
    rank = math.ceil(coverage * (m + 1) - 1e-9)
    if rank <= m:
        return np.sort(left_out - residuals[:, None], axis=0)[m - rank], np.sort(left_out + residuals[:, None], axis=0)[rank - 1]
    from scipy.stats import t

    half = float(t.ppf((1 + coverage) / 2, m - 1) * np.sqrt(np.mean(residuals**2)))
    return predicted - half, predicted + half


def _accuracy(log_error: Values) -> Values:
    return np.asarray(np.clip(100.0 - np.exp(log_error), 0.0, 100.0), dtype=float)


def _features(scores: Values) -> Values:
    """Return a constant, the mean of the logarithms of the ranks, and how each differs from it: shape (n, 2 + scores)."""
    from scipy.stats import rankdata

    lowest = np.min(np.where(np.isfinite(scores), scores, np.inf), axis=0)
    finite = np.where(
        np.isfinite(scores), scores, np.where(np.isfinite(lowest), lowest, 0.0) - 1.0
    )  # nothing passes through: below all others
    ranks = np.log((rankdata(finite, axis=0) - 0.5) / len(finite))
    spread = ranks.std(axis=0)
    alike = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    mean = alike.mean(axis=1, keepdims=True)
    return np.hstack([np.ones_like(mean), mean, alike - mean])


def _weights(x: Values, y: Values) -> Values:
    penalty = np.diag([0.0, _SAME, *[float(len(x))] * (x.shape[1] - 2)])
    return np.asarray(np.linalg.solve(x.T @ x + penalty, x.T @ y), dtype=float)
