"""Workers on two hosts with names of their own, a database that is pulled from under them, clocks that disagree."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.searching.study import Study
from nas.testing.searchers import ToySpace, toy_goal
from tests.e2e.hosts import NETWORK, Hosts, network_hosts, pause, postgresql_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LEASE_S = 15.0
WORK = f"""
import os, socket, sys, time
from nas.searching import leases, storage, study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
for module in (leases, storage, study):
    module.LEASE_S = {LEASE_S}
url, log, evals, pause_s = sys.argv[1:]

class Logged(ToyEvaluator):
    def evaluate(self, architecture):
        with open(log, "a") as file:
            file.write(f"{{architecture.key}} {{os.getpid()}} {{socket.gethostname()}}" + chr(10))
        time.sleep(float(pause_s))
        return super().evaluate(architecture)

goal = toy_goal(objectives=2)
found = study.Study.open(url, name="shared", space=ToySpace(4), goal=goal)
found.run("random", Logged(), ToyJudge(goal), evals=int(evals), seed=7, shared=True)
"""


def worker(url: str, log: Path, evals: int, pause_s: float, wrap: Callable[[list[str]], list[str]]) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", WORK, url, str(log), str(evals), str(pause_s)]
    return subprocess.Popen(wrap(words), cwd=ROOT, env=environment)


def evaluated(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(log: Path, count: int, team: "list[subprocess.Popen[bytes]]", limit_s: float = 300) -> None:
    deadline_s = time.monotonic() + limit_s
    while len(evaluated(log)) < count:
        assert time.monotonic() < deadline_s, f"stuck at {len(evaluated(log))} of {count}"
        assert any(process.poll() is None for process in team), "all have ended"
        time.sleep(0.05)


def check(study: Study, log: Path, evals: int) -> None:
    """None lost, none twice, none stuck."""
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(study.proposals))
    complete = Counter(trial.architecture.key for trial in trials if trial.evaluated)
    assert sum(complete.values()) == len(complete) == evals
    failed = [trial for trial in trials if trial.state == "failed"]
    assert {trial.message for trial in failed} <= {"its worker stopped"}
    again = {trial.architecture.key for trial in failed}
    times = Counter(line[0] for line in evaluated(log))
    assert set(complete) <= set(times)
    assert {key for key, count in times.items() if count > 1} <= again


def test_two_hosts_a_database_that_is_killed_and_a_cut_link(tmp_path: Path) -> None:
    evals, log = 300, tmp_path / "log"
    with postgresql_server() as server, network_hosts("gpu-01", "gpu-02") as hosts:
        server.address = f"{NETWORK}.1"

        def start(host: str) -> "subprocess.Popen[bytes]":
            return worker(server.url, log, evals, 0.2, lambda words: hosts.command(host, words))

        team = [start(host) for host in ("gpu-01", "gpu-02", "gpu-01", "gpu-02")]
        killed = []
        try:
            wait_for(log, 30, team)
            server.restart()
            wait_for(log, 70, team)
            _kill(team, killed, 0)
            wait_for(log, 100, team)
            _cut(hosts, "gpu-02", 5.0)
            wait_for(log, 150, team)
            thread = threading.Thread(target=pause, args=(team[2], LEASE_S + 5))
            thread.start()
            wait_for(log, 190, team)
            _kill(team, killed, 1)
            team += [start("gpu-01"), start("gpu-02")]
            wait_for(log, 230, team)
            server.restart()
            thread.join()
            codes = [process.wait(timeout=300) for process in team if process not in killed]
        finally:
            for process in team:
                process.kill()
                process.wait()
        assert codes == [0] * len(codes)
        check(Study.open(server.url, name="shared", space=ToySpace(4), goal=toy_goal(objectives=2)), log, evals)
        assert {line[2] for line in evaluated(log)} == {"gpu-01", "gpu-02"}


def _kill(team: "list[subprocess.Popen[bytes]]", killed: "list[subprocess.Popen[bytes]]", place: int) -> None:
    team[place].send_signal(signal.SIGKILL)
    team[place].wait()
    killed.append(team[place])


def _cut(hosts: Hosts, name: str, seconds: float) -> None:
    hosts.link(name, "down")
    time.sleep(seconds)
    hosts.link(name, "up")


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_clocks_two_minutes_apart(kind: str, tmp_path: Path) -> None:
    """One process lives two minutes ahead of the other; each network is evaluated once."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("needs faketime: apt-get install faketime")
    log, evals = tmp_path / "log", 60

    def both(url: str) -> None:
        wraps: list[Callable[[list[str]], list[str]]] = [lambda words: words, lambda words: [faketime, "-f", "+120s", *words]]
        team = [worker(url, log, evals, 0.3, wrap) for wrap in (*wraps, *wraps)]
        try:
            assert [process.wait(timeout=300) for process in team] == [0] * 4
        finally:
            for process in team:
                process.kill()
        study = Study.open(url, name="shared", space=ToySpace(4), goal=toy_goal(objectives=2))
        check(study, log, evals)
        assert max(Counter(line[0] for line in evaluated(log)).values()) == 1
        assert not [trial for trial in study.trials() if trial.state == "failed"]

    if kind == "journal":
        both(str(tmp_path / "s.journal"))
    else:
        with postgresql_server() as server:
            both(server.url)
