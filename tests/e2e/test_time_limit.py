"""A time limit of a search that trains from nothing: everything is cut to it, and the file is whole."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.events import EventBus
from nas.runs.clock import Clock
from nas.runs.directory import RunDirectory
from nas.runs.problem import Problem, make_problem
from nas.runs.trainable import _picture_s
from tests.e2e.conftest import Result


@pytest.mark.slow
def test_even_the_shortest_limit_ends_in_a_tested_file(nas: Callable[..., Result], tmp_path: Path) -> None:
    words = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--data", "digits", "--resolution", "32")
    words = (*words, "--evaluator", "supernet-in-time")
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


@pytest.mark.slow
def test_a_network_of_a_space_of_supernets_has_all_the_time_for_itself(
    nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *given: 1e-6 * _picture_s(*given))  # so that nearly all can be trained
    words = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--data", "digits")
    found = nas(*words, "--time-limit", "5s", "--out", tmp_path / "run", "--format", "json")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert "training: one network alone has all the time" in " ".join(result["notices"])
    assert result["chosen"]["resolution"] == 32
    assert result["chosen"]["accuracy_pct"] is not None
    assert not (tmp_path / "run" / "supernet.safetensors").exists()
    assert Path(result["model"]).is_file()
    exported = nas("export", tmp_path / "run", "--trial", "0", "--weights", "random", "--to", tmp_path / "first.onnx")
    assert exported.code == 0, exported.err
    ranked = nas("rank", tmp_path / "run", "-n", "3", "--epochs", "1", "--format", "json")
    assert ranked.code == 0, ranked.err
    assert json.loads(ranked.out)["n"] == 3


def test_reading_the_pictures_is_part_of_the_time_of_every_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas
    from nas.runs.lifecycle import resume

    def slowly(*args: Any, **named: Any) -> Problem:
        time.sleep(2.0)
        return make_problem(*args, **named)

    def stop(run: RunDirectory, problem: Problem, _bus: EventBus) -> Problem:
        assert problem.request.time_limit == "8s"
        left.append(Clock(run, 8.0).left_s)
        raise KeyboardInterrupt

    left: list[float] = []
    monkeypatch.setattr("nas.runs.lifecycle.make_problem", slowly)
    monkeypatch.setattr("nas.runs.lifecycle.settled", stop)
    with pytest.raises(KeyboardInterrupt):
        nas.search("sa8295p", "5ms", space="hybrid-s", data="digits", time_limit="8s", out=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "run", EventBus())
    assert left[0] <= 6.0
    assert left[1] <= left[0] - 2.0


@pytest.mark.slow
def test_a_run_that_began_with_shared_weights_goes_on_with_them(nas: Callable[..., Result], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--data", "digits", "--resolution", "32")
    words = (*words, "--evaluator", "supernet-in-time", "--time-limit", "1s", "--evals", "8", "--epochs", "1")
    found = nas(*words, "--out", run)
    assert found.code == 0, found.err
    assert "epochs for shared weights" not in found.err  # one was asked for
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["request"]["evaluator"] = None  # as of a search to which no evaluator was named, before
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "results.json").unlink()
    again = nas("resume", run, "--format", "json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["scored"] == "score for the time"
