"""How large a network may be that is trained from nothing in the time that there is."""

from pathlib import Path

import pytest

from nas.events import Event, EventBus, Notice
from nas.runs.clock import Clock
from nas.runs.directory import RunDirectory
from nas.runs.pace import Pace
from nas.runs.problem import Problem, make_problem
from nas.runs.request import Request
from nas.runs.trainable import as_searched, trainable


def bounded_macs(problem: Problem, folder: Path, limit_s: float | None, told: list[str]) -> float | None:
    """Return the multiply-adds to which a run of so many seconds is bounded; None where it is not."""

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    run = RunDirectory.create(folder, "trainable", problem.request.model_dump(), {})
    pace = Pace(problem.request, Clock(run, limit_s))
    once, again = (trainable(run, problem, pace, EventBus([hear])) for _ in range(2))  # the second reads the first's
    limits = [next((b.limit.value for b in one.goal.budgets if b.name == "macs"), None) for one in (once, again)]
    assert limits[0] == limits[1]
    assert as_searched(run, problem).goal == once.goal
    assert {budget.name for budget in problem.goal.budgets} <= {budget.name for budget in once.goal.budgets}
    return limits[0]


def smallest_macs(problem: Problem) -> float:
    return problem.judge.verdicts([problem.space.extreme(False)])[0].values["macs"]  # type: ignore[attr-defined]


def test_a_network_from_nothing_is_as_large_as_the_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(Request(devices=("sa8295p",), budgets=("5ms",), space="residual-s", data="digits", time_limit="10min"))
    told = list[str]()
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *_: 1e-3)
    long_macs = bounded_macs(problem, tmp_path / "long", 600.0, told)
    assert sum("size: networks" in text for text in told) == 1
    trial_macs = bounded_macs(problem, tmp_path / "trial", 60.0, told)
    assert long_macs is not None
    assert trial_macs is not None
    assert 1.4 < long_macs / trial_macs < 1.5  # a trial's winner has three quarters of the whole
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *_: 1e3)
    assert bounded_macs(problem, tmp_path / "slow", 600.0, told) == smallest_macs(problem)
