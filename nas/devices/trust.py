"""How far to believe what a profile's latency model says: one letter, from errors and coverage on networks that it had not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.results import ModelError

if TYPE_CHECKING:
    from nas.results import Grade

LEAST_COVERAGE_PCT = 85.0
"""An interval that covers less is not called one of 90 %. Set by hand."""

_BEST_ERROR_PCT: tuple[tuple[Grade, float], ...] = (("A", 10.0), ("B", 20.0), ("C", 35.0))  # by hand
_FEWEST_FAMILIES = 5  # by hand

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


def model_error(held_out: Mapping[str, Any] | None, later: Mapping[str, Any] | None = None) -> ModelError | None:
    """Return how far a latency model is off, in figures and in a line; None where nobody has tested it.

    Args:
        held_out: Fields of a profile's `nas.devices.profile.FitQuality`, of networks or lineages left out.
        later: The same of networks that were first timed after everything that the fit knew.
    """
    if not held_out or "mean_error_pct" not in held_out:
        return None
    lineages = held_out.get("families")
    where = (
        f"on {held_out['networks']} networks of {lineages} lineages, each lineage left out"
        if lineages
        else f"on {held_out['networks']} networks, each left out alone (kinds of network that nobody has timed err more)"
    )
    line = f"the latency model is off by {_off(held_out)} {where}"
    if later:
        line += f"; by {_off(later)} on {later['networks']} networks that were first timed later"
    if (above := held_out.get("above_upper_pct")) is not None:
        line += f"; {above:.0f} % take longer than the upper end"
    return ModelError(
        mean_error_pct=held_out["mean_error_pct"],
        median_error_pct=held_out["median_error_pct"],
        networks=held_out["networks"],
        lineages=lineages,
        above_upper_pct=held_out.get("above_upper_pct"),
        later_mean_error_pct=later["mean_error_pct"] if later else None,
        later_median_error_pct=later["median_error_pct"] if later else None,
        later_networks=later["networks"] if later else None,
        line=line,
    )


def _off(quality: Mapping[str, Any]) -> str:
    return f"{quality['mean_error_pct']:.1f} % in the mean (median {quality['median_error_pct']:.1f} %)"
