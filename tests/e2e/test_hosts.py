"""Workers on two hosts with names of their own, a database that is pulled from under them, clocks that disagree."""

import json
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

import numpy as np
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


TRAINER = """
import json, sys, torch
from pathlib import Path
from nas.spaces.naming import get_space
from nas.training.dataset import load_dataset
from nas.training.supernet.train import Recipe, train

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # in single precision, rounding grows to 1e-4 by the second step
torch.Tensor.float = torch.Tensor.double
folder = Path(sys.argv[1])
folder.mkdir()
space, data = get_space("hybrid-s", num_classes=10), load_dataset("digits", images=24)
recipe = Recipe(epochs=2, batch=8, learning_rate=1e-3)
for stop_after in (1, None):  # the second host has no checkpoint of its own to go on with
    done = train(space, data, folder / "s.safetensors", recipe, resolution=(32, 32), seed=5, device="cpu", stop_after=stop_after)
(folder / "history.json").write_text(json.dumps(done.history))
"""


def test_a_supernet_on_two_hosts_has_the_loss_of_one(tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "0"]
    with network_hosts("gpu-01", "gpu-02") as hosts:
        processes = []
        for rank, name in enumerate(hosts.names):
            first = ["--node-rank", str(rank), "--master-addr", f"{NETWORK}.10", "--master-port", "29511"]
            interface = {"GLOO_SOCKET_IFNAME": f"{hosts.prefix}w{rank}"}
            words = hosts.command(name, [*torchrun, *first, str(script), str(tmp_path / name)])
            processes.append(subprocess.Popen(words, env=environment | interface, cwd=ROOT))
        try:
            assert [process.wait(timeout=1200) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    alone = subprocess.run([sys.executable, str(script), str(tmp_path / "one")], env=environment, capture_output=True, check=False)
    assert alone.returncode == 0, alone.stderr[-2000:].decode()
    found = {name: json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "gpu-01", "gpu-02")}
    assert found["gpu-01"] == found["gpu-02"]
    assert len(found["one"]) == len(found["gpu-01"]) == 2
    for one, two in zip(found["one"], found["gpu-01"], strict=True):
        assert one.keys() == two.keys()
        assert np.allclose([one[key] for key in one], [two[key] for key in one], rtol=0, atol=1e-9)
    assert not (tmp_path / "gpu-02" / "s.safetensors").exists()
