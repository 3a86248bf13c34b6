"""Searchers on NAS-Bench-201, and what a stored search costs: the figures of README.md.

    python experiments/008_search/run.py table --data ../shared/data --repeats 30 [--raw] [--held-out] [--searcher guided …]
    python experiments/008_search/run.py bookkeeping --trials 10000
    python experiments/008_search/run.py workers --storage postgresql://… --trials 500

Each writes one file to results/ with its command, versions and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch import Architecture
from nas.evaluator import Metrics
from nas.pareto import hypervolume
from nas.protocols.search import Runs, Table, compare, contestants
from nas.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal

HERE = Path(__file__).parent
DEVICES = ("1080ti_1", "titan_rtx_256", "gold_6226", "pixel3", "samsung_s7", "silver_4114")
HELD_OUT = ("2080ti_32", "titanxp_1", "gold_6240", "pixel2", "samsung_a50", "essential_ph_1")
"""Devices on which no setting was tried."""

COLUMNS = ("cifar10_test", "cifar100_test", "imagenet16_120_test")
QUANTILES = (0.2, 0.4, 0.6)
GENES, BUDGET, WINDOW = 40, "50ms", 100


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the protocol over six devices and three budgets; on devices, columns and seeds that chose nothing where asked to."""
    files = (arguments.data / "latency_nasbench201.npz", arguments.data / "nasbench201_accuracy.npz")
    devices, columns = (HELD_OUT, COLUMNS) if arguments.held_out else (DEVICES, COLUMNS[1:2])
    seeds = range(first := 100 if arguments.held_out else 0, first + arguments.repeats)
    names = [name for given in arguments.searcher for name in contestants(given)]
    runs, found = Runs(arguments.runs), {}
    for column in columns:
        truth = Table.load(*files, column, devices, raw=arguments.raw)
        tasks = [truth.task(device, quantile) for device in devices for quantile in QUANTILES]
        found[column] = compare(truth, names, tasks, evals=200, seeds=seeds, runs=runs, said=lambda text: print(text, file=sys.stderr))
    return {
        "isomorphic": "apart" if arguments.raw else "one",
        "devices": devices,
        "budget_quantiles": QUANTILES,
        "seeds": [seeds.start, seeds.stop - 1],
        "columns": found,
    }


class Stamped(ToyEvaluator):
    """Notes the processor and wall-clock time of each evaluation, which itself costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score by arithmetic."""
        self.times.append((time.process_time(), time.perf_counter()))
        return super().evaluate(architecture)


def bookkeeping(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time what a search does between two evaluations: journal file, 40 genes, two objectives, one budget."""
    found = {}
    for name in arguments.searcher:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            evaluator, goal = Stamped(), toy_goal(objectives=2, budget=BUDGET)
            study = Study.open(f"{folder}/study.journal", name="cost", space=ToySpace(GENES // 2), goal=goal)
            study.run(name, evaluator, ToyJudge(goal), evals=arguments.trials, seed=0)
        steps = 1e3 * np.diff(np.array(evaluator.times), axis=0)
        found[name] = {
            f"at_{count}": {
                "processor_ms": float(np.median(steps[max(0, count - WINDOW) : count, 0])),
                "processor_ms_mean": float(steps[max(0, count - WINDOW) : count, 0].mean()),
                "wall_ms": float(np.median(steps[max(0, count - WINDOW) : count, 1])),
            }
            for count in sorted({min(200, arguments.trials), arguments.trials})
        }
        print(name, found[name], file=sys.stderr)
    return {"genes": GENES, "window": WINDOW, "searchers": found, "load_average": os.getloadavg()[0]}


WORK = """
import sys
from nas.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
storage, name, log, evals = sys.argv[1:]

class Logged(ToyEvaluator):
    def evaluate(self, architecture):
        with open(log, "a") as file:
            file.write(architecture.key + chr(10))
        return super().evaluate(architecture)

goal = toy_goal(objectives=2, budget="8ms")
Study.open(storage, name=name, space=ToySpace(6), goal=goal).run("nsga2", Logged(), ToyJudge(goal), evals=int(evals), seed=7, shared=True)
"""


def workers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Four workers, two killed and one added on the way, against one worker at equal trials."""
    goal, log = toy_goal(objectives=2, budget="8ms"), Path(tempfile.mkdtemp()) / "log"
    label = str(int(time.time()))

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORK, arguments.storage, name, str(log), str(arguments.trials)])

    def area(study: Study) -> float:
        return hypervolume([goal.losses(trial.values) for trial in study.front()], (0.0, 8.0))

    def opened(name: str) -> Study:
        return Study.open(arguments.storage, name=name, space=ToySpace(6), goal=goal)

    began = time.monotonic()
    team = [start(f"team-{label}") for _ in range(4)]
    for count, victim in ((arguments.trials // 5, team[0]), (arguments.trials // 2, team[1])):
        while not log.exists() or len(log.read_text().splitlines()) < count:
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
    team.append(start(f"team-{label}"))
    codes = [worker.wait() for worker in team[2:]]
    seconds = time.monotonic() - began
    evaluated = Counter(log.read_text().split())
    study = opened(f"team-{label}")
    complete = [trial.architecture.key for trial in study.trials() if trial.evaluated]
    vanished = {trial.architecture.key for trial in study.trials() if trial.state == "failed"}
    alone = start(f"alone-{label}")
    alone.wait()
    return {
        "exit_codes": codes,
        "seconds": seconds,
        "complete": len(complete),
        "distinct": len(set(complete)),
        "open": study.proposals - len(study.trials()),
        "vanished": len(vanished),
        "evaluated_twice_apart_from_vanished": sum(n > 1 for key, n in evaluated.items() if key not in vanished),
        "hypervolume": area(study),
        "hypervolume_of_one_worker": area(opened(f"alone-{label}")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("table")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--repeats", type=int, default=30)
    one.add_argument("--raw", action="store_true")
    one.add_argument("--held-out", action="store_true", help="Other devices, all columns, other seeds.")
    one.add_argument("--runs", type=Path, help="Keeps every finished run, so that the table can be made in pieces.")
    one.add_argument("--searcher", nargs="+", default=["guided"])
    two = kinds.add_parser("bookkeeping")
    two.add_argument("--trials", type=int, default=10_000)
    two.add_argument("--searcher", nargs="+", default=["random", "evolution", "nsga2", "optuna-nsga2"])
    two.add_argument("--folder", help="Where the journal is written; its disk's fsync is in the wall-clock time.")
    three = kinds.add_parser("workers")
    three.add_argument("--storage", required=True)
    three.add_argument("--trials", type=int, default=500)
    for kind in (one, two, three):
        kind.add_argument("--out", required=True, help="Name of the results file.")
    arguments = parser.parse_args()
    found = {"table": table, "bookkeeping": bookkeeping, "workers": workers}[arguments.kind](arguments)
    versions = {name: version(name) for name in ("numpy", "scipy", "optuna")}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = {"command": shlex.join(sys.argv), "versions": versions, "machine": machine}
    HERE.joinpath("results", arguments.out).write_text(json.dumps(head | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
