import json
from pathlib import Path

import pytest

from nas.errors import ArtifactError, UsageError
from nas.events import Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.runs.directory import RunDirectory, Status, StatusFile, eta_s


def make(folder: Path) -> RunDirectory:
    return RunDirectory.create(folder / "run", "label", {"a": 1}, {"b": "2"})


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match="Do this: nas resume"):
        make(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="Do this: give another --out"):
        RunDirectory.create(tmp_path / "other", "label", {}, {})


def test_default_names_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {RunDirectory.create(None, "zoo-tiny", {}, {}).path for _ in range(3)}
    assert len(paths) == 3
    assert all(path.parent == Path("runs") and "zoo-tiny" in path.name for path in paths)


def test_only_an_empty_run_is_discarded(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "supernet.safetensors").write_bytes(b"dear")
    run.discard()
    assert run.manifest.request == {"a": 1}
    (run.path / "supernet.safetensors").unlink()
    run.discard()
    assert not run.path.exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert not run.living()
    with run.work():
        assert run.living()
        with pytest.raises(ArtifactError, match="in use by a living process, got pid"), run.work():
            pass
    assert not run.living()


def test_status_is_what_happened_last_and_survives_a_session(tmp_path: Path) -> None:
    run = make(tmp_path)
    status = StatusFile(run)
    for event in (
        Notice("mind this"),
        Notice("mind this"),
        PhaseStarted("train", 2),
        PhaseAdvanced("train", 2),
        PhaseFinished("train", 3.0),
        PhaseStarted("search", 10, 4),
        PhaseAdvanced("search", 6, {"proposals": 9.0}),
    ):
        status(event)
    found = run.status
    assert (found.phase, found.done, found.total) == ("search", 6, 10)
    assert found.notices == ["mind this"]
    assert found.search == {"evaluations": 6, "proposals": 9.0}
    again = StatusFile(run)
    again(PhaseFinished("train", 2.0))
    assert run.status.seconds == {"train": 5.0}
    assert run.status.search["evaluations"] == 6


def test_time_left_counts_this_session_only() -> None:
    assert eta_s(Status(total=10, done=6, first=4, elapsed_s=3.0)) == 6.0
    assert eta_s(Status(total=10, done=4, first=4, elapsed_s=3.0)) is None
    assert eta_s(Status(total=10, done=4, part=0.75, first=4.25, elapsed_s=3.0)) == 31.5
    assert eta_s(Status(done=4, elapsed_s=3.0)) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "results.json").write_text(json.dumps([1]))
    with pytest.raises(ArtifactError, match=r"results\.json is damaged"):
        _ = run.results
