import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nas.errors import ArtifactError, NasError, UsageError
from nas.events import Event, EventBus, Notice, PhaseAdvanced, PhaseStarted
from nas.searching.leases import Lease, LeaseWatch
from nas.searching.objective import Goal, Objective
from nas.searching.pareto import front
from nas.searching.searcher import Searcher, Trial
from nas.searching.storage import TrialStore
from nas.searching.study import Study
from nas.searching.worker import Worker, _start_time, this_worker
from nas.spaces.architecture import Architecture
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, simulate, toy_goal
from nas.training.evaluator import Metrics

ROOT = Path(__file__).parents[2]


def opened(path: Path, blocks: int = 3, *, objectives: int = 2, **attributes: str) -> Study:
    goal = toy_goal(objectives=objectives)
    return Study.open(str(path / "s.journal"), name="toy", space=ToySpace(blocks), goal=goal, attributes=attributes)


class Scripted(Searcher):
    """Proposes what it was given."""

    script: tuple[Architecture, ...] = ()

    def ask(self, number: int) -> Architecture | None:
        return self.script[number] if number < len(self.script) else None

    def tell(self, trial: Trial) -> None:
        pass


def scripted(space: ToySpace, *genes: tuple[int | str, ...]) -> Scripted:
    searcher = Scripted(space, toy_goal(), 0)
    searcher.script = tuple(space.architecture(g) for g in genes)
    return searcher


def run(
    study: Study, searcher: str | Searcher = "random", *, evals: int = 20, evaluator: ToyEvaluator | None = None, **options: object
) -> None:
    study.run(searcher, evaluator or ToyEvaluator(), ToyJudge(study.goal), evals=evals, seed=0, **options)  # type: ignore[arg-type]


def test_a_study_reads_back_what_it_stored(tmp_path: Path) -> None:
    study = opened(tmp_path)
    run(study)
    again = opened(tmp_path)
    assert again.trials() == study.trials()
    assert again.evaluations == 20
    assert again.front() == study.front()


def test_front_is_feasible_and_undominated(tmp_path: Path) -> None:
    study = opened(tmp_path)
    run(study, evals=40)
    able = [t for t in study.trials() if t.evaluated and t.feasible]
    undominated = [able[i] for i in front([study.goal.losses(t.values) for t in able])]
    assert study.front() == sorted(undominated, key=lambda t: (study.goal.losses(t.values), t.number))
    assert all(t.feasible and t.evaluated for t in study.front())
    history = study.hypervolume_history()
    assert len(history) == 40
    assert history == sorted(history)
    assert history[-1] > history[0] > 0


def test_other_facts_are_refused(tmp_path: Path) -> None:
    opened(tmp_path, profile="abc")
    with pytest.raises(ArtifactError, match=r"another profile, got 'xyz'\. Expected 'abc'"):
        opened(tmp_path, profile="xyz")
    with pytest.raises(ArtifactError, match="another space"):
        opened(tmp_path, blocks=4)
    study = opened(tmp_path)
    run(study, evals=3)
    with pytest.raises(ArtifactError, match="another searcher, got 'nsga2'"):
        run(opened(tmp_path), "nsga2")


def test_what_breaks_a_budget_is_not_evaluated(tmp_path: Path) -> None:
    study, evaluator = opened(tmp_path, 1), ToyEvaluator()
    dear, cheap = (32, "attention"), (8, "conv")
    study = Study.open(str(tmp_path / "tight"), name="t", space=ToySpace(1), goal=toy_goal(budget="1ms"))
    run(study, scripted(ToySpace(1), dear, cheap), evaluator=evaluator)
    assert [t.state for t in study.trials()] == ["infeasible", "complete"]
    assert [a.genes for a in evaluator.evaluated] == [cheap]
    assert study.trials()[0].violations["latency/toy"] > 0
    assert [t.number for t in study.front()] == [1]


def test_where_the_time_is_over_and_nothing_fits_the_smallest_is_tried(tmp_path: Path) -> None:
    class Ends(ToySpace):
        def extreme(self, largest: bool) -> Architecture:
            return self.architecture((32, "attention") if largest else (8, "conv"))

    space, evaluator, said = Ends(1), ToyEvaluator(), list[Event]()
    study = Study.open(str(tmp_path / "late"), name="t", space=space, goal=toy_goal(budget="1ms"))
    proposals = scripted(space, *[(32, "attention"), (16, "attention")] * 50)
    run(study, proposals, evaluator=evaluator, evals=30, left_s=lambda: 0.0, bus=EventBus([said.append]))
    states = [t.state for t in study.trials()]
    assert set(states[:-1]) == {"infeasible"}
    assert (states[-1], study.trials()[-1].architecture.genes) == ("complete", (8, "conv"))
    assert len(states) < 30
    assert any("share of the time limit" in event.text for event in said if isinstance(event, Notice))


def test_a_network_is_evaluated_once(tmp_path: Path) -> None:
    study, evaluator = opened(tmp_path, 1), ToyEvaluator()
    run(study, scripted(ToySpace(1), (8, "mlp"), (8, "mlp"), (0, "conv"), (8, "mlp")), evaluator=evaluator)
    assert [t.state for t in study.trials()] == ["complete", "duplicate", "complete", "duplicate"]
    assert study.trials()[1].values == study.trials()[0].values
    assert len(evaluator.evaluated) == study.evaluations == 2


def test_a_failure_is_recorded_and_tried_once_more(tmp_path: Path) -> None:
    study, evaluator = opened(tmp_path, 1), ToyEvaluator(frozenset([(8, "mlp")]))
    run(study, scripted(ToySpace(1), *[(8, "mlp")] * 4, (8, "conv")), evaluator=evaluator)
    assert [t.state for t in study.trials()] == ["failed"] * 4 + ["complete"]
    assert len(evaluator.evaluated) == 3
    assert all("toy: broken on purpose." in t.message for t in study.trials()[:4])
    assert opened(tmp_path, 1).trials() == study.trials()


def test_a_value_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    class Nan(ToyEvaluator):
        def evaluate(self, architecture: Architecture) -> Metrics:
            return Metrics(float("nan"), "validation")

    study = opened(tmp_path, 1)
    run(study, scripted(ToySpace(1), (8, "conv")), evaluator=Nan())
    assert "no finite accuracy_pct" in study.trials()[0].message


@pytest.mark.parametrize("searcher", ["random", "exhaustive", "evolution", "nsga2", "nsga3", "local", "guided", "tpe", "optuna-nsga2"])
def test_a_small_space_ends_when_it_has_been_seen(tmp_path: Path, searcher: str) -> None:
    study, said = opened(tmp_path, 1), list[Event]()
    run(study, searcher, evals=100, bus=EventBus([said.append]))
    judge = ToyJudge(study.goal)
    able = [a for a in ToySpace(1).enumerate() if judge.judge([a])[0][1]["latency/toy"] <= 0]
    assert {t.architecture for t in study.trials() if t.evaluated} == set(able)
    assert any("seen whole" in event.text for event in said if isinstance(event, Notice))


def test_proposals_are_capped(tmp_path: Path) -> None:
    study = opened(tmp_path, 1)
    run(study, scripted(ToySpace(1), *[(8, "conv")] * 50), max_proposals=10)
    assert study.proposals == 10


def test_three_objectives_of_which_two_cost_nothing(tmp_path: Path) -> None:
    """What guided search scalarises; the other searchers rank it like any front."""

    class Wider(ToyJudge):
        def judge(self, architectures: list[Architecture]) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
            widths = [float(sum(int(gene) for gene in a.genes[::2])) for a in architectures]
            return [({**cheap, "params": w}, broken) for (cheap, broken), w in zip(super().judge(architectures), widths, strict=True)]

    two = toy_goal(objectives=2)
    goal = Goal((*two.objectives, Objective("params", "minimize")), two.budgets)
    found = {}
    for name in ("random", "guided", "nsga2", "nsga3", "evolution", "local"):
        study = Study.open(str(tmp_path / name), name="toy", space=ToySpace(4), goal=goal)
        study.run(name, ToyEvaluator(), Wider(goal), evals=60, seed=0)
        assert all(trial.values.keys() == {"accuracy_pct", "latency_ms/toy", "params"} for trial in study.front())
        found[name] = study.hypervolume_history((0.0, 3.0, 128.0))[-1]
    assert found["guided"] > found["random"]
    assert found["nsga2"] > found["random"]


def test_events_tell_how_it_goes(tmp_path: Path) -> None:
    study, said = opened(tmp_path), list[Event]()
    run(study, evals=10, bus=EventBus([said.append]))
    run(study, evals=15, bus=EventBus([said.append]))
    starts = [e for e in said if isinstance(e, PhaseStarted)]
    steps = [e for e in said if isinstance(e, PhaseAdvanced)]
    assert [(e.done, e.total) for e in starts] == [(0, 10), (10, 15)]
    assert [e.done for e in steps] == list(range(1, 16))
    assert steps[-1].numbers.keys() >= {
        "evaluations_per_s",
        "best_accuracy_pct",
        "front_size",
        "hypervolume",
        "seconds_left",
    }
    assert steps[9].numbers["best_accuracy_pct"] == max(t.values["accuracy_pct"] for t in study.trials()[:10] if t.feasible)


SLEEPER = """
import dataclasses, json, sys, time
from nas.searching.worker import this_worker
print(json.dumps(this_worker().to_json()), flush=True)
time.sleep(60)
"""


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[str], Worker]]:
    """Another process, and its name."""
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout is not None
    yield child, Worker.from_json(json.loads(child.stdout.readline()))
    child.kill()
    child.wait()


def running(path: Path, study: Study, worker: Worker) -> None:
    """Leave a trial of a worker in the study."""
    store = TrialStore(str(path / "s.journal"), name="toy", space=ToySpace(), goal=study.goal)
    store.worker = worker
    store.propose(ToySpace().architecture([8, "conv"] * 3), {"latency_ms/toy": 1.0}, {"latency/toy": -0.5}, state="running")


def test_a_search_at_work_elsewhere_is_refused(tmp_path: Path, sleeper: tuple[subprocess.Popen[str], Worker]) -> None:
    running(tmp_path, opened(tmp_path), sleeper[1])
    with pytest.raises(ArtifactError, match=f"is being worked on by process {sleeper[0].pid} on "):
        run(opened(tmp_path))


def test_a_search_on_another_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its lease tells whether it lives."""
    monkeypatch.setattr("nas.searching.study.LEASE_S", 1.5)
    monkeypatch.setattr("nas.searching.storage.LEASE_S", 1.5)
    study, told = opened(tmp_path), list[Event]()
    running(tmp_path, study, Worker("gpu-01", "another boot", "pid:[1]", 17, "4"))
    began_s = time.monotonic()
    run(opened(tmp_path), evals=3, bus=EventBus([told.append]))
    assert 1.5 < time.monotonic() - began_s < 30
    assert any("process 17 on gpu-01 may be at work on trial 0" in event.text for event in told if isinstance(event, Notice))
    first = opened(tmp_path).trials()[0]
    assert (first.number, first.state) == (0, "complete")


def test_a_search_on_another_machine_that_renews_its_lease_is_refused(tmp_path: Path) -> None:
    study = opened(tmp_path)
    running(tmp_path, study, Worker("gpu-01", "another boot", "pid:[1]", 17, "4"))
    store = TrialStore(str(tmp_path / "s.journal"), name="toy", space=ToySpace(), goal=study.goal)
    over = threading.Event()

    def renew() -> None:
        row = store.poll()[0]
        while not over.wait(0.3):
            row = store.renew(row)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(ArtifactError, match="is being worked on by process 17 on gpu-01"):
            run(opened(tmp_path))
    finally:
        over.set()
        thread.join()


def test_a_database_is_asked_again_for_what_may_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open trial is believed for a moment, its end is seen at once."""
    url, goal = f"sqlite:///{tmp_path}/s.db", toy_goal()
    one, other = (TrialStore(url, name="toy", space=ToySpace(), goal=goal) for _ in range(2))
    row = one.propose(ToySpace().architecture([8, "conv"] * 3), {"latency_ms/toy": 1.0}, {"latency/toy": -0.5}, state="running")
    monkeypatch.setattr("nas.searching.database.FRESH_S", 1e9)
    assert [(seen.lease.count, seen.architecture) for seen in other.poll()] == [(0, row.architecture)]
    row = one.renew(row)
    assert one.poll()[0].lease.count == 1  # who renews knows it
    assert other.poll()[0].lease.count == 0
    monkeypatch.setattr("nas.searching.database.FRESH_S", 0.0)
    assert other.poll()[0].lease.count == 1
    monkeypatch.setattr("nas.searching.database.FRESH_S", 1e9)
    assert one.complete(row, {**row.cheap, "accuracy_pct": 50.0})
    assert [(seen.state, seen.values["accuracy_pct"]) for seen in other.poll()] == [("complete", 50.0)]
    assert other.poll() == []


def test_a_database_that_goes_away_in_the_middle_of_a_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    from nas.searching import database

    url, goal, ask, asked = f"sqlite:///{tmp_path}/s.db", toy_goal(), database._everything_of, list[int]()
    one, other = (TrialStore(url, name="toy", space=ToySpace(), goal=goal) for _ in range(2))
    row = one.propose(ToySpace().architecture([8, "conv"] * 3), {"latency_ms/toy": 1.0}, {"latency/toy": -0.5}, state="running")

    def away() -> object:
        asked.append(1)
        if len(asked) < 3:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorname = "SQLITE_BUSY"
            raise OperationalError("", {}, busy)
        return ask()

    monkeypatch.setattr(database, "_everything_of", away)
    assert [(seen.architecture, seen.violations) for seen in other.poll()] == [(row.architecture, row.violations)]
    assert len(asked) == 3


def test_whoever_holds_the_lock_of_a_run_need_not_wait_for_a_dead_container(tmp_path: Path) -> None:
    study = opened(tmp_path)
    running(tmp_path, study, replace(this_worker(), host="container", processes="pid:[1]", nonce="x"))
    began_s = time.monotonic()
    run(opened(tmp_path), evals=3, locked=True)
    assert time.monotonic() - began_s < 30


def test_workers_are_known_to_live_or_not() -> None:
    parent = replace(this_worker(), pid=os.getppid(), started=_start_time(os.getppid()))
    assert parent.alive is True
    assert replace(parent, host="gpu-01").alive is True  # a name is no part of what tells machines apart
    assert replace(parent, started="1").alive is False
    assert replace(parent, boot="another").alive is None
    assert replace(parent, processes="pid:[1]").alive is None
    assert this_worker().alive is None  # another session of this process
    assert this_worker() != this_worker()
    for foreign in ("gpu-01 abc pid:[1] 5 6", None, {}, {"pid": "seven", "host": 3}, 7):
        assert Worker.from_json(foreign).alive is None
    assert Worker.from_json(json.loads(json.dumps(parent.to_json()))) == parent


def test_a_killed_worker_is_dead_before_its_parent_has_looked(sleeper: tuple[subprocess.Popen[str], Worker]) -> None:
    child, worker = sleeper
    assert worker.alive is True
    child.kill()
    deadline_s = time.monotonic() + 10
    while worker.alive and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert worker.alive is False


def test_silence_is_measured_by_the_renewals_seen_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    worker = this_worker()
    watch = LeaseWatch(lambda: None)
    watch.look(1, Lease(worker, 0, at_s=5e9))  # its clock is years ahead
    now[0] += 50
    assert watch.silent_s(1) == 50
    watch.look(1, Lease(worker, 1, at_s=5.0))
    assert watch.silent_s(1) == 0
    now[0] += 70
    assert watch.silent_s(1) == 70
    watch.restart()  # the storage was away
    assert watch.silent_s(1) == 0
    asked = LeaseWatch(lambda: 2000.0)  # a database has one clock for all
    asked.look(1, Lease(worker, 0, at_s=1900.0))
    assert asked.silent_s(1) == 100


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    run(opened(tmp_path), evals=5)
    path = tmp_path / "s.journal"
    before = opened(tmp_path).trials()
    path.write_bytes(path.read_bytes() + b'{"op_code": 4, "wor')
    assert opened(tmp_path).trials() == before
    run(opened(tmp_path), evals=8)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_damage_and_absence_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.journal").write_text("no journal\nat all\n")
    with pytest.raises(ArtifactError, match="not a journal"):
        opened(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        Study.open(str(tmp_path / "none"), name="x", space=ToySpace(), goal=toy_goal(), create=False)
    with pytest.raises(UsageError, match="evals: too few"):
        run(opened(tmp_path / "new"), evals=0)


def test_workers_share_a_journal(tmp_path: Path) -> None:
    opened(tmp_path, 4)
    evaluators = [ToyEvaluator() for _ in range(3)]

    def work(evaluator: ToyEvaluator) -> None:
        run(opened(tmp_path, 4), evals=60, evaluator=evaluator, shared=True)

    threads = [threading.Thread(target=work, args=(evaluator,)) for evaluator in evaluators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = Counter(a for evaluator in evaluators for a in evaluator.evaluated)
    study = opened(tmp_path, 4)
    assert study.evaluations == 60 == len(done)
    assert set(done.values()) == {1}
    assert not [t for t in study.trials() if t.state == "failed"]


def test_a_vanished_worker_is_made_good_for_once(tmp_path: Path) -> None:
    lost = ToySpace().architecture([8, "conv"] * 3)
    running(tmp_path, opened(tmp_path), replace(this_worker(), pid=os.getppid(), started="1"))
    run(opened(tmp_path), evals=10, shared=True)
    trials = [t for t in opened(tmp_path).trials() if t.architecture == lost]
    assert [(t.state, t.message) for t in trials] == [("failed", "its worker stopped"), ("complete", "")]


def test_simulation_matches_the_study(tmp_path: Path) -> None:
    """The contract suite's loop without a storage proposes what a stored search does."""
    from nas.searching.searcher import searchers

    study = opened(tmp_path)
    run(study, "nsga2", evals=30)
    searcher = searchers.get("nsga2")(study.space, study.goal, 0, ToyJudge(study.goal))
    assert simulate(searcher, study.goal, len(study.trials())) == study.trials()


def test_a_judge_of_other_budgets_is_refused(tmp_path: Path) -> None:
    study = opened(tmp_path)
    with pytest.raises(NasError, match="violations of other budgets"):
        study.run("random", ToyEvaluator(), ToyJudge(toy_goal(budget="")), evals=3, seed=0)
