"""Every registered searcher against the contract, and a real search killed with `kill -9` and resumed."""

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
"""Searchers that take tenths of a second a proposal: fewer proposals, and in CI only."""


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
    return 24 if make in [searchers.get(name) for name in FITTED] else 60


@pytest.mark.parametrize("objectives", [1, 2])
def test_proposes_members(make: type[Searcher], objectives: int, count: int) -> None:
    suite.check_proposes_members(make, objectives=objectives, count=count)


@pytest.mark.parametrize("objectives", [1, 2])
def test_follows_the_seed(make: type[Searcher], objectives: int, count: int) -> None:
    suite.check_follows_the_seed(make, objectives=objectives, count=count)


@pytest.mark.parametrize("objectives", [1, 2])
def test_resumes(make: type[Searcher], objectives: int, count: int) -> None:
    suite.check_resumes(make, objectives=objectives, count=count, cuts=tuple(count * k // 12 for k in (1, 3, 7, 9, 11)))


def test_resumes_in_a_space_too_large_to_walk(make: type[Searcher], count: int) -> None:
    suite.check_resumes(make, objectives=2, blocks=8, count=min(count, 40), cuts=(count // 5, count * 2 // 5, count * 3 // 5))


def test_works_without_prescreen(make: type[Searcher]) -> None:
    suite.check_works_without_prescreen(make)


def test_survives_failures(make: type[Searcher]) -> None:
    suite.check_survives_failures(make)


def test_beats_the_average(make: type[Searcher], count: int) -> None:
    if make is not searchers.get("exhaustive"):
        suite.check_beats_the_average(make, evaluations=count)


SEARCH = """
import os, signal, sys
from pathlib import Path
from optuna.storages.journal import JournalFileBackend
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
storage, searcher, cut = sys.argv[1:]
append = JournalFileBackend.append_logs

def dying(self, logs):
    append(self, logs)
    if cut and Path(storage).read_bytes().count(b"\\n") >= int(cut):
        os.kill(os.getpid(), signal.SIGKILL)

JournalFileBackend.append_logs = dying
goal = toy_goal(objectives=2)
study = Study.open(storage, name="cut", space=ToySpace(), goal=goal)
study.run(searcher, ToyEvaluator(), ToyJudge(goal), evals=25 if searcher == 'gp' else 45, seed=7)
"""


@pytest.mark.parametrize("name", named(*(name for name in NAMES if name not in ("random", "nsga2", "guided"))))
def test_killed_search_resumes_as_if_unbroken(name: str, tmp_path: Path) -> None:
    if name.startswith("nni-"):
        pytest.importorskip("nni", reason="needs the extra nni")

    def search(storage: str, cut: str = "") -> int:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        return subprocess.run([sys.executable, "-c", SEARCH, storage, name, cut], cwd=ROOT, env=environment, check=False).returncode

    def trials(storage: str) -> list[object]:
        return list(Study.open(storage, name="cut", space=suite.ToySpace(), goal=suite.toy_goal(objectives=2)).trials())

    whole, broken = str(tmp_path / "whole.journal"), str(tmp_path / "broken.journal")
    assert search(whole) == 0
    lines = len(Path(whole).read_bytes().splitlines())
    for cut in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert search(broken, str(int(cut * lines))) == -signal.SIGKILL
    assert search(broken) == 0
    assert trials(broken) == trials(whole)
