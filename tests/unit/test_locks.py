"""The lock on a file: held by one, let go of by a killed process, and there where the system has no ``fcntl``."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.errors import ArtifactError
from nas.searching.journal import Journal
from nas.searching.locks import FileLock

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from nas.searching.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
time.sleep(60)
"""
WITHOUT = """
import sys
sys.modules["fcntl"] = None  # as on Windows
from pathlib import Path
from nas.runs.directory import RunDirectory
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
folder = Path(sys.argv[1])
goal = toy_goal()
study = Study.open(str(folder / "s.journal"), name="toy", space=ToySpace(), goal=goal)
study.run("random", ToyEvaluator(), ToyJudge(goal), evals=5, seed=0)
run = RunDirectory.create(folder / "run", "x", {}, {})
with run.work():
    assert run.living()
assert not run.living()
print(study.evaluations)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    began_s = time.monotonic()
    assert not second.acquire(0.3)
    assert time.monotonic() - began_s >= 0.3
    first.release()
    assert second.acquire()
    second.release()


def test_a_killed_holder_lets_go_and_a_waiting_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.searching.locks.PATIENCE_S", 0.1)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told: list[bool] = []
    assert not FileLock(tmp_path / "lock").acquire(0.5, lambda: told.append(True))
    assert told == [True]
    holder.kill()
    holder.wait()
    assert FileLock(tmp_path / "lock").acquire(5)


def test_a_journal_whose_lock_is_held_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.searching.locks.PATIENCE_S", 0.1)
    held = FileLock(tmp_path / "s.journal.flock")
    assert held.acquire()
    with pytest.raises(ArtifactError, match=r"its lock was held for 1 s by another process, .* Do this: end that process"):
        Journal(tmp_path / "s.journal", timeout_s=0.6)
    assert "its lock is held by another process, waited for" in caplog.text


def test_a_search_without_fcntl(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"
