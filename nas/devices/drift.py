"""What a newer SDK does to latencies, from a few networks that were timed on it again.

On one device two things move: all work by a factor, and what it costs to start a network by a constant. With the former latency t of a network,

    t' = f · t + c

log f and c are a penalised fit with Student's errors to the networks timed on both, so that a network which is compiled to another graph by now moves
nothing. The priors stand about no change; where the median of the ratios is a tenth off and most networks are near it, about that.
The interval is at least as wide as the residuals say. That a constant moves was seen on SA8295P from QAIRT 2.45 to 2.50: networks of one millisecond gained as many microseconds as networks of six.

Source: MacKay, "Bayesian Interpolation" (1992) for the penalty as a prior; Lange, Little & Taylor (1989) for Student's errors by reweighting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.devices.profile import LEAST_SHARE, SdkDrift

FEWEST = 3
"""Networks below which they say nothing of the others. Set by hand."""

HALFWIDTH_PCT = 13.0
"""Within which 90 % of the other networks lay when five were timed again, in the releases up to QAIRT 2.45 (``experiments/004_qualcomm_latency/drift.py``)."""

UNKNOWN_PCT = 29.0
"""Within which 90 % lay on QAIRT 2.50 at the precision that moved most, w8a8, where nothing was moved (same replay)."""

_FACTOR_SD, _START_SD_MS = 0.03, 0.1
"""Standard deviations of log f and of c before anything is timed again. Set by hand."""

_LARGE = 0.1
"""Median of the log ratios from which on the prior stands about it, where the networks agree. Set by hand."""

_AGREEING = 0.1
"""They do where three quarters of them are nearer to the median than this share of it. Set by hand."""

_NOISE, _FREEDOM = 0.02, 3.0
"""Scale of a network's own change, and how heavy its tails are. Set by hand."""

_CONTRADICTORY = 0.25
"""Median of the residuals' sizes, in the logarithm, above which the networks say nothing in common. Set by hand."""

_STUDENT_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
"""Quantiles at 95 % of Student's distribution for 1 to 10 degrees of freedom. Source: any table of it."""


def fit_drift(before_ms: Sequence[float], after_ms: Sequence[float]) -> tuple[float, float]:
    """Return f and c in ms from latencies of the same networks, shape (n,) each."""
    before, after = np.asarray(before_ms, dtype=float), np.asarray(after_ms, dtype=float)
    middle = float(np.median(np.log(after / before)))
    apart = float(np.quantile(np.abs(np.log(after / before) - middle), 0.75))
    centre = middle if abs(middle) >= _LARGE and apart <= _AGREEING * abs(middle) else 0.0
    log_f, c = centre, 0.0
    penalty = np.array([_FACTOR_SD**-2, _START_SD_MS**-2])
    for _ in range(25):
        scaled = math.exp(log_f) * before
        expected = np.maximum(scaled + c, LEAST_SHARE * scaled)
        residual = np.log(after / expected)
        slopes = np.stack([scaled / expected, 1 / expected], axis=1)
        weight = (_FREEDOM + 1) / (_FREEDOM + (residual / _NOISE) ** 2) / _NOISE**2
        curvature = (slopes * weight[:, None]).T @ slopes + np.diag(penalty)
        step = np.linalg.solve(curvature, slopes.T @ (weight * residual) - penalty * np.array([log_f - centre, c]))
        log_f, c = log_f + float(step[0]), c + float(step[1])
        c = max(c, -(1 - LEAST_SHARE) * math.exp(log_f) * float(before.min()))
    return math.exp(log_f), c


def halfwidth_pct_of(before_ms: Sequence[float], after_ms: Sequence[float], factor: float, start_ms: float) -> float:
    """Return the half width of the 90 % interval in per cent: what former SDKs showed, or what these residuals say, whichever is wider.

    Raises:
        ValueError: The networks contradict each other.
    """
    before, after = np.asarray(before_ms, dtype=float), np.asarray(after_ms, dtype=float)
    middle = float(np.median(np.abs(np.log(after / np.maximum(factor * before + start_ms, LEAST_SHARE * factor * before)))))
    if middle > _CONTRADICTORY:
        ratios = np.sort(after / before)
        raise ValueError(
            f"networks timed on both SDKs contradict each other, got {ratios[0]:.3g} to {ratios[-1]:.3g} times the former latency of {len(ratios)}. "
            "Do this: look for another board or another clock among them."
        )
    freedom = max(1, len(before) - 2)
    quantile = _STUDENT_95[freedom - 1] if freedom <= len(_STUDENT_95) else 1.645 + 1.52 / freedom
    own = 1.4826 * middle * math.sqrt(len(before) / freedom) * quantile * math.sqrt(1 + 1 / len(before))
    return float(min(100.0, max(HALFWIDTH_PCT, 100 * math.expm1(own))))


def drift_of(before_ms: Sequence[float], after_ms: Sequence[float], version: str) -> SdkDrift:
    """Return what moved since an SDK; with fewer than `FEWEST` networks nothing does, within a wider interval.

    Args:
        before_ms: Latencies under the SDK of a profile.
        after_ms: The same networks' under the newer one.
        version: SDK of the profile.

    Raises:
        ValueError: The networks contradict each other.
    """
    if len(before_ms) < FEWEST:
        return SdkDrift(factor=1.0, networks=len(before_ms), halfwidth_pct=UNKNOWN_PCT, since=version)
    factor, start_ms = fit_drift(before_ms, after_ms)
    halfwidth_pct = halfwidth_pct_of(before_ms, after_ms, factor, start_ms)
    return SdkDrift(factor=factor, start_ms=start_ms, networks=len(before_ms), halfwidth_pct=halfwidth_pct, since=version)
