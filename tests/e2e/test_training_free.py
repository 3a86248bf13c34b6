"""A search by training-free scores: seconds, no data, and no number that passes for an accuracy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.results import Fronts
from tests.e2e.conftest import Result


def test_a_search_without_training(nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.runs.trained_search.published_front", lambda _problem: Fronts(front=()))
    words = ("search", "--space", "vit-n", "--device", "sa8295p", "--budget", "5ms", "--evaluator", "zero-cost", "--evals", "6")
    first = json.loads(nas(*words, "--out", tmp_path / "a", "--format", "json").out)
    assert first["model"] is None
    assert first["model_reason"] == "nothing was trained."
    assert any("no accuracy" in notice for notice in first["notices"])
    assert first["chosen"]["accuracy_pct"] is None
    again = json.loads(nas(*words, "--out", tmp_path / "b", "--format", "json").out)
    assert [point["key"] for point in again["front"]] == [point["key"] for point in first["front"]]


def test_options_of_a_training_are_refused(refused: Callable[..., str]) -> None:
    words = ("search", "--space", "vit-n", "--device", "sa8295p", "--budget", "5ms", "--evaluator", "zero-cost")
    assert "no shared weights are trained" in refused(*words, "--epochs", "3")
