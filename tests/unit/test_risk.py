"""The risk of int8: bounded, higher for what vendors lost much on, shown in answers, and a constraint of searches."""

from __future__ import annotations

import pytest

from nas import api
from nas.graphs import workloads
from nas.quantisation.risk import FEATURES, features, predicted_drop
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.naming import get_space


def test_networks_that_lose_much_are_riskier_than_resnets() -> None:
    safe = predicted_drop(workloads.load("resnet50"), "stedgeai")
    risky = [predicted_drop(workloads.load(name), "stedgeai") for name in ("fdmobilenet_wd4", "mnasnet_050", "mobilenetv3_large_100")]
    assert all(drop.drop_pct > 1.5 * safe.drop_pct for drop in risky)
    assert 0 <= safe.drop_pct < safe.upper_pct < 10
    assert len(features(workloads.load("resnet18"))) == len(FEATURES)


def test_an_answer_in_8_bits_says_its_risk_and_no_other_does() -> None:
    at8, at16 = (api.predict("resnet50", "sa8295p", precision=p) for p in ("w8a8", "fp16"))
    assert at8.int8_drop_pct is not None
    assert at8.int8_drop_upper_pct is not None
    assert 0 <= at8.int8_drop_pct < at8.int8_drop_upper_pct
    assert at16.int8_drop_pct is None


def test_a_search_may_bound_it() -> None:
    space = get_space("hybrid-xs")
    members = [space.extreme(large) for large in (False, True)]  # type: ignore[attr-defined]
    targets = load_targets(["n6"])
    for limit in (0.1, 50.0):
        goal = make_goal(targets, [f"{limit}pct-drop"])
        for architecture, verdict in zip(members, Judge(space, goal, targets).verdicts(members), strict=True):
            expected = predicted_drop(space.lower(architecture), "stedgeai").drop_pct / limit - 1
            assert verdict.violations["drop/stm32n6"] == pytest.approx(expected)
    free = load_targets(["i9-10940x"])
    verdict = Judge(space, make_goal(free, ["1pct-drop"]), free).verdicts(members[:1])[0]
    assert verdict.violations["drop/i9-10940x"] == -1  # it runs in floats


def test_an_answer_is_held_against_a_bound_on_it() -> None:
    loose, strict, floats = (
        api.predict("resnet50", "sa8295p", precision=precision, budget=[budget])
        for precision, budget in (("w8a8", "50pct-drop"), ("w8a8", "0.001pct-drop"), ("fp16", "0.001pct-drop"))
    )
    assert [found.within_budgets for found in (loose, strict, floats)] == [True, False, True]
    assert loose.budgets[0].value == loose.int8_drop_pct
    assert (loose.budgets[0].unit, loose.budgets[0].judged) == ("points", "point")
