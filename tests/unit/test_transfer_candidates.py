"""Which size of a published network is probed first: the largest at which there is time to train it, by the speed of what was probed before."""

from types import SimpleNamespace
from typing import Any

import pytest

from nas.runs.transfer_candidates import Candidates
from nas.runs.transfer_times import ENOUGH_EPOCHS

MACS = {"large": 400.0, "middle": 200.0, "small": 100.0}


def candidates(limit_s: float | None) -> Candidates:
    clock = SimpleNamespace(limit_s=limit_s)
    times = SimpleNamespace(
        problem=None,
        evaluator=SimpleNamespace(space=None),
        clock=clock,
        epochs=lambda _member, picture_s, _contestants: limit_s / picture_s,
    )
    made = Candidates(None, times, None)  # type: ignore[arg-type]
    made.priced = {name: (None, SimpleNamespace(values={"macs": macs})) for name, macs in MACS.items()}  # type: ignore[misc]
    return made


def member(name: str) -> Any:
    return SimpleNamespace(key=name)


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
