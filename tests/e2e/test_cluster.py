"""Evaluations on a Ray cluster of our own, one of whose processes dies on the way."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas.events import EventBus
from nas.runs.cluster import ClusterEvaluator, _side_by_side
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal

ROOT = Path(__file__).parents[2]


class Toy:
    """What an actor does, without a search's data: the toy's score and its process.

    Args:
        last: The evaluation in which its process is killed; 0 for none.
    """

    def __init__(self, last: int) -> None:
        self.left = last

    def process(self) -> int:
        return os.getpid()

    def evaluate(self, architecture: str) -> tuple[float, str, dict[str, float]]:
        from nas.spaces.architecture import Architecture

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)  # a node is lost
        found = ToyEvaluator().evaluate(Architecture.from_json(architecture))
        return found.accuracy_pct, found.split, {"process": float(os.getpid())}


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a cluster on the loopback."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'hardware-aware-nas[ray]'")
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    head = ["start", "--head", "--port", str(ports[0]), "--ray-client-server-port", str(ports[1]), "--num-cpus", "2"]
    quiet = ["--include-dashboard", "false", "--disable-usage-stats", "--node-ip-address", "127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*ray, *head, *quiet], env=environment, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        pytest.skip(f"Ray does not start here ({done.stderr.strip()[-200:]})")
    yield f"ray://127.0.0.1:{ports[1]}"
    subprocess.run([*ray, "stop", "--force", "--grace-period", "1"], env=environment, capture_output=True, check=False)


@pytest.mark.slow
def test_candidates_are_evaluated_on_a_cluster(cluster: str, tmp_path: Path) -> None:
    import ray

    ray.init(address=cluster, log_to_driver=False)
    kind, pids = ray.remote(num_cpus=1)(Toy), list[int]()

    def start() -> object:
        actor = kind.remote(0 if pids else 3)
        pids.append(ray.get(actor.process.remote()))
        return actor

    goal = toy_goal(objectives=2)

    def opened() -> Study:
        return Study.open(str(tmp_path / "s.journal"), name="toy", space=ToySpace(4), goal=goal)

    def search(study: Study, evaluator: ClusterEvaluator, bus: EventBus) -> None:
        study.run("random", evaluator, ToyJudge(goal), evals=30, seed=0, shared=True, bus=bus)

    try:
        evaluator = ClusterEvaluator("toy", start, 2)
        _side_by_side([opened(), opened()], search, evaluator, EventBus())
    finally:
        ray.shutdown()
    study = opened()
    assert study.evaluations == 30
    assert {trial.state for trial in study.trials()} <= {"complete", "infeasible", "duplicate"}
    processes = {int(trial.values["process"]) for trial in study.trials() if trial.evaluated}
    assert len(pids) == 3
    assert processes <= set(pids)
    assert os.getpid() not in processes


def test_an_address_of_no_cluster_is_refused(refused: Callable[..., str]) -> None:
    words = ("search", "--device", "sa8295p", "--budget", "5ms")
    assert "--workers: not the address of a cluster, got 'gpu-01'. Expected ray://HOST:10001." in refused(*words, "--workers", "gpu-01")
