"""Timings of a few candidates: what they say about the estimates of all others, and the choice that follows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.devices.predictor import Estimate, OperatorLatency
from nas.searching.correction import COMMON, Correction, Timed, correction_of

WIDTH = math.log(1.3)


def timed(log_residuals: list[float]) -> dict[str, Timed]:
    return {f"n{i}": Timed(2.0, 2.0 / 1.3, 2.0 * 1.3, 2.0 * math.exp(r)) for i, r in enumerate(log_residuals)}


def test_timings_that_agree_shift_and_narrow_and_ones_that_contradict_each_other_widen() -> None:
    agreeing = correction_of(timed([0.1] * 5), 0.9)
    assert 1.03 < agreeing.factor < math.exp(0.1)
    assert agreeing.width_factor < 0.75
    one = correction_of(timed([0.1]), 0.9)
    assert 1 < one.factor < agreeing.factor
    assert agreeing.width_factor < one.width_factor <= 1
    apart = correction_of(timed([0.5, -0.5, 0.4, -0.5, 0.1]), 0.9)
    assert apart.factor == pytest.approx(1, abs=0.03)
    assert apart.width_factor > 1.3


def test_a_timed_candidate_is_measured_and_others_are_scaled() -> None:
    estimate = Estimate(2.0, 1.6, 2.6, operators=(OperatorLatency("a", "Conv", 2.0),))
    correction = Correction(1.2, 0.5, 1, {"known": (2.5, 1.02)})
    known, other = correction.applied(estimate, "known"), correction.applied(estimate, "other")
    assert (known.basis, known.latency_ms, known.upper_ms) == ("measured", 2.5, pytest.approx(2.55))
    assert (other.basis, other.latency_ms) == ("estimated", pytest.approx(2.4))
    assert other.upper_ms == pytest.approx(2.4 * math.sqrt(1.3))
    assert sum(op.latency_ms for op in other.operators) == pytest.approx(other.latency_ms)
    told = Estimate(2.0, 1.9, 2.1, basis="measured")
    assert correction.applied(told, "other") == told
    assert correction_of({"told": Timed(2.0, 1.9, 2.1, 9.0, estimated=False)}, 0.9).factor == 1


def test_intervals_hold_what_they_promise_where_errors_are_as_supposed() -> None:
    rng = np.random.default_rng(0)
    sd = WIDTH / 1.6449
    inside = []
    for _ in range(2000):
        common, own = rng.normal(0, sd * math.sqrt(COMMON)), rng.normal(0, sd * math.sqrt(1 - COMMON), 6)
        found = correction_of(timed((common + own[:5]).tolist()), 0.9)
        inside.append(abs(common + own[5] - math.log(found.factor)) <= WIDTH * found.width_factor)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)
