"""Searchers on NAS-Bench-201, and what a stored search costs: the figures of README.md.

    python experiments/008_search/run.py table --data ../shared/data --repeats 30 [--raw] [--held-out] [--searcher guided …]
    python experiments/008_search/run.py bookkeeping --trials 10000
    python experiments/008_search/run.py supernet --data ../shared/data/cifar10_jpeg.tar.xz --supernet RUN/supernet.safetensors --folder runs/search
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from nas.bench.search import Job, Runs, Table, Task, compare, contestants, peer_names
from nas.searching.objective import Goal
from nas.searching.pareto import hypervolume
from nas.searching.searcher import Searcher, Trial, searchers
from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
from nas.training.evaluator import Metrics

HERE = Path(__file__).parent
DEVICES = ("1080ti_1", "titan_rtx_256", "gold_6226", "pixel3", "samsung_s7", "silver_4114")
HELD_OUT = ("2080ti_32", "titanxp_1", "gold_6240", "pixel2", "samsung_a50", "essential_ph_1")
"""Devices on which no setting was tried."""

COLUMNS = ("cifar10_test", "cifar100_test", "imagenet16_120_test")
QUANTILES = (0.2, 0.4, 0.6)
EVALS = 200
SPACE, DEVICE, CHANCE_PCT = "hybrid-s", "sa8295p", 10.0
GENES, BUDGET = 40, "50ms"


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the protocol over six devices and three budgets; on devices, columns and seeds that chose nothing where asked to."""
    files = (arguments.data / "latency_nasbench201.npz", arguments.data / "nasbench201_accuracy.npz")
    devices, columns = (HELD_OUT, COLUMNS) if arguments.held_out else (DEVICES, COLUMNS[1:2])
    seeds = range(first := 100 if arguments.held_out else 0, first + arguments.repeats)
    names = [name for given in arguments.searcher for name in contestants(given)]
    runs, found, report = Runs(arguments.runs), {}, partial(print, file=sys.stderr)
    problems: list[Task] = []
    for column in columns:
        truth = Table.load(*files, column, devices, raw=arguments.raw)
        tasks = [truth.task(device, quantile) for device in devices for quantile in QUANTILES]
        found[column] = compare(truth, names, tasks, evals=EVALS, seeds=seeds, workers=arguments.workers, runs=runs, report=report)
        problems += tasks
    rows = {name: [runs.finished(Job(name, task, seed, EVALS)) for seed in seeds for task in problems] for name in names}
    return {
        "isomorphic": "apart" if arguments.raw else "one",
        "devices": devices,
        "budget_quantiles": QUANTILES,
        "seeds": [seeds.start, seeds.stop - 1],
        "columns": found,
        "differences": {
            f"{name} - {peer}": differences(rows[name], rows[peer])
            for name in names
            for peer in names
            if name not in peer_names() and peer in peer_names()
        },
    }


def differences(rows: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean difference of each figure over runs of the same task and seed, and its standard error."""
    apart = {key: np.array([row[key] - other[key] for row, other in zip(rows, others, strict=True)]) for key in rows[0]}
    return {key: {"mean": float(d.mean()), "standard_error": float(d.std(ddof=len(d) > 1) / np.sqrt(len(d)))} for key, d in apart.items()}


class Stamped(ToyEvaluator):
    """Notes the processor and wall-clock time of each evaluation, which itself costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score by arithmetic."""
        self.times.append((time.process_time(), time.perf_counter()))
        return super().evaluate(architecture)


class Late(Searcher):
    """Draws at random up to a number, and leaves the rest to a searcher that was told everything: for those that take long."""

    def __init__(self, name: str, goal: Goal, first: int) -> None:
        space = ToySpace(GENES // 2)
        super().__init__(space, goal, 0, ToyJudge(goal))
        self.draws, self.mind = (searchers.get(kind)(space, goal, 0, self.prescreen) for kind in ("random", name))
        self.first = first

    def ask(self, number: int) -> Architecture | None:
        """Ask the one whose turn it is."""
        return (self.draws if number < self.first else self.mind).ask(number)

    def tell(self, trial: Trial) -> None:
        """Tell both."""
        self.draws.tell(trial)
        self.mind.tell(trial)


def bookkeeping(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time what a search does between two evaluations: journal file, 40 genes, two objectives, one budget."""
    found, window = {}, arguments.window
    for name in arguments.searcher:
        found[name] = {}
        for count in sorted({min(200, arguments.trials), arguments.trials}) if arguments.late else (arguments.trials,):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                evaluator, goal = Stamped(), toy_goal(objectives=2, budget=BUDGET)
                study = Study.open(f"{folder}/study.journal", name="cost", space=ToySpace(GENES // 2), goal=goal)
                searcher = Late(name, goal, count - window) if arguments.late else name
                study.run(searcher, evaluator, ToyJudge(goal), evals=count, seed=0)
            steps = 1e3 * np.diff(np.array(evaluator.times), axis=0)
            for end in (count,) if arguments.late else sorted({min(200, count), count}):
                part = steps[max(0, end - window) : end]
                found[name][f"at_{end}"] = {
                    "processor_ms": float(np.median(part[:, 0])),
                    "processor_ms_mean": float(part[:, 0].mean()),
                    "wall_ms": float(np.median(part[:, 1])),
                }
        print(name, found[name], file=sys.stderr)
    return {"genes": GENES, "window": window, "late": arguments.late, "searchers": found, "load_average": os.getloadavg()[0]}


WORK = """
import os, sys, time
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal
storage, name, log, evals = sys.argv[1:]

class Logged(ToyEvaluator):
    def evaluate(self, architecture):
        with open(log, "a") as file:
            file.write(f"{architecture.key} {os.getpid()}" + chr(10))
        time.sleep(0.25)
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
        while len(lines := log.read_text().splitlines() if log.exists() else []) < count or lines[-1].split()[1] != str(victim.pid):
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
    team.append(start(f"team-{label}"))
    codes = [worker.wait() for worker in team[2:]]
    seconds = time.monotonic() - began
    evaluated = Counter(line.split()[0] for line in log.read_text().splitlines())
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


def supernet(arguments: argparse.Namespace) -> dict[str, Any]:
    """Searchers on hybrid-s with trained weights: hypervolume by evaluations, and evaluations to a hypervolume.

    Each search is a study in a journal of its own, so that this can be stopped and run again.
    """
    jobs = [(name, seed) for seed in range(arguments.seeds) for name in arguments.searcher]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn"), _prepare, [arguments]) as pool:
        began = time.monotonic()
        done = list(pool.map(_search, jobs))
        seconds = time.monotonic() - began
    budget_ms, pictures = done[0]["budget_ms"], arguments.pictures
    reference = (-CHANCE_PCT, budget_ms)
    points = [point for run in done for point in run["points"]]
    best = hypervolume([(-accuracy, latency) for accuracy, latency in points], reference)
    curves = {run: grown(found["points"], reference, best) for run, found in zip(jobs, done, strict=True)}
    counts = [count for count in (50, 100, 150, 200, 250, 300) if count <= arguments.evals]
    table = {}
    for name in arguments.searcher:
        rows = np.array([curves[name, seed] for seed in range(arguments.seeds)])
        table[name] = {
            "hypervolume_ratio": {f"at_{n}": {"mean": float(rows[:, n - 1].mean()), "by_seed": rows[:, n - 1].tolist()} for n in counts},
            "best_accuracy_pct": [max(a for a, _ in done[jobs.index((name, seed))]["points"]) for seed in range(arguments.seeds)],
        }
    first, ratios = arguments.searcher[0], {}
    for other in arguments.searcher[1:]:
        at_end = [curves[first, s][-1] / curves[other, s][-1] for s in range(arguments.seeds)]
        level = float(np.mean([curves[other, s][-1] for s in range(arguments.seeds)]))
        needed = {n: [evaluations_to(curves[n, s], level) for s in range(arguments.seeds)] for n in (first, other)}
        ratios[other] = {
            "hypervolume_over_it": {"mean": float(np.mean(at_end)), "sd": float(np.std(at_end, ddof=len(at_end) > 1)), "by_seed": at_end},
            "evaluations_to_its_mean_hypervolume": needed,
        }
    return {
        "space": SPACE,
        "device": DEVICE,
        "budget_ms": budget_ms,
        "pictures": pictures,
        "evals": arguments.evals,
        "supernet": done[0]["weights"],
        "hypervolume_reference": f"{CHANCE_PCT:g} %, the budget; as a share of that of everything that was evaluated",
        "seconds": seconds,
        "searchers": table,
        f"{first}_against": ratios,
    }


_PROBLEM: dict[str, Any] = {}


def _prepare(arguments: argparse.Namespace) -> None:
    import torch

    from nas.devices.predictor import load_predictor
    from nas.devices.profile import load_profile
    from nas.runs.problem import make_problem
    from nas.runs.request import Request
    from nas.spaces.naming import get_space
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import load_supernet

    torch.set_num_threads(1)
    space, profile = get_space(SPACE, num_classes=10), load_profile(DEVICE)
    rng = np.random.default_rng(0)
    members = [space.segments(space.sample(rng)) for _ in range(1000)]
    upper_ms = load_predictor(profile).estimate_batch(members, profile, profile.default_precision).upper_ms
    budget_ms = round(float(np.median(upper_ms)), 3)
    request = Request(devices=(DEVICE,), budgets=(f"{budget_ms}ms",), space=SPACE, data=str(arguments.data), proxy_resolution=32)
    problem = make_problem(request)
    weights = load_supernet(arguments.supernet, problem.space)  # type: ignore[arg-type]
    assert problem.dataset is not None
    evaluator = SupernetEvaluator(weights, problem.dataset.thinned("validation", arguments.pictures))
    _PROBLEM.update(problem=problem, evaluator=evaluator, budget_ms=budget_ms, weights=weights.key, arguments=arguments)


def _search(job: tuple[str, int]) -> dict[str, Any]:
    name, seed = job
    problem, arguments = _PROBLEM["problem"], _PROBLEM["arguments"]
    study = Study.open(str(arguments.folder / f"{name}-{seed}.journal"), name="nas", space=problem.space, goal=problem.goal)
    began = time.monotonic()
    study.run(name, _PROBLEM["evaluator"], problem.judge, evals=arguments.evals, seed=seed)
    print(f"{name}, seed {seed}: {study.evaluations} evaluations in {time.monotonic() - began:.0f} s", file=sys.stderr)
    latency = problem.goal.objectives[1].name
    points = [(trial.values["accuracy_pct"], trial.values[latency]) for trial in study.trials() if trial.evaluated]
    return {"points": points, "budget_ms": _PROBLEM["budget_ms"], "weights": _PROBLEM["weights"]}


def grown(points: Sequence[tuple[float, float]], reference: tuple[float, float], best: float) -> list[float]:
    """Return the hypervolume ratio after each evaluation."""
    losses = [(-accuracy, latency) for accuracy, latency in points]
    return [hypervolume(losses[: count + 1], reference) / best for count in range(len(losses))]


def evaluations_to(curve: Sequence[float], level: float) -> int | None:
    """Return how many evaluations reached a level; None where none did."""
    return next((count for count, ratio in enumerate(curve, 1) if ratio >= level), None)


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
    one.add_argument("--workers", type=int, default=2)
    two = kinds.add_parser("bookkeeping")
    two.add_argument("--trials", type=int, default=10_000)
    two.add_argument("--searcher", nargs="+", default=["random", "evolution", "nsga2", "optuna-nsga2"])
    two.add_argument("--window", type=int, default=100, help="Evaluations that the figures are of.")
    two.add_argument("--late", action="store_true", help="Only the window is the searcher's own; what comes before is drawn.")
    two.add_argument("--folder", help="Where the journal is written; its disk's fsync is in the wall-clock time.")
    three = kinds.add_parser("workers")
    three.add_argument("--storage", required=True)
    three.add_argument("--trials", type=int, default=500)
    four = kinds.add_parser("supernet")
    four.add_argument("--data", type=Path, required=True, help="CIFAR-10.")
    four.add_argument("--supernet", type=Path, required=True, help="Trained by nas search --space hybrid-s.")
    four.add_argument("--folder", type=Path, required=True, help="Keeps the journals.")
    four.add_argument("--searcher", nargs="+", default=["guided", "nsga2", "random"], help="The first is compared with the others.")
    four.add_argument("--seeds", type=int, default=5)
    four.add_argument("--evals", type=int, default=300)
    four.add_argument("--pictures", type=int, default=1000)
    four.add_argument("--workers", type=int, default=2)
    for kind in (one, two, three, four):
        kind.add_argument("--out", required=True, help="Name of the results file.")
    arguments = parser.parse_args()
    found = {"table": table, "bookkeeping": bookkeeping, "workers": workers, "supernet": supernet}[arguments.kind](arguments)
    versions = {name: version(name) for name in ("numpy", "scipy", "optuna")}
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = {"command": shlex.join(sys.argv), "versions": versions, "machine": machine}
    HERE.joinpath("results", arguments.out).write_text(json.dumps(head | found, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
