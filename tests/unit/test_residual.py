"""Plain residual networks: published counts, what small pictures are spared, and how large a network can be trained in the time that there is."""

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


def test_its_resnet_20_has_the_published_parameters() -> None:
    space = ResidualSpace("m", num_classes=10, resolution=(32, 32))
    graph = space.lower(space.architecture(["32x32", 16, 3, 3, 3, 0]))
    ours = 16 * 8 * 9 - 16 * 3 * 9 + 8 * 3 * 9 + 8  # the second convolution of the stem, and the narrower first one
    shortcuts = 16 * 32 + 32 + 32 * 64 + 64
    assert graph.cost.params == pytest.approx(269_722 + ours + shortcuts, rel=0.005)  # arXiv 1512.03385, table 6: 0.27 M
    assert graph.cost.macs == pytest.approx(41e6, rel=0.05)


def test_a_preset_for_short_trainings_reduces_small_pictures_once_more() -> None:
    small, medium = (get_elastic_space(f"residual-{preset}") for preset in "sm")
    assert [small.map_size((side, side), 0)[0] for side in (28, 32, 64, 96, 128, 224)] == [28, 16, 16, 24, 32, 56]
    assert [medium.map_size((side, side), 0)[0] for side in (28, 32, 64, 96, 128, 224)] == [28, 32, 32, 24, 32, 56]
    for space, sizes in ((small, {(32, 32), (40, 40)}), (medium, {(16, 16), (40, 40)})):
        assert {space.proxy(space.architecture((text, *space.extreme(True).genes[1:])), (32, 32)) for text in ("32x32", "288x288")} == sizes


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
