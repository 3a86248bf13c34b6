"""What 0.1.0 wrote is opened by this version: runs, a storage, a profile, checkpoints, JSON and a model file.

`v0.1.0/` holds a finished search, one that was interrupted, a search among published networks, the storage of the first in SQLite, a calibrated
device and the pictures. Later versions add a folder of their own; none is ever written anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.results import Result

KEPT = Path(__file__).parent / "v0.1.0"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kept"
    shutil.copytree(KEPT, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NAS_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., object]:
    def run(*words: object) -> object:
        from nas.cli import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, words), "--format", "json"])
        shown = capsys.readouterr()
        assert not end.value.code, shown.err
        return json.loads(shown.out)

    return run


@pytest.mark.parametrize("name", ["finished", "zoo"])
def test_a_result_is_shown_as_it_was(kept: Path, ask: Callable[..., object], name: str) -> None:
    written = json.loads((kept / name / "results.json").read_text())
    moved = {"run_dir": str(kept / name)} | ({"model": str(kept / name / "model.onnx")} if written["model"] else {})
    assert ask("show", kept / name) == written | moved
    assert ask("resume", kept / name) == written | moved
    assert Result.model_validate(written).chosen is not None


def test_an_interrupted_run_is_shown_and_goes_on(kept: Path, ask: Callable[..., object]) -> None:
    shown = ask("show", kept / "interrupted")
    assert isinstance(shown, dict)
    assert (shown["status"], shown["evaluations"], shown["phase"]) == ("interrupted", 2, "search")
    done = ask("resume", kept / "interrupted")
    whole = json.loads((kept / "finished" / "results.json").read_text())
    assert isinstance(done, dict)
    assert done["status"] == "finished"
    assert done["evaluations"] == whole["evaluations"]
    assert [point["key"] for point in done["front"]] == [point["key"] for point in whole["front"]]


def test_a_storage_is_read(kept: Path) -> None:
    import optuna

    study = optuna.load_study(study_name="nas", storage=f"sqlite:///{kept / 'study.db'}")
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) == 4


def test_a_profile_with_its_fit_predicts(kept: Path, ask: Callable[..., object]) -> None:
    estimate = ask("predict", "resnet34", "--device", "mine")
    assert isinstance(estimate, dict)
    assert 3.1 < estimate["latency_ms"] < 5.2  # resnet18 and resnet50 were timed


def test_checkpoints_and_the_model_file_are_one_network(kept: Path, ask: Callable[..., object]) -> None:
    import onnxruntime

    made = ask("export", kept / "finished", "--to", kept / "again.onnx")
    assert isinstance(made, dict)
    picture = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    answers = []
    for path in (kept / "finished" / "model.onnx", kept / "again.onnx"):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {session.get_inputs()[0].name: picture})[0])
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-5)
    estimate = ask("predict", kept / "finished" / "model.onnx", "--device", "mine")
    assert isinstance(estimate, dict)
    assert estimate["macs"] > 0
