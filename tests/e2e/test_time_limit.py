"""A time limit of a search that trains from nothing: everything is cut to it, and the file is whole."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Result


@pytest.mark.slow
def test_even_the_shortest_limit_ends_in_a_tested_file(nas: Callable[..., Result], tmp_path: Path) -> None:
    words = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--data", "digits", "--resolution", "32")
    found = nas(*words, "--time-limit", "1s", "--evals", "50", "--out", tmp_path / "run", "--format", "json")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert "forecast: " in found.err
    assert "by the time limit" in found.err
    assert "the time limit of 1s left 1 epochs for shared weights" in " ".join(result["notices"])
    assert result["evaluations"] < 50
    assert result["ledger"]["limit_s"] == 1.0
    assert {phase["phase"] for phase in result["ledger"]["phases"]} >= {"train", "search", "finetune", "export"}
    assert Path(result["model"]).is_file()
    assert result["chosen"]["accuracy_pct"] is not None
    assert nas("resume", tmp_path / "run", "--format", "json").out == found.out
