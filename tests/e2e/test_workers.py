"""Several processes at one study, on a PostgreSQL of our own and on a journal file, with some of them killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
from nas.training.evaluator import Metrics
from tests.e2e.conftest import Result
from tests.e2e.hosts import postgresql_server
from tests.e2e.test_design import words

__all__ = ["words"]

ROOT = Path(__file__).parents[2]
WORK = """
import os, sys, time
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
storage, searcher, log, evals, count, gate = sys.argv[1:]

class Logged(ToyEvaluator):
    begun = 0

    def evaluate(self, architecture):
        with open(log, "a") as file:
            file.write(f"{architecture.key} {os.getpid()}" + chr(10))
        self.begun += 1
        if self.begun == int(count):
            open(f"{log}.{os.getpid()}", "w").close()
            while not os.path.exists(gate):
                time.sleep(0.02)
        time.sleep(0.01)
        return super().evaluate(architecture)

goal = toy_goal(objectives=2)
study = Study.open(storage, name="shared", space=ToySpace(4), goal=goal)
study.run(searcher, Logged(), ToyJudge(goal), evals=int(evals), seed=7, shared=True)
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a fresh server on the loopback."""
    with postgresql_server() as server:
        yield server.url


def start(storage: str, searcher: str, log: Path, evals: int, count: int, gate: Path) -> subprocess.Popen[bytes]:
    """Start a worker that stands still in its evaluation number `count` until the file `gate` is there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", WORK, storage, searcher, str(log), str(evals), str(count), str(gate)]
    return subprocess.Popen(words, cwd=ROOT, env=environment)


def kill_in_evaluation(victim: subprocess.Popen[bytes], log: Path) -> None:
    """Kill a worker when it stands still."""
    while not Path(f"{log}.{victim.pid}").exists():
        assert victim.poll() is None, "the worker has ended"
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()


def check_four_workers(storage: str, log: Path, searcher: str, evals: int) -> Study:
    """Four workers, two killed and one added on the way: nothing is lost, nothing counts twice."""
    never, gate = log.with_name("never"), log.with_name("gate")
    begun = (evals // 10, evals // 5)  # by the two that are killed; the two others wait for that, with half of the work left
    workers = [start(storage, searcher, log, evals, count, never) for count in begun]
    workers += [start(storage, searcher, log, evals, evals // 4, gate) for _ in range(2)]
    try:
        for victim in workers[:2]:
            kill_in_evaluation(victim, log)
        workers.append(start(storage, searcher, log, evals, 0, never))
        gate.touch()
        assert [worker.wait(timeout=300) for worker in workers[2:]] == [0, 0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    study = Study.open(storage, name="shared", space=ToySpace(4), goal=toy_goal(objectives=2))
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(study.proposals))  # all closed, none lost
    complete = [trial for trial in trials if trial.evaluated]
    assert len(complete) == study.evaluations == evals
    assert max(Counter(trial.architecture for trial in complete).values()) == 1
    evaluated = Counter(line.split()[0] for line in log.read_text().splitlines())
    failed = [trial for trial in trials if trial.state == "failed"]
    assert len(failed) == 2
    assert {trial.message for trial in failed} == {"its worker stopped"}
    again = {trial.architecture.key for trial in failed}
    assert all(count == 1 for key, count in evaluated.items() if key not in again)
    assert {trial.architecture.key for trial in complete} == set(evaluated)
    assert again <= {trial.architecture.key for trial in trials if trial.state in ("complete", "duplicate")}
    return study


@pytest.mark.slow
def test_four_workers_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    check_four_workers(postgresql, tmp_path / "log", "nsga2", 40)


def test_four_workers_on_a_journal(tmp_path: Path) -> None:
    check_four_workers(str(tmp_path / "s.journal"), tmp_path / "log", "evolution", 80)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_optuna_dashboard_opens_the_storage(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")
    url = str(tmp_path / "s.journal") if kind == "journal" else request.getfixturevalue("postgresql")
    goal = toy_goal(objectives=2)
    study = Study.open(url, name="watched", space=ToySpace(4), goal=goal)
    study.run("random", ToyEvaluator(), ToyJudge(goal), evals=12, seed=0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [url.replace("postgresql://", "postgresql+psycopg://"), "--host", "127.0.0.1", "--port", str(port), "--quiet"]
    start_it = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", *words]
    server = subprocess.Popen(start_it, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answer(path: str) -> Any:
        deadline_s = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as found:
                    return json.load(found)
            except OSError:
                assert server.poll() is None, "the dashboard has ended"
                assert time.monotonic() < deadline_s, "the dashboard does not answer"
                time.sleep(0.2)

    try:
        number = next(s["study_id"] for s in answer("studies")["study_summaries"] if s["study_name"] == "watched")
        shown = answer(f"studies/{number}")
    finally:
        server.kill()
        server.wait()
    assert shown["directions"] == ["maximize", "minimize"]
    assert shown["objective_names"] == ["top-1 %", "ms on toy"]
    assert [trial["constraints"] for trial in shown["trials"]] == [list(trial.violations.values()) for trial in study.trials()]
    states = {"complete": "Complete", "infeasible": "Pruned", "duplicate": "Pruned"}
    assert [trial["state"] for trial in shown["trials"]] == [states[trial.state] for trial in study.trials()]
    best = [trial["values"] for trial in shown["trials"] if trial["state"] == "Complete"]
    assert best == [[trial.values[o.name] for o in goal.objectives] for trial in study.trials() if trial.evaluated]


def test_a_worker_without_a_search_says_so(refused: Callable[..., str], tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"
    words = ("worker", "--storage", storage, "--wait", "0")
    assert "no such file" in refused(*words, code=1)
    Study.open(str(storage), name="other", space=ToySpace(), goal=toy_goal())
    assert "no such study, got 'nas'. It holds: other" in refused(*words, "--study", "nas", code=1)
    assert "study other: nas search has not come so far" in refused(*words, code=1)
    Study.open(str(storage), name="third", space=ToySpace(), goal=toy_goal())
    assert "holds several studies. Do this: --study with one of other, third" in refused(*words)


def test_studies_are_listed(nas: Callable[..., Result], tmp_path: Path) -> None:
    storage, goal = tmp_path / "s.journal", toy_goal(objectives=2)
    for name, evals in (("first", 5), ("second", 3)):
        study = Study.open(str(storage), name=name, space=ToySpace(), goal=goal)
        study.run("random", ToyEvaluator(), ToyJudge(goal), evals=evals, seed=0)
    study.note({"request": json.dumps({"devices": ["sa8295p"]}), "status": "finished"})
    result = nas("studies", "--storage", storage, "--format", "json")
    assert result.code == 0, result.err
    first, second = json.loads(result.out)
    assert (first["study"], first["status"], first["evaluations"]) == ("first", "interrupted", 5)
    assert (second["study"], second["status"], second["evaluations"], second["devices"]) == ("second", "finished", 3, ["sa8295p"])
    assert second["best"] == max(trial.values["accuracy_pct"] for trial in study.trials() if trial.evaluated and trial.feasible)
    assert "finished" in nas("studies", "--storage", storage).out


@pytest.mark.slow
def test_a_worker_goes_on_with_trained_weights(
    nas: Callable[..., Result],
    refused: Callable[..., str],
    words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search stops after one evaluation, a worker does the others, and the search finds them done."""
    from safetensors.torch import load_file, save_file

    from nas.events import PhaseAdvanced
    from nas.runs.directory import StatusFile
    from nas.training.evaluators.supernet import SupernetEvaluator

    storage, run = f"sqlite:///{tmp_path}/shared.db", tmp_path / "run"
    listen, evaluate, scored = StatusFile.__call__, SupernetEvaluator.evaluate, list[str]()

    def interrupted(self: StatusFile, event: object) -> None:
        listen(self, event)  # type: ignore[arg-type]
        if isinstance(event, PhaseAdvanced) and event.phase == "search":
            raise KeyboardInterrupt

    def counted(self: SupernetEvaluator, architecture: Architecture) -> Metrics:
        scored.append(architecture.key)
        return evaluate(self, architecture)

    monkeypatch.setattr(SupernetEvaluator, "evaluate", counted)
    with monkeypatch.context() as patch:
        patch.setattr(StatusFile, "__call__", interrupted)
        assert nas(*words, "--storage", storage).code == 1
    assert len(scored) == 1

    other = tmp_path / "other.safetensors"  # the same file with other numbers in it
    from safetensors import safe_open

    with safe_open(run / "supernet.safetensors", "pt") as file:
        facts = file.metadata()
    save_file({name: tensor + 1 for name, tensor in load_file(run / "supernet.safetensors").items()}, other, facts)
    assert "has other weights than the search" in refused("worker", "--storage", storage, "--supernet", other, code=1)

    elsewhere = tmp_path / "elsewhere.safetensors"
    (run / "supernet.safetensors").rename(elsewhere)
    refused("worker", "--storage", storage, code=1)
    result = nas("worker", "--storage", storage, "--supernet", elsewhere, "--format", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["evaluations"] == 4
    assert len(scored) == len(set(scored)) == 4
    elsewhere.rename(run / "supernet.safetensors")
    result = nas("resume", run, "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["status"], found["evaluations"]) == ("finished", 4)
    assert {p["key"] for p in found["front"]} <= set(scored)
