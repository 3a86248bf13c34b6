"""How far to believe what a profile's latency model says: one letter, from errors and coverage on networks that it had not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.results import Grade

LEAST_COVERAGE_PCT = 85.0
"""An interval that covers less is not called one of 90 %."""

_BEST_ERROR_PCT: tuple[tuple[Grade, float], ...] = (("A", 10.0), ("B", 20.0), ("C", 35.0))
_FEWEST_FAMILIES = 5

MEANING: dict[Grade, str] = {
    "A": "mean error at most 10 % on families of networks left out",
    "B": "mean error at most 20 % on families left out",
    "C": "mean error at most 35 %, or fewer than five families, or families not left out, or intervals that cover less than 85 %",
    "D": "no model of its own that errs by less than 35 %",
}


def grade_of(*, fitted: bool, mean_error_pct: float | None, families: int | None, coverage_pct: float | None) -> Grade:
    """Return the grade of a latency model.

    Args:
        fitted: Whether there is one, fitted to timings of the device.
        mean_error_pct: On networks left out; None where nobody has tested it.
        families: That were left out whole, one after the other; None where single networks were.
        coverage_pct: Share of the networks left out that lay inside their 90 % intervals.
    """
    if not fitted or mean_error_pct is None:
        return "D"
    grade: Grade = next((letter for letter, most in _BEST_ERROR_PCT if mean_error_pct <= most), "D")
    few = families is None or families < _FEWEST_FAMILIES
    narrow = coverage_pct is None or coverage_pct < LEAST_COVERAGE_PCT
    return "C" if grade in ("A", "B") and (few or narrow) else grade


def stated_confidence(confidence: float, coverage_pct: float | None) -> float:
    """Return what an interval's nominal confidence may be called: that itself, or less where 90 % intervals covered less than they should."""
    if coverage_pct is None or coverage_pct >= LEAST_COVERAGE_PCT:
        return confidence
    return confidence * coverage_pct / 90.0
