"""What timings of a few candidates say about the estimates of all others on the same device.

A latency model's errors on candidates of one search are alike: a part is common to all of them, since they are made of the same operators for the same
device, and the rest is each one's own. With log residuals rᵢ of K timed candidates and the standard deviations sᵢ that their intervals stand for,

    rᵢ = f + uᵢ,    f ~ N(0, ρ s²),    uᵢ ~ N(0, g (1 − ρ) sᵢ²)

f is the device's one factor (log), estimated by its posterior mean; g, how far the rest is from what the intervals say, has a scaled inverse χ² prior
around one, so that a handful of timings that agree narrow the intervals and some that contradict each other widen them.

Source: normal linear model with conjugate priors (Gelman et al., "Bayesian Data Analysis", chapter 3); f first, then g, in place of both together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

from nas.devices.predictor import Estimate, OperatorLatency, spread_of_repeats

COMMON = 0.15
"""ρ: the share of an error's square that candidates of one search have in common. Two networks of one lineage have .15 in common on a board at fp16
(.12 at w8a16, .07 at w8a8; 980, 564 and 766 predictions of left-out lineages in experiments/004_qualcomm_latency), two of any lineage .02."""

_REPEATS_PCT = 0.5
"""Median difference of two timings of a network by the same software: AI Hub's repeat within .2 to 1 % on one SDK.
Source: AI Hub's published tables."""

_TRUST = 5.0
"""Timings that the intervals' own scale is worth. Set by hand."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One candidate that was timed.

    Attributes:
        latency_ms: Central value of what was known of it.
        lower_ms: Lower end.
        upper_ms: Upper end.
        measured_ms: The device's word.
        iqr_ms: Interquartile range of its samples.
        estimated: Whether what was known was a model's word: only that says something about other estimates.
    """

    latency_ms: float
    lower_ms: float
    upper_ms: float
    measured_ms: float
    iqr_ms: float = 0.0
    estimated: bool = True

    def spread(self, confidence: float) -> float:
        """Return the factor within which another timing by the same software lies."""
        return max(spread_of_repeats(_REPEATS_PCT, confidence), 1 + self.iqr_ms / self.measured_ms)


@dataclass(frozen=True)
class Correction:
    """How estimates of a device change.

    Attributes:
        factor: On central values.
        width_factor: On the logarithm of both half widths.
        count: Timings that it comes from.
        timed: The device's word, ms, and the factor within which another timing lies, by key of the architecture.
    """

    factor: float
    width_factor: float
    count: int
    timed: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def applied(self, estimate: Estimate, key: str = "") -> Estimate:
        """Return the estimate of an architecture as the timings have it; one that was timed is measured."""
        if (known := self.timed.get(key)) is not None:
            ms, spread = known
            return replace(
                estimate,
                latency_ms=ms,
                lower_ms=ms / spread,
                upper_ms=ms * spread,
                basis="measured",
                extrapolated=(),
                operators=_scaled(estimate, ms / max(estimate.latency_ms, 1e-9)),
            )
        if estimate.basis != "estimated" or not estimate.lower_ms:
            return estimate
        central = estimate.latency_ms * self.factor
        lower, upper = ((end / estimate.latency_ms) ** self.width_factor for end in (estimate.lower_ms, estimate.upper_ms))
        return replace(
            estimate, latency_ms=central, lower_ms=central * lower, upper_ms=central * upper, operators=_scaled(estimate, self.factor)
        )


def _scaled(estimate: Estimate, factor: float) -> tuple[OperatorLatency, ...]:
    return tuple(replace(op, latency_ms=op.latency_ms * factor) for op in estimate.operators)


def correction_of(timed: Mapping[str, Timed], confidence: float) -> Correction:
    """Return what timings say.

    Args:
        timed: By key of the architecture.
        confidence: Of the estimates' intervals.
    """
    reach = NormalDist().inv_cdf(0.5 + confidence / 2)
    rows: Sequence[Timed] = [row for row in timed.values() if row.estimated]
    timings = {key: (row.measured_ms, row.spread(confidence)) for key, row in timed.items()}
    if not rows:
        return Correction(1.0, 1.0, 0, timings)
    residuals = [math.log(row.measured_ms / row.latency_ms) for row in rows]
    sd = [max(math.log(row.upper_ms / row.lower_ms) / (2 * reach), 1e-3) for row in rows]
    own = [(1 - COMMON) * s**2 for s in sd]
    usual = math.exp(sum(math.log(s) for s in sd) / len(sd))
    precision = sum(1 / v for v in own)
    variance = 1 / (precision + 1 / (COMMON * usual**2))
    shift = variance * sum(r / v for r, v in zip(residuals, own, strict=True))
    off = (_TRUST + sum((r - shift) ** 2 / v for r, v in zip(residuals, own, strict=True))) / (_TRUST + len(rows))
    left = off * ((1 - COMMON) + variance / usual**2)
    return Correction(math.exp(shift), math.sqrt(left), len(rows), timings)
