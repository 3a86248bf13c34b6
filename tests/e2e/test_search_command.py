"""`nas search`, `nas show` and `nas resume` on a space of published accuracies."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.report.results import result_text
from nas.results import Result as Result_
from tests.e2e.conftest import Result
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")

KEYS = {"run_dir", "status", "chosen", "front", "zoo", "model", "model_reason", "evaluations", "proposals", "seconds"}
POINT = {"architecture", "devices", "latency_ms", "lower_ms", "upper_ms", "precision", "resolution", "accuracy_pct"}
POINT |= {"supernet_accuracy_pct", "macs", "params"}


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    return ["search", "--device", write_device(tmp_path), "--space", "tiny-published", "--budget", "0.9ms", "--out", tmp_path / "run"]


def test_the_contract(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    result = nas(*words, "--format", "json")
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert data.keys() >= KEYS
    assert data["status"] == "finished"
    assert set(data["seconds"]) == {"train", "search", "finetune", "export"}
    assert data["chosen"] in data["front"]
    assert data["chosen"].keys() >= POINT
    assert data["chosen"]["architecture"]["genes"] == [16, "Relu"]
    assert data["chosen"]["accuracy_pct"] == 70.0
    assert data["chosen"]["upper_ms"] <= 0.9
    assert data["chosen"]["devices"]["tiny"]["basis"] == "estimated"
    assert [p["architecture"]["genes"][0] for p in data["front"]] == [8, 16]
    assert data["model"] is None
    assert data["model_reason"]
    assert (data["evaluations"], data["proposals"]) == (2, 8)
    run = tmp_path / "run"
    assert json.loads((run / "results.json").read_text()) == data
    assert (run / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["facts"].keys() == {"the profile of tiny at fp16", "the space"}
    assert manifest["request"]["budgets"] == ["0.9ms"]
    assert json.loads(nas("show", run, "--format", "json").out) == data
    assert json.loads(nas("resume", run, "--format", "json").out) == data


def test_float_accuracies_of_quantised_networks_are_called_so(nas: Callable[..., Result], words: list[object]) -> None:
    found = json.loads(nas(*words, "--precision", "w8a8", "--format", "json").out)
    assert found["chosen"]["precision"] == "w8a8"
    assert any("those of float weights" in text and "w8a8" in text for text in found["notices"])


def test_the_table_names_choice_and_margin(nas: Callable[..., Result], words: list[object]) -> None:
    out = nas(*words).out
    assert "choice: tiny-16 (a, ImageNet-1k)" in out
    assert "inside the budget of 0.9 ms" in out
    assert "estimated" in out


def test_what_leaves_the_calibrated_range_is_called_extrapolated(nas: Callable[..., Result], words: list[object]) -> None:
    found = json.loads(nas(*words, "--format", "json").out)
    known = result_text(Result_.model_validate(found))
    found["chosen"]["devices"]["tiny"]["extrapolated"] = True
    said = result_text(Result_.model_validate(found))
    assert "extrapolated" not in known
    assert "ms extrapolated" in said
    assert "time this network there" in said


def test_other_costs_and_devices_may_be_weighed(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    words += ["--device", write_device(tmp_path / "b", name="other"), "--budget", "other:0.6ms", "--budget", "900B"]
    words += ["--minimize", "params", "--minimize", "size", "--minimize", "memory"]
    found = json.loads(nas(*words, "--format", "json").out)
    assert found["objectives"] == ["accuracy_pct", "params", "size_bytes", "memory_bytes"]
    assert [p["size_bytes"] for p in found["front"]] == [448, 896]
    assert found["knee"] in [p["key"] for p in found["front"]]
    assert set(found["chosen"]["devices"]) == {"tiny", "other"}
    text = nas("show", tmp_path / "run").out
    assert "better in accuracy and params and size_bytes and memory_bytes" in text
    assert "knee" in text


def test_an_existing_out_is_refused(nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    nas(*words)
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert "exists already. Do this: nas resume" in refused(*words)
    assert (tmp_path / "run" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("--budget", "5 parsecs"), 2, "unknown unit 'parsecs'"),
        (("--budget", "-5ms"), 2, "must be positive"),
        (("--budget", "0.01ms"), 1, "nearest miss is tiny-8"),
        (("--budget", "0.23ms"), 1, "the interval at 90 % alone forbids it"),
        (("--space", "tiny-publishd"), 2, "Did you mean 'tiny-published'"),
        (("--device", "sa8295q"), 2, "device: unknown name, got 'sa8295q'"),
        (("--evals", "0"), 2, "evals: too few, got 0"),
        (("--minimize", "weight"), 2, "cost to minimize: unknown name, got 'weight'"),
        (("--confidence", "1.5"), 2, "confidence: out of range"),
        (("--precision", "int4"), 2, "no precision 'int4'"),
        (("--resolution", "big"), 2, "resolution: cannot be read"),
        (("--seed", "-1"), 2, "--seed"),
    ],
)
def test_bad_input(
    refused: Callable[..., str], words: list[object], tmp_path: Path, change: tuple[str, str], code: int, message: str
) -> None:
    changed = list(words)
    if change[0] in changed:
        changed[changed.index(change[0]) + 1] = change[1]
    else:
        changed += change
    assert message in refused(*changed, code=code)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_made(refused: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words[-1] = tmp_path / "file" / "run"
    assert "cannot be made (Not a directory)" in refused(*words, code=1)
    words[-1] = "/proc/nas/run"
    assert "/proc/nas/run: cannot be made" in refused(*words, code=1)


def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(
    nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from nas.runs.directory import RunDirectory

    write_text = RunDirectory.write_text

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def full(self: RunDirectory, name: str, text: str) -> None:
        with monkeypatch.context() as disk:
            if name == "results.json":
                disk.setattr(os, "replace", no_room)
            write_text(self, name, text)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_text", full)
        line = refused(*words, code=1)
    assert "results.json cannot be written (No space left on device)" in line
    assert "nas resume" in line
    assert json.loads(nas("resume", tmp_path / "run", "--format", "json").out)["status"] == "finished"


def test_a_living_run_is_refused_and_shown(
    nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path
) -> None:
    nas(*words)
    run = tmp_path / "run"
    (run / "results.json").unlink()
    with (run / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "in use by a living process" in refused("resume", run, code=1)
        shown = json.loads(nas("show", run, "--format", "json").out)
        assert shown["status"] == "running"
        assert shown["phase"] == "search"
    assert json.loads(nas("show", run, "--format", "json").out)["status"] == "interrupted"
    assert json.loads(nas("resume", run, "--format", "json").out)["chosen"]["accuracy_pct"] == 70.0


def test_a_foreign_or_other_run_is_refused(
    nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path
) -> None:
    assert "not a run directory" in refused("resume", tmp_path / "nowhere", code=1)
    assert "not a run directory" in refused("show", tmp_path, code=1)
    nas(*words)
    manifest = tmp_path / "run" / "manifest.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(data | {"format": 99}))
    for verb in ("show", "resume"):
        assert "of another version, got format 99" in refused(verb, tmp_path / "run", code=1)
    manifest.write_text("{")
    assert "manifest.json is damaged" in refused("show", tmp_path / "run", code=1)


def test_a_changed_profile_is_noticed(nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path) -> None:
    nas(*words)
    (tmp_path / "run" / "results.json").unlink()
    write_device(tmp_path, runtime="newer")
    assert "the profile of tiny at fp16 has changed since" in refused("resume", tmp_path / "run", code=1)
