"""What Optuna's own interface, and with it `optuna-dashboard`, shows of a search: named objectives, feasibility, architectures."""

from pathlib import Path

import numpy as np
import optuna
import pytest

from nas.searching.backend import Backend
from nas.searching.objective import Objective
from nas.searching.storage import TrialStore, open_backend
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal


def opened(url: str, name: str) -> optuna.Study:
    backend: Backend = open_backend(url)
    return optuna.load_study(study_name=name, storage=backend.optuna_storage)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_optuna_reads_names_feasibility_and_architectures(kind: str, tmp_path: Path) -> None:
    url = str(tmp_path / "s.journal") if kind == "journal" else f"sqlite:///{tmp_path / 's.db'}"
    goal, space, rng = toy_goal(objectives=2), ToySpace(4), np.random.default_rng(0)
    store = TrialStore(url, name="watched", space=space, goal=goal)
    for architecture in (space.sample(rng) for _ in range(8)):
        cheap, violations = ToyJudge(goal).judge([architecture])[0]
        broken = max(violations.values()) > 0
        row = store.propose(architecture, cheap, violations, state="infeasible" if broken else "running")
        if not broken:
            store.complete(row, {**cheap, "accuracy_pct": ToyEvaluator().evaluate(architecture).accuracy_pct})
    study = Study.open(url, name="watched", space=space, goal=goal)
    shown = opened(url, "watched")
    assert shown.metric_names == ["top-1 %", "ms on toy"]
    trials = shown.get_trials()
    ours = study.trials()
    assert [trial.user_attrs["architecture"] for trial in trials] == [trial.architecture.key for trial in ours]
    feasible = [all(value <= 0 for value in trial.constraints.values()) for trial in trials]
    assert feasible == [trial.feasible for trial in ours]
    assert set(feasible) == {True, False}
    assert [trial.system_attrs["constraints"] for trial in trials] == [list(trial.violations.values()) for trial in ours]
    best = {trial.number for trial in shown.best_trials}
    assert best == {trial.number for trial in study.front()}


def test_scores_that_are_no_accuracies_are_called_otherwise(tmp_path: Path) -> None:
    url = str(tmp_path / "s.journal")
    Study.open(url, name="ranked", space=ToySpace(4), goal=toy_goal(objectives=2), score="training-free rank")
    assert opened(url, "ranked").metric_names == ["training-free rank", "ms on toy"]


@pytest.mark.parametrize(
    ("name", "title"),
    [("latency_ms/sa8295p", "ms on sa8295p"), ("macs", "multiply-adds"), ("size_bytes", "bytes of the file"), ("depth", "depth")],
)
def test_titles(name: str, title: str) -> None:
    assert Objective(name, "minimize").title == title
