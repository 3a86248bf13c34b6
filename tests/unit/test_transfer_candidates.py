"""Which size of a published network is probed first: the largest at which there is time to train it, by the speed of what was probed before."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas.events import EventBus
from nas.runs.transfer_candidates import Candidate, Candidates
from nas.runs.transfer_search import _Search
from nas.runs.transfer_times import ENOUGH_EPOCHS, Times
from nas.searching.objective import Goal, Objective
from nas.training.transfer.probe import Probe

MACS = {"large": 400.0, "middle": 200.0, "small": 100.0}


def candidates(limit_s: float | None) -> Candidates:
    clock = SimpleNamespace(limit_s=limit_s)
    times = SimpleNamespace(
        problem=None,
        evaluator=SimpleNamespace(space=None),
        clock=clock,
        trainable=lambda _member, picture_s: limit_s / picture_s >= ENOUGH_EPOCHS,
    )
    made = Candidates(None, times, None)  # type: ignore[arg-type]
    made.priced = {name: (None, SimpleNamespace(values={"macs": macs})) for name, macs in MACS.items()}  # type: ignore[misc]
    return made


def member(name: str) -> Any:
    return SimpleNamespace(key=name)


PROBE = Probe(torch.zeros(2, 3), torch.zeros(2), np.ones(200, bool), np.zeros(600, bool), 8.0)
PROBED: Any = [SimpleNamespace(verdict=SimpleNamespace(values={"macs": 50.0}), picture_s=0.5)]  # a hundred multiply-adds a second


@pytest.mark.parametrize(
    ("seconds", "first"),
    [(4.0 * ENOUGH_EPOCHS, "large"), (2.0 * ENOUGH_EPOCHS, "middle"), (1.5 * ENOUGH_EPOCHS, "small"), (0.1, "small")],
)
def test_the_largest_size_that_can_be_trained_is_probed_first(seconds: float, first: str) -> None:
    assert candidates(seconds)._first([member(name) for name in MACS], PROBED).key == first


def test_without_a_limit_or_a_speed_it_is_the_largest() -> None:
    members = [member(name) for name in MACS]
    assert candidates(None)._first(members, PROBED).key == "large"
    assert candidates(0.1)._first(members, []).key == "large"


@pytest.mark.parametrize("left_s", [None, 515.0, 350.0])
def test_a_forecast_keeps_to_the_time_that_is_left(left_s: float | None) -> None:
    said: list[dict[str, float]] = []
    networks = [
        Candidate(SimpleNamespace(key=name, genes=(name,)), SimpleNamespace(resolution=(96, 96)), PROBE, 0.01)  # type: ignore[arg-type]
        for name in MACS
    ]
    search = SimpleNamespace(
        times=SimpleNamespace(epoch_s=lambda picture_s: 3000 * picture_s, reserve_s=lambda _member, _picture_s: 60.0),
        clock=SimpleNamespace(limit_s=left_s, left_s=left_s, say=said.append),
        bus=EventBus(),
    )
    _Search.forecast(search, dict.fromkeys(networks, 12.0))  # type: ignore[arg-type]
    [phases] = said
    assert phases["race"] > 0
    assert phases["export"] == 60.0
    assert sum(phases.values()) <= (left_s or 1e6)
    rest = 302.4 if left_s is None else max(min(302.4, left_s - phases["race"] - 60.0), 0.0)
    assert phases["finetune"] == pytest.approx(rest)


def test_candidates_are_ordered_by_every_picture_that_says_something() -> None:
    one = Candidate(SimpleNamespace(key="a"), SimpleNamespace(), PROBE, 0.01)  # type: ignore[arg-type]
    assert one.accuracy_pct == pytest.approx(25)  # 200 of validation right, 600 of other folds wrong
    assert PROBE.accuracy_pct == 100


@pytest.mark.parametrize(("pictures", "epochs", "telling"), [(800, 12.0, False), (800, 13.0, True), (9000, 1.0, False), (9000, 1.5, True)])
def test_contestants_are_compared_after_enough_steps_or_not_at_all(pictures: int, epochs: float, telling: bool) -> None:
    dataset = SimpleNamespace(count=lambda _split: pictures)
    times = Times(None, SimpleNamespace(dataset=dataset), SimpleNamespace(limit_s=None))  # type: ignore[arg-type]
    assert times.telling(epochs) is telling


@pytest.mark.parametrize("telling", [True, False])
def test_where_no_comparison_tells_anything_the_best_probe_is_trained_alone(telling: bool) -> None:
    def epochs(one: Any, contestants: int) -> float:
        return float({"large": 1.0, "middle": 4.0, "small": 9.0}[one.network] / contestants)

    times = SimpleNamespace(telling=lambda _epochs: telling, epochs=lambda member, _picture_s, contestants: epochs(member, contestants))
    networks: list[Any] = [SimpleNamespace(network=name) for name in MACS]  # the best probe first
    assert [Times.trainable(times, one, 0.1) for one in networks] == ([False, False, True] if telling else [False, True, True])  # type: ignore[arg-type]
    search: Any = SimpleNamespace(times=times, _epochs=epochs, _schedule=epochs)
    assert _Search._alone(search, networks) == ([] if telling else networks[1:2])


@pytest.mark.parametrize(("asked", "epochs"), [(None, 9.0), (20, 9.0), (3, 3.0)])
def test_the_epochs_that_are_asked_for_bound_a_schedule_that_has_more_time(asked: int | None, epochs: float) -> None:
    problem = SimpleNamespace(request=SimpleNamespace(finetune_epochs=asked))
    search: Any = SimpleNamespace(times=Times(problem, None, None), _epochs=lambda _one, contestants: 18.0 / contestants)  # type: ignore[arg-type]
    assert _Search._schedule(search, None, 2) == epochs  # type: ignore[arg-type]


@pytest.mark.parametrize(("cost", "front"), [("latency_ms/phone", ["large", "middle"]), ("params", ["large", "small"])])
def test_the_front_is_that_of_the_costs_that_are_minimised(cost: str, front: list[str]) -> None:
    figures = {"large": (80.0, 3.0, 9.0), "middle": (60.0, 1.0, 8.0), "small": (60.0, 2.0, 4.0)}
    costs = {name: {"latency_ms/phone": ms, "params": params} for name, (_, ms, params) in figures.items()}
    networks: list[Any] = [
        SimpleNamespace(network=name, accuracy_pct=figures[name][0], verdict=SimpleNamespace(values=values))
        for name, values in costs.items()
    ]
    goal = Goal((Objective("accuracy_pct", "maximize"), Objective(cost, "minimize")))
    search: Any = SimpleNamespace(problem=SimpleNamespace(goal=goal))
    found = [one.network for one in _Search._front(search, networks)]
    assert found == front


@pytest.mark.parametrize(
    ("within", "goes_on"), [("small large", {"small": 9.0, "large": 3.0}), ("small", {"small": 9.0}), ("middle", {"middle": 1.0})]
)
def test_contestants_of_before_the_timings_go_on_where_they_are_within_the_budgets(within: str, goes_on: dict[str, float]) -> None:
    """Their schedules have begun; where none of them is left, others are chosen."""
    kept: dict[str, Any] = {"epochs": {"large": 3.0, "small": 9.0}, "frozen_norms": []}
    run = SimpleNamespace(read=lambda _name: kept, write=lambda _name, record: kept.update(record))
    search: Any = SimpleNamespace(run=run, _alone=lambda all_: all_[:1], _keeps_norms=lambda _: False, _schedule=lambda *_: 1.0)
    verdict: Any = SimpleNamespace()
    found = _Search.contestants(search, [Candidate(member(name), verdict, PROBE, 0.01) for name in within.split()])
    assert {one.key: epochs for one, epochs in found.items()} == goes_on
