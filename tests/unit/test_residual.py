"""Plain residual networks: their counts, what large pictures are spared, and how large a network can be trained in the time that there is."""

from pathlib import Path

import pytest

from nas.events import Event, EventBus, Notice
from nas.runs.clock import Clock
from nas.runs.directory import RunDirectory
from nas.runs.pace import Pace
from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.runs.trainable import trainable
from nas.spaces.naming import get_elastic_space
from search_spaces.residual import ResidualSpace


def test_its_members_are_the_convolutions_that_the_page_names() -> None:
    space = ResidualSpace("s", num_classes=10, resolution=(32, 32))
    graph = space.lower(space.architecture(["32x32", 32, 1, 1, 1, 0]))
    kernels = [3 * 32, 32 * 64, 64 * 64, 64 * 128, 128 * 128, 128 * 256, 256 * 256]
    positions = [32**2, 16**2, 16**2, 8**2, 8**2, 4**2, 4**2]
    biases = 32 + 2 * (64 + 128 + 256)  # of the folded norms
    assert graph.cost.params == sum(9 * kernel for kernel in kernels) + biases + 256 * 10 + 10
    convolutions = sum(9 * kernel * area for kernel, area in zip(kernels, positions, strict=True))
    assert graph.cost.macs == pytest.approx(convolutions + 2560, rel=0.003)  # sums and means


def test_pictures_are_reduced_before_the_first_stage_as_their_size_asks() -> None:
    space = get_elastic_space("residual-s")
    assert [space.map_size((side, side), 0)[0] for side in (28, 32, 64, 96, 128, 224)] == [28, 32, 32, 24, 32, 56]
    assert space.map_size((28, 36), 3) == (3, 4)
    proxies = {space.proxy(space.architecture((text, *space.extreme(True).genes[1:])), (32, 32)) for text in ("32x32", "288x288")}
    assert proxies == {(16, 16), (40, 40)}


def test_a_network_from_nothing_is_as_large_as_the_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(devices=("sa8295p",), budgets=("5ms",), space="residual-s", data="digits", time_limit="10min")
    problem, told = make_problem(request), list[str]()
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *_: 1e-3)

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    def bound(name: str, limit_s: float) -> tuple[float, float]:
        run = RunDirectory.create(tmp_path / name, "residual", request.model_dump(), {})
        bounded = [
            trainable(run, problem, Pace(request, Clock(run, limit_s)), EventBus([hear])) for _ in range(2)
        ]  # the second reads the first's
        limits = [next(b.limit.value for b in one.goal.budgets if b.name == "macs") for one in bounded]
        assert limits[0] == limits[1]
        assert any(budget.name == "latency/sa8295p" for budget in bounded[0].goal.budgets)
        return limits[0], sum("size: networks" in text for text in told)

    long_macs, lines = bound("long", 600.0)
    assert lines == 1
    assert 1.4 < long_macs / bound("trial", 60.0)[0] < 1.5  # a trial's winner has three quarters of the whole
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *_: 1e3)
    smallest = problem.judge.verdicts([problem.space.extreme(False)])[0].values["macs"]  # type: ignore[attr-defined]
    assert bound("slow", 600.0)[0] == smallest
