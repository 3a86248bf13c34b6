"""Every registered searcher against the contract, and a real search killed with `kill -9` and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nas.searching.searcher import Searcher, searchers
from nas.searching.study import Study
from nas.testing import searchers as suite

ROOT = Path(__file__).parents[2]
NAMES = searchers.names()
FITTED = {"gp"}
"""Searchers that take tenths of a second a proposal: fewer proposals, fewer cuts, and in CI only."""
FITTED_KINDS = [searchers.get(name) for name in FITTED]


def named(*slow: str) -> list[object]:
    """Every name, some of them for CI only."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in NAMES]


@pytest.fixture(params=named(*FITTED))
def make(request: pytest.FixtureRequest) -> type[Searcher]:
    if request.param.startswith("nni-"):
        pytest.importorskip("nni", reason="needs the extra nni")
    return searchers.get(request.param)


@pytest.fixture
def count(request: pytest.FixtureRequest, make: type[Searcher]) -> int:
    return 16 if make in FITTED_KINDS else 60


@pytest.mark.parametrize("objectives", [1, 2])
def test_proposes_members(make: type[Searcher], objectives: int, count: int) -> None:
    suite.check_proposes_members(make, objectives=objectives, count=count)


@pytest.mark.parametrize("objectives", [1, 2])
def test_follows_the_seed(make: type[Searcher], objectives: int, count: int) -> None:
    suite.check_follows_the_seed(make, objectives=objectives, count=count)


@pytest.mark.parametrize("objectives", [1, 2])
def test_resumes(make: type[Searcher], objectives: int, count: int) -> None:
    parts = (5, 11) if make in FITTED_KINDS else (1, 5, 8, 11)  # of twelve; a fit begins after ten trials
    suite.check_resumes(make, objectives=objectives, count=count, cuts=tuple(count * k // 12 for k in parts))


def test_resumes_in_a_space_too_large_to_walk(make: type[Searcher], count: int) -> None:
    cuts = (count * 3 // 5,) if make in FITTED_KINDS else (count // 5, count * 3 // 5)
    suite.check_resumes(make, objectives=2, blocks=8, count=min(count, 40), cuts=cuts)


def test_works_without_prescreen(make: type[Searcher], count: int) -> None:
    suite.check_works_without_prescreen(make, count=count)


def test_survives_failures(make: type[Searcher], count: int) -> None:
    suite.check_survives_failures(make, count=count)


def test_beats_the_average(make: type[Searcher], count: int) -> None:
    if make is not searchers.get("exhaustive"):
        suite.check_beats_the_average(make, evaluations=count)


SEARCHES = """
import json, os, signal, sys
from pathlib import Path
from optuna.storages.journal import JournalFileBackend
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
searcher, evals, whole, broken = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
append, goal = JournalFileBackend.append_logs, toy_goal(objectives=2)

def search(storage, evals=evals):
    Study.open(str(storage), name="cut", space=ToySpace(), goal=goal).run(searcher, ToyEvaluator(), ToyJudge(goal), evals=evals, seed=7)

def process(cut=None):
    def dying(self, logs):
        append(self, logs)
        if broken.read_bytes().count(b"\\n") >= cut:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        if cut is not None:
            JournalFileBackend.append_logs = dying
        search(broken)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

search(whole)  # and what it imports is there for all that follow
lines = whole.read_bytes().count(b"\\n")
print(json.dumps([*(process(int(part * lines)) for part in (0.1, 0.3, 0.5, 0.7, 0.9)), process()]))
"""
"""One unbroken search, then one in processes that are killed as soon as the journal has so many lines, and one that ends it."""


@pytest.mark.parametrize("name", named(*(name for name in NAMES if name not in ("random", "nsga2", "guided"))))
def test_killed_search_resumes_as_if_unbroken(name: str, tmp_path: Path) -> None:
    if name.startswith("nni-"):
        pytest.importorskip("nni", reason="needs the extra nni")

    def trials(storage: Path) -> list[object]:
        return list(Study.open(str(storage), name="cut", space=suite.ToySpace(), goal=suite.toy_goal(objectives=2)).trials())

    whole, broken = tmp_path / "whole.journal", tmp_path / "broken.journal"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", SEARCHES, name, "16" if name in FITTED else "45", str(whole), str(broken)]
    ended = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    assert json.loads(ended) == [-signal.SIGKILL] * 5 + [0]
    assert trials(broken) == trials(whole)
