"""A run that was killed goes on under another host name, moved, copied, and from another folder, as if nothing had happened."""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 - what children need is imported before they are forked
import numpy as np
import pytest

import nas.runs.lifecycle
import nas.searching.study
from nas.devices.predictor import predictors
from nas.graphs.graph import GraphBuilder
from nas.results import Fronts
from nas.spaces.space import Choice, SearchSpace, spaces
from tests.e2e.tiny import MacsOnly, write_device

CLONE_NEWUTS = 0x04000000
WIDTHS = (8, 16, 24, 32)


class TinySearched(SearchSpace):
    """Widths of four convolutions; a table knows the accuracies."""

    name = "tiny-searched"
    evaluator = "table"
    choices = tuple(Choice(f"width{i}", WIDTHS, ordered=True) for i in range(4))

    @classmethod
    def make(cls, preset="", **options):
        return cls()

    def parse(self, row):
        return self.architecture(tuple(int(width) for width in str(row).split("-")))

    def segments(self, architecture, resolution=None):
        b = GraphBuilder("tiny")
        x = b.input((1, 3, 32, 32))
        for width in architecture.genes:
            x = b.conv(x, int(width), 3)
        return (("net", b.build(x)),)

    def build(self, architecture, *, num_classes=None, resolution=None):
        raise NotImplementedError


def write_table(path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [f"{a}-{b}-{c}-{d}" for a in WIDTHS for b in WIDTHS for c in WIDTHS for d in WIDTHS]
    accuracy = np.array([[50 + sum(map(int, row.split("-"))) / 4 + rng.normal()] for row in rows])
    np.savez(path, arch=np.array(rows), columns=np.array(["top1"]), accuracy=accuracy)
    return path


def child(work: Callable[[], object], *, host: str = "", journal: Path | None = None, lines: int = 0) -> int:
    """Run `work` in a process of its own and return how it ended.

    Args:
        work: What it does.
        host: The name of its host; this one's where it is empty.
        journal: The process is killed when it has written to this file, and the file has as many lines as `lines` says.
        lines: Of `journal`.
    """
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        if host:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWUTS) == 0:
                socket.sethostname(host)
        if journal:
            kill_at(journal, lines)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - a child must not come back into pytest
        traceback.print_exc()
    finally:
        os._exit(code)


def kill_at(journal: Path, lines: int) -> None:
    """Let this process be killed when it has written a line of a journal."""
    from optuna.storages.journal import JournalFileBackend

    append = JournalFileBackend.append_logs

    def dying(self, logs):
        append(self, logs)
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            os.kill(os.getpid(), signal.SIGKILL)

    JournalFileBackend.append_logs = dying  # type: ignore[method-assign]


def facts(run: Path) -> dict[str, object]:
    """Return what a run found out, but for times and places."""
    found = json.loads((run / "results.json").read_text())
    assert not [notice for notice in found["notices"] if "may be at work" in notice]  # nobody waited for the dead
    return {key: value for key, value in found.items() if key not in ("run_dir", "seconds", "ledger", "notices")}


def trials(run: Path) -> list[object]:
    """Return the networks of a run's trials in order."""
    from nas.searching.journal import Journal

    records = Journal(run / "study.journal", timeout_s=5).records(0, 0, set())
    return [(record.state, dict(record.params), record.values) for record in records]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moments", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_resume_after_kills_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: int) -> None:
    from nas import api

    monkeypatch.setitem(spaces._registered, "tiny-searched", TinySearched)
    monkeypatch.setitem(predictors._registered, "tiny-macs", MacsOnly)
    monkeypatch.setattr("nas.runs.trained_search.published_front", lambda _problem: Fronts(front=()))
    home = tmp_path / "home"
    home.mkdir()
    write_device(home)
    write_table(home / "table.npz")
    monkeypatch.chdir(home)

    def search(out: str) -> None:
        api.search("tiny.toml", "40ms", space="tiny-searched", table="table.npz", searcher="evolution", evals=24, seed=3, out=out)

    assert child(lambda: search("whole")) == 0
    whole = home / "whole"
    in_all = (whole / "study.journal").read_bytes().count(b"\n")
    rng = random.Random(0)
    for i in range(moments):
        run = home / f"run{i}"
        lines = rng.randrange(8, in_all)
        assert child(lambda run=run: search(run.name), journal=run / "study.journal", lines=lines) == -signal.SIGKILL
        assert not (run / "results.json").exists()
        places = [run]
        if i % 2:
            places.append(Path(shutil.copytree(run, tmp_path / f"copy{i}")))
        if i % 3 == 0:
            moved = tmp_path / "elsewhere" / f"run{i}"
            moved.parent.mkdir(exist_ok=True)
            places[0] = Path(shutil.move(run, moved))
        monkeypatch.chdir("/")
        for place in places:
            assert child(lambda place=place: nas.runs.lifecycle.resume(place, api._silent()), host="gpu-02") == 0
            assert facts(place) == facts(whole)
            assert trials(place) == trials(whole)
        monkeypatch.chdir(home)
