"""What a search does between two evaluations when four workers share it: PostgreSQL over a network of namespaces, and a journal file.

    python experiments/benchmarks/bench_storage.py --trials 500

Needs root (`ip netns`) and PostgreSQL for the first. An evaluation sleeps; bookkeeping is all the time from its end to the beginning of the next one of the
same process: storing the result, reading what the others did, proposing, judging, storing the proposal. The part of it that is spent in calls to the storage is
stated too. 40 genes, two objectives, one budget that all keep, random search. The machine's load counts into the times, so it is stated before and after.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT))

GENES = 40
WORK = """
import json, sys, time
from nas.searching.storage import TrialStore
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
url, log, evals, pause_s, blocks = sys.argv[1:]
steps, last, spent = [], None, 0.0

def timed(call):
    def wrapped(*args, **kwargs):
        global spent
        began = time.monotonic()
        try:
            return call(*args, **kwargs)
        finally:
            spent += time.monotonic() - began
    return wrapped

for name in ("poll", "propose", "claim", "complete", "withdraw", "fail"):
    setattr(TrialStore, name, timed(getattr(TrialStore, name)))

class Timed(ToyEvaluator):
    def evaluate(self, architecture):
        global last
        if last is not None:
            steps.append([time.monotonic() - last[0], time.process_time() - last[1], spent - last[2]])
        time.sleep(float(pause_s))
        last = time.monotonic(), time.process_time(), spent
        return super().evaluate(architecture)

goal = toy_goal(objectives=2, budget="200ms")  # keeps all: a proposal is an evaluation
study = Study.open(url, name="cost", space=ToySpace(int(blocks)), goal=goal)
study.run("random", Timed(), ToyJudge(goal), evals=int(evals), seed=7, shared=True)
open(log, "w").write(json.dumps(steps))
"""


def team(url: str, wraps: list[Callable[[list[str]], list[str]]], trials: int, pause_s: float) -> dict[str, Any]:
    """Run one worker a wrap and return the figures of all."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{i}.json" for i in range(len(wraps))]
        words = [[sys.executable, "-c", WORK, url, str(log), str(trials), str(pause_s), str(GENES // 2)] for log in logs]
        processes = [subprocess.Popen(wrap(line), cwd=ROOT, env=environment) for wrap, line in zip(wraps, words, strict=True)]
        codes = [process.wait() for process in processes]
        steps = 1e3 * np.array([step for log in logs for step in json.loads(log.read_text())])
    wall, processor, storage = steps.T
    return {
        "exit_codes": codes,
        "evaluations": trials,
        "wall_ms_median": float(np.median(wall)),
        "wall_ms_mean": float(wall.mean()),
        "wall_ms_95": float(np.percentile(wall, 95)),
        "processor_ms_median": float(np.median(processor)),
        "storage_ms_median": float(np.median(storage)),
        "storage_ms_mean": float(storage.mean()),
    }


def on_postgresql(trials: int, pause_s: float) -> dict[str, Any]:
    """Two hosts with two workers each; the server is a third."""
    from tests.e2e.hosts import NETWORK, network_hosts, postgresql_server

    with postgresql_server() as server, network_hosts("host-a", "host-b") as hosts:
        server.address = f"{NETWORK}.1"
        names = ("host-a", "host-b", "host-a", "host-b")
        return team(server.url, [lambda words, name=name: hosts.command(name, words) for name in names], trials, pause_s)


def on_journal(trials: int, pause_s: float) -> dict[str, Any]:
    """Four workers on one file."""
    with tempfile.TemporaryDirectory() as folder:
        return team(f"{folder}/study.journal", [lambda words: words] * 4, trials, pause_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--pause", type=float, default=0.25, help="of an evaluation, in seconds")
    parser.add_argument("--out", type=Path, default=RESULTS / "storage.json")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    found = {
        "command": f"experiments/benchmarks/bench_storage.py --trials {options.trials} --pause {options.pause}",
        "versions": {name: version(name) for name in ("optuna", "sqlalchemy", "psycopg")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "genes": GENES,
        "workers": 4,
        "load_average_before": before,
        "postgresql": on_postgresql(options.trials, options.pause),
        "journal": on_journal(options.trials, options.pause),
    }
    found["load_average_after"] = os.getloadavg()[0]
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
