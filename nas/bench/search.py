"""Searchers against each other on a table of real accuracies and latencies, where the best answer is known.

A network's budget is judged before it is evaluated, for every searcher alike, so an evaluation is an accuracy computed; a
network is evaluated once, and is then known under all its spellings. Where cells that come to one network are taken as one, its accuracy is the mean over them; apart
(``raw``, as published numbers have it) isomorphic networks differ by training noise, and raw optima are partly luck.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from nas.bench.peer import Run, peers
from nas.errors import DataError, NasError, UnknownNameError, UsageError, one_line
from nas.graphs.arrays import read_arrays
from nas.searching.objective import Budget, Goal, Objective
from nas.searching.pareto import hypervolume
from nas.searching.searcher import Prescreen, Trial, searchers
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.space import SearchSpace
from nas.units import Limit

Floats = npt.NDArray[np.float64]

ACCURACY = Objective("accuracy_pct", "maximize")
LATENCY = Objective("latency_ms/table", "minimize")
STALL = 300
"""Proposals in a row that bring no evaluation after which a run is over: the searcher has converged, or is lost. Set by hand."""


class ReadsCells(Protocol):
    """A space that reads the strings of a benchmark."""

    def parse(self, text: str) -> Architecture:
        """Return the architecture of a string."""


@dataclass(frozen=True)
class Table:
    """Accuracies and latencies of every member of a space.

    Attributes:
        space: What is searched.
        column: Which accuracy.
        raw: Whether isomorphic networks are apart.
        members: Architectures whose latency is known.
        accuracy_pct: By architecture of the space; the mean over an identity's members.
        latency_ms: By device, then by architecture; a table may lack members of the space.
        content: Short hash of both files.
    """

    space: SearchSpace
    column: str
    raw: bool
    members: tuple[Architecture, ...]
    accuracy_pct: Mapping[Architecture, float]
    latency_ms: Mapping[str, Mapping[Architecture, float]]
    content: str

    @classmethod
    def load(
        cls, latencies: Path, accuracies: Path, column: str, devices: Sequence[str], *, space: str = "nasbench201", raw: bool
    ) -> Table:
        """Read two ``.npz`` files: ``arch`` with ``ms/<device>``, and ``arch`` with ``columns`` and ``accuracy``.

        Raises:
            DataError: A file is missing or lacks an array.
            UnknownNameError: No such device or column.
        """
        first, second = _read(latencies, "arch"), _read(accuracies, "arch", "columns", "accuracy")
        columns = [str(name) for name in second["columns"]]
        if column not in columns:
            raise UnknownNameError("column", column, columns)
        known = [name.removeprefix("ms/") for name in first if name.startswith("ms/")]
        for device in devices:
            if device not in known:
                raise UnknownNameError("device", device, known)
        family = get_space(space, **({"isomorphic": "apart"} if raw else {}))
        if not hasattr(family, "parse"):
            raise UsageError(f"space {space}: does not read the cells of a benchmark's table.")
        parse = cast(ReadsCells, family).parse
        members = tuple(parse(str(text)) for text in second["arch"])
        groups: dict[str, list[float]] = {}
        identities = [family.identity(member) for member in members]
        measured = second["accuracy"][:, columns.index(column)].astype(float).tolist()
        for identity, accuracy in zip(identities, measured, strict=True):
            groups.setdefault(identity, []).append(accuracy)
        accuracy_pct = {m: float(np.mean(groups[i])) for m, i in zip(members, identities, strict=True)}
        order = [parse(str(text)) for text in first["arch"]]
        latency_ms = {d: dict(zip(order, first[f"ms/{d}"].astype(float).tolist(), strict=True)) for d in devices}
        timed = set(order)
        if lacking := timed - set(members):
            raise DataError(f"{latencies}: has {len(lacking)} architectures that {accuracies.name} lacks.")
        members = tuple(member for member in members if member in timed)
        content = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in (latencies, accuracies)))
        return cls(family, column, raw, members, accuracy_pct, latency_ms, content.hexdigest()[:16])

    def task(self, device: str, quantile: float) -> Task:
        """Return the search within the latency that a share of the members keeps on a device."""
        latencies = self.latency_ms[device]
        return Task(self, device, quantile, float(np.quantile([latencies[member] for member in self.members], quantile)))


@dataclass(frozen=True)
class Task(Prescreen):
    """One device and one budget.

    Attributes:
        table: The truth.
        device: Whose latencies.
        quantile: Share of the members within the budget.
        budget_ms: Latency that must not be exceeded.
    """

    table: Table
    device: str
    quantile: float
    budget_ms: float

    def judge(self, architectures: list[Architecture]) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
        """Look latencies up; a network that was not timed counts as one of twice the budget."""
        known = self.table.latency_ms[self.device]
        latencies = [known.get(a, 2 * self.budget_ms) for a in architectures]
        return [({LATENCY.name: latency}, {"latency/table": latency / self.budget_ms - 1.0}) for latency in latencies]

    def goal(self, objectives: int) -> Goal:
        """Return accuracy, or accuracy and latency, within the budget."""
        budget = Budget("latency/table", Limit("latency", self.budget_ms, f"{self.budget_ms:g}ms"), "table")
        return Goal((ACCURACY, LATENCY)[:objectives], (budget,))

    @cached_property
    def able(self) -> list[Architecture]:
        """Members within the budget."""
        latencies = self.table.latency_ms[self.device]
        return [member for member in self.table.members if latencies[member] <= self.budget_ms]

    @cached_property
    def best_accuracy_pct(self) -> float:
        """The best that the budget allows."""
        return max(self.table.accuracy_pct[member] for member in self.able)

    @cached_property
    def best_hypervolume(self) -> float:
        """Hypervolume of the true front."""
        return self.hypervolume(self.able)

    def hypervolume(self, architectures: Sequence[Architecture]) -> float:
        """Return the area that some members dominate within 0 % accuracy and the budget."""
        latencies = self.table.latency_ms[self.device]
        points = [(-self.table.accuracy_pct[a], latencies[a]) for a in architectures]
        return hypervolume(points, (0.0, self.budget_ms * (1 + 1e-9))) if points else 0.0


class Enough(Exception):  # noqa: N818  # ends a run, nothing is wrong
    """The evaluations or proposals of a run are used up."""


@dataclass
class Meter:
    """Judges and evaluates for one run, and counts.

    Attributes:
        task: The truth.
        evals: Evaluations allowed.
        evaluated: Networks in the order of their first evaluation.
        known: Their identities.
        proposals: How many were made in all.
        idle: How many since the last evaluation.
        spent_s: Time spent in here, not in the searcher.
    """

    task: Task
    evals: int
    evaluated: list[Architecture] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    proposals: int = 0
    idle: int = 0
    spent_s: float = 0.0

    def measure(self, architecture: Architecture) -> Trial:
        """Return what became of a proposal.

        Raises:
            Enough: The run is over.
        """
        start = time.perf_counter()
        if len(self.evaluated) >= self.evals or self.idle >= STALL:
            raise Enough
        number, table = self.proposals, self.task.table
        self.proposals += 1
        self.idle += 1
        cheap, violations = self.task.judge([architecture])[0]
        values = {**cheap, ACCURACY.name: table.accuracy_pct[architecture]}
        if violations["latency/table"] > 0:
            trial = Trial(number, architecture, "infeasible", cheap, violations)
        elif (identity := table.space.identity(architecture)) in self.known:
            trial = Trial(number, architecture, "duplicate", values, violations)
        else:
            trial = Trial(number, architecture, "complete", values, violations)
            self.known.add(identity)
            self.evaluated.append(architecture)
            self.idle = 0
        self.spent_s += time.perf_counter() - start
        return trial


def run_searcher(name: str, meter: Meter, goal: Goal, seed: int) -> None:
    """Let a registered searcher propose until the meter has enough or the space has been seen whole."""
    searcher = searchers.get(name)(meter.task.table.space, goal, seed, meter.task)
    while (architecture := searcher.ask(meter.proposals)) is not None:
        searcher.tell(meter.measure(architecture))


def peer_names() -> list[str]:
    """Return what people use, in the same run: package and algorithm."""
    return [f"{name}:{algorithm}" for name in peers.names() for algorithm in peers.get(name).algorithms]


def contestants(name: str) -> list[str]:
    """Return the searchers that a name means: itself, or ``all`` that can run here and take no tenths of a second a proposal.

    Raises:
        UnknownNameError: None of that name.
        UsageError: The peer's package is missing.
    """
    everyone = [*searchers.names(), *peer_names()]
    if name == "all":
        return [one for one in everyone if _joins_all(one)]
    if name not in everyone:
        raise UnknownNameError("searcher", name, everyone)
    package, _, algorithm = name.partition(":")
    if algorithm and not peers.get(package).installed():
        raise UsageError(f"searcher {name}: {package} is missing. Do this: pip install {package}.")
    return [name]


def _joins_all(name: str) -> bool:
    package, _, algorithm = name.partition(":")
    if algorithm:
        peer = peers.get(package)
        return algorithm not in peer.left_out and peer.installed()
    return name not in ("gp", "exhaustive") and (not name.startswith("nni-") or find_spec("nni") is not None)


def run_once(name: str, task: Task, seed: int, evals: int) -> dict[str, float]:
    """Run a searcher for accuracy, and for accuracy against latency, and return its figures."""
    figures: dict[str, float] = {}
    for objectives in (1, 2):
        meter = Meter(task, evals)
        start = time.perf_counter()
        try:
            package, _, algorithm = name.partition(":")
            if algorithm:
                peers.get(package)().run(algorithm, Run(task.table.space, task.goal(objectives), seed, evals, meter.measure))
            else:
                run_searcher(name, meter, task.goal(objectives), seed)
        except Enough:
            pass  # the usual end
        searching_s = time.perf_counter() - start - meter.spent_s
        if not meter.evaluated:
            raise NasError(f"searcher {name}: proposed nothing within the budget in {meter.proposals} proposals.")
        if objectives == 1:
            best = np.maximum.accumulate([task.table.accuracy_pct[a] for a in meter.evaluated])
            for count in sorted({min(100, evals), evals}):
                figures[f"regret_{count}"] = task.best_accuracy_pct - float(best[min(count, len(best)) - 1])
            figures["found_optimum_pct"] = 100.0 * bool(best[-1] >= task.best_accuracy_pct)
            figures["ms_per_evaluation"] = 1e3 * searching_s / len(meter.evaluated)
        else:
            figures["hypervolume_ratio"] = (
                task.hypervolume([a for a in task.able if task.table.space.identity(a) in meter.known]) / task.best_hypervolume
            )
            figures["ms_per_evaluation_two_objectives"] = 1e3 * searching_s / len(meter.evaluated)
    return figures


@dataclass(frozen=True)
class Job:
    """One run of one searcher.

    Attributes:
        searcher: A registered one, or a peer.
        task: The truth.
        seed: Of the searcher.
        evals: Evaluations allowed.
    """

    searcher: str
    task: Task
    seed: int
    evals: int

    @property
    def key(self) -> dict[str, str | int | float]:
        """What a finished run is known by."""
        task, table = self.task, self.task.table
        return {
            "searcher": self.searcher,
            "space": table.space.name,
            "column": table.column,
            "tables": table.content,
            "isomorphic": "apart" if table.raw else "one",
            "device": task.device,
            "budget_quantile": task.quantile,
            "evals": self.evals,
            "seed": self.seed,
        }


class Runs:
    """The figures of finished runs, kept line by line in a file so that a comparison can be made in pieces.

    Args:
        path: JSON lines; a last one that was cut off is made again. None keeps them in memory only.

    Raises:
        DataError: The file holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._figures: dict[str, dict[str, float]] = {}
        if path is None or not path.exists():
            return
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]))
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):
                try:
                    row = json.loads(line)
                    self._figures[_written(row["run"])] = row["figures"]
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{path}: line {number} is not a run ({type(error).__name__}: {error}).") from None

    def figures(self, job: Job) -> dict[str, float] | None:
        """Return the figures of a job; None where it is still to be done."""
        return self._figures.get(_written(job.key))

    def finished(self, job: Job) -> dict[str, float]:
        """Return the figures of a job that is done; it must be."""
        return self._figures[_written(job.key)]

    def add(self, job: Job, figures: dict[str, float]) -> None:
        """Keep the figures of a job."""
        self._figures[_written(job.key)] = figures
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"run": job.key, "figures": figures}) + "\n")


def _written(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def compare(
    table: Table,
    names: Sequence[str],
    tasks: Sequence[Task],
    *,
    evals: int,
    seeds: Sequence[int],
    workers: int = 2,
    runs: Runs | None = None,
    report: Callable[[str], None],
) -> dict[str, dict[str, object]]:
    """Run every searcher on every task and seed; return means, their standard errors, and means by task.

    Args:
        table: The truth.
        names: Registered searchers and peers.
        tasks: Devices and budgets.
        evals: Evaluations a run.
        seeds: Of the runs of each task.
        workers: Processes.
        runs: Those that are done already; new ones are added as they come.
        report: Is told of each searcher that is done.
    """
    runs = runs or Runs(None)
    by_searcher: dict[str, dict[str, object]] = {}
    for name in names:
        jobs = [Job(name, task, seed, evals) for seed in seeds for task in tasks]  # a part that is done has every task
        lacking = [job for job in jobs if runs.figures(job) is None]
        if lacking:
            for member in table.members:  # so that processes inherit what is computed once for a space
                table.space.features(member)
        for job, figures in zip(lacking, _outcomes(lacking, workers), strict=True):
            runs.add(job, figures)
        rows = [(job.task, runs.finished(job)) for job in jobs]
        by_searcher[name] = summary = summarise([row for _, row in rows])
        summary["tasks"] = [
            {"device": task.device, "budget_quantile": task.quantile, "budget_ms": task.budget_ms}
            | {key: value for key, value in summarise([row for of, row in rows if of is task]).items() if isinstance(value, float)}
            for task in tasks
        ]
        report(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in summary.items() if isinstance(value, float)))
    return by_searcher


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Return the means of figures, their standard errors, and how many runs they are of."""
    summary: dict[str, object] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    summary["standard_error"] = {key: float(np.std([row[key] for row in rows], ddof=len(rows) > 1) / np.sqrt(len(rows))) for key in rows[0]}
    summary["runs"] = len(rows)
    return summary


_JOBS: list[Job] = []


def _outcomes(jobs: list[Job], workers: int) -> Iterator[dict[str, float]]:
    """Run jobs in forked processes that share the table, or one after the other where there is no fork."""
    _JOBS[:] = jobs
    try:
        context = get_context("fork")
    except ValueError:
        workers = 1
    if workers == 1:
        yield from map(_job, range(len(jobs)))
        return
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_keep_to_one_thread) as pool:
        yield from pool.map(_job, range(len(jobs)))


def _keep_to_one_thread() -> None:
    """Several threads in each of several processes wait for each other more than they compute."""
    import scipy.linalg  # noqa: F401  # its BLAS is another than numpy's, and only what is loaded can be limited
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def _job(index: int) -> dict[str, float]:
    job = _JOBS[index]
    return run_once(job.searcher, job.task, job.seed, job.evals)


def _read(path: Path, *needed: str) -> dict[str, Any]:
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a table of arrays ({one_line(error)}).") from None
    if missing := [name for name in needed if name not in arrays]:
        raise DataError(f"{path}: lacks the array {missing[0]!r}, has {sorted(arrays)[:8]}.")
    return arrays
