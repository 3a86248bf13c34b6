"""What a newer SDK does to latencies, from a few networks that were timed on it again.

On one device two things move: all work by a factor, and what it costs to start a network by a constant. With the former latency t of a network,

    t' = f · t + c

log f and c are a penalised fit with Student's errors to the networks timed on both, so that a network which is compiled to another graph by now moves
nothing. That a constant moves was seen on SA8295P from QAIRT 2.45 to 2.50: networks of one millisecond gained as many microseconds as networks of six.

Source: MacKay, "Bayesian Interpolation" (1992) for the penalty as a prior; Lange, Little & Taylor (1989) for Student's errors by reweighting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.devices.profile import SdkDrift

FEWEST = 3
"""Networks below which nothing is said of the others."""

HALFWIDTH_PCT = 13.0
"""Within which 90 % of the other networks lay when five were timed again, in the releases up to QAIRT 2.45 (``experiments/004_qualcomm_latency/drift.py``)."""

_FACTOR_SD, _START_SD_MS = 0.03, 0.1
"""Standard deviations of log f and of c before anything is timed again."""

_NOISE, _FREEDOM = 0.02, 3.0
"""Scale of a network's own change, and how heavy its tails are."""

_LEAST_SHARE = 0.3
"""Of its former latency, below which no network falls by the constant."""


def fit_drift(before_ms: Sequence[float], after_ms: Sequence[float]) -> tuple[float, float]:
    """Return f and c in ms from latencies of the same networks, shape (n,) each."""
    before, after = np.asarray(before_ms, dtype=float), np.asarray(after_ms, dtype=float)
    log_f = c = 0.0
    penalty = np.array([_FACTOR_SD**-2, _START_SD_MS**-2])
    for _ in range(25):
        scaled = math.exp(log_f) * before
        expected = np.maximum(scaled + c, _LEAST_SHARE * before)
        residual = np.log(after / expected)
        slopes = np.stack([scaled / expected, 1 / expected], axis=1)
        weight = (_FREEDOM + 1) / (_FREEDOM + (residual / _NOISE) ** 2) / _NOISE**2
        curvature = (slopes * weight[:, None]).T @ slopes + np.diag(penalty)
        step = np.linalg.solve(curvature, slopes.T @ (weight * residual) - penalty * np.array([log_f, c]))
        log_f, c = log_f + float(step[0]), c + float(step[1])
        c = max(c, -(1 - _LEAST_SHARE) * math.exp(log_f) * float(before.min()))
    return math.exp(log_f), c


def drift_of(before_ms: Sequence[float], after_ms: Sequence[float], version: str) -> SdkDrift | None:
    """Return what moved since an SDK; None where fewer than `FEWEST` networks say so.

    Args:
        before_ms: Latencies under the SDK of a profile.
        after_ms: The same networks' under the newer one.
        version: SDK of the profile.
    """
    if len(before_ms) < FEWEST:
        return None
    factor, start_ms = fit_drift(before_ms, after_ms)
    return SdkDrift(factor=factor, start_ms=start_ms, networks=len(before_ms), halfwidth_pct=HALFWIDTH_PCT, since=version)
