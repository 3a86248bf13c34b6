"""Timings of a few candidates: what they say about the estimates of all others, and the choice that follows."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nas.devices.predictor import Estimate, OperatorLatency
from nas.results import WhyNotMore
from nas.runs.directory import RunDirectory
from nas.runs.trained_search import _revised
from nas.searching.correction import COMMON, Correction, Timed, correction_of
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture

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


def test_timings_after_an_anchor_was_chosen_that_is_not_of_the_front(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "label", {}, {})
    run.write(
        "decision.json", {"genes": ["anchor"], "why": "", "compared": [], "p_value": 1.0, "why_not_more": WhyNotMore(network=None).dump()}
    )
    space = SimpleNamespace(name="chain-a", version=1)
    members = {name: Architecture("chain-a", 1, (name,)) for name in ("member", "anchor")}

    def problem(feasible: bool, **more: Any) -> Any:
        verdict = SimpleNamespace(
            estimates={"phone": Estimate(1.0, 0.9, 1.1)}, values={}, violations={"latency": 0.0 if feasible else 1.0}, feasible=feasible
        )
        correction = SimpleNamespace(count=1, factor=2.0, width_factor=1.0)
        judge = SimpleNamespace(verdicts=lambda some: [verdict] * len(some), corrections={"phone": correction})
        return SimpleNamespace(
            space=space, judge=judge, device="phone", point=lambda a, _verdict, **_: SimpleNamespace(key=a.key, architecture=a), **more
        )

    trial = Trial(0, members["member"], "complete", {"accuracy_pct": 80.0})
    study: Any = SimpleNamespace(front=lambda: [trial], trials=lambda: [trial])
    evaluator: Any = SimpleNamespace(evaluate=lambda _member: SimpleNamespace(accuracy_pct=70.0))
    posed = problem(True, revised=lambda _timings, _known: problem(False))
    _, front, changed = _revised(run, posed, evaluator, study, lambda _scored: (), lambda *_: None)  # type: ignore[arg-type, return-value]
    assert changed["revision"].former_choice == members["anchor"].key  # type: ignore[attr-defined]
    assert [one.feasible for one in front] == [False]
    assert "by the timings no candidate is within the budgets any more" in str(changed["why"])
