"""What `nas search` does from the request to the result, in phases that each can be resumed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nas.arch import Architecture
from nas.errors import ArtifactError, InfeasibleError, NasError
from nas.evaluator import Metrics, evaluators
from nas.events import EventBus, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.explain import why_not_more
from nas.judge import Judge, Target, Verdict, load_targets, make_goal
from nas.objective import Goal
from nas.pareto import front as pareto_front
from nas.run import RunDirectory, StatusFile, eta_s
from nas.space import Resolution, SearchSpace, get_space, spaces
from nas.units import parse_resolution

PHASES = ("train", "search", "finetune", "export")


class Request(BaseModel):
    """What a user asked a search for; kept in the run directory, enough to do it again.

    Attributes:
        devices: Names or paths of profiles; the first decides where one has to.
        budgets: As written: ``5ms``, ``device:8ms``, ``20MB``.
        precision: None for each device's default, ``any`` for all it has.
        space: Name of the space.
        data: Name or path of the data set.
        resolution: Deployment resolution as written; None for the space's or the network's own.
        proxy_resolution: Side at which the supernet trains, in pixels.
        searcher: None for the space's own.
        evals: Accuracies to compute; None for the default.
        confidence: Nominal coverage of the intervals.
        supernet: Trained weights to start from.
        seed: All randomness.
        storage: URL of a shared study; None for a journal in the run directory.
        verify: How many of the front's best are measured at the end.
        batch: Images a run, for profiles that state throughput.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...]
    budgets: tuple[str, ...] = ()
    precision: str | None = None
    space: str
    data: str = "digits"
    resolution: str | None = None
    proxy_resolution: int | None = None
    searcher: str | None = None
    evals: int | None = None
    confidence: float = 0.9
    supernet: str | None = None
    seed: int = 0
    storage: str | None = None
    verify: int = 0
    batch: int | None = None


@dataclass(frozen=True)
class Candidate:
    """An architecture with everything that was found out about it."""

    architecture: Architecture
    verdict: Verdict
    metrics: Metrics

    def losses(self, goal: Goal) -> tuple[float, ...]:
        """Return its losses in the order of the goal's objectives."""
        return goal.losses({**self.verdict.values, "accuracy_pct": self.metrics.accuracy_pct})


@dataclass(frozen=True)
class Problem:
    """A request made whole: every name looked up, every budget read."""

    request: Request
    targets: Sequence[Target]
    goal: Goal
    space: SearchSpace
    judge: Judge

    @property
    def device(self) -> str:
        """Name of the first device."""
        return self.targets[0].profile.name


def pose(request: Request) -> Problem:
    """Look up everything that a request names.

    Raises:
        UsageError: Something in it is wrong; nothing has been written yet.
    """
    targets = load_targets(request.devices, request.precision)
    goal = make_goal(targets, request.budgets, batch=request.batch)
    resolution = parse_resolution(request.resolution) if request.resolution else None
    space = get_space(request.space, **({"resolution": resolution} if request.space.startswith("zoo") else {}))
    return Problem(request, targets, goal, space, _judge(space, goal, targets, request, resolution))


def _judge(space: SearchSpace, goal: Goal, targets: Sequence[Target], request: Request, resolution: Resolution | None) -> Judge:
    return Judge(space, goal, targets, request.confidence, resolution, request.batch)


def start(request: Request, out: Path | None, bus: EventBus) -> dict[str, Any]:
    """Run a search in a new directory and return its result.

    Raises:
        NasError: What went wrong, in one line; what was done so far is kept.
    """
    problem = pose(request)
    hashes = {target.profile.name: target.profile.hash for target in problem.targets}
    facts = {"profiles": hashes, "space": f"{problem.space.name} version {problem.space.version}"}
    run = RunDirectory.create(out, f"{problem.space.name}-{problem.device}", request.model_dump(), facts)
    try:
        return _work(run, problem, bus)
    except InfeasibleError:
        run.discard()
        raise


def resume(path: Path, bus: EventBus) -> dict[str, Any]:
    """Continue a run where it stopped; a finished one gives its result.

    Raises:
        ArtifactError: No run, one of another version, in use, or its profiles have changed since.
    """
    run = RunDirectory.open(path)
    if (results := run.results) is not None:
        return results
    problem = pose(_request(run))
    for target in problem.targets:
        believed = run.manifest["facts"]["profiles"].get(target.profile.name)
        if believed != target.profile.hash:
            raise ArtifactError(
                f"run {path}: the profile of {target.profile.name} has changed since, got {target.profile.hash}. Expected {believed}. "
                "Do this: start a new run."
            )
    return _work(run, problem, bus)


def show(path: Path) -> dict[str, Any]:
    """Return what is known of a run, finished or not, without touching it.

    Raises:
        ArtifactError: No run, or one of another version.
    """
    run = RunDirectory.open(path)
    if (results := run.results) is not None:
        return results
    status = run.status
    state = "running" if run.living() else "failed" if status.get("error") else "interrupted"
    numbers = status.get("numbers", {})
    result = _result(run, state, status)
    result |= {
        "phase": status["phase"],
        "done": status.get("done"),
        "total": status.get("total"),
        "eta_s": eta_s(status) if state == "running" else None,
        "best_accuracy_pct": numbers.get("best_accuracy_pct"),
        "front_size": int(numbers.get("front_size", 0)),
        "hypervolume": numbers.get("hypervolume"),
        "error": status.get("error"),
    }
    return result


def _request(run: RunDirectory) -> Request:
    from pydantic import ValidationError

    try:
        return Request.model_validate(run.manifest.get("request"))
    except ValidationError as error:
        fault = error.errors()[0]
        raise ArtifactError(f"run {run.path}: manifest.json is damaged ({'.'.join(map(str, fault['loc']))}: {fault['msg']}).") from None


def _work(run: RunDirectory, problem: Problem, bus: EventBus) -> dict[str, Any]:
    with run.work():
        status = StatusFile(run)
        bus.listeners.append(status)
        try:
            result = _survey_and_choose(run, problem, status, bus)
        except (NasError, OSError) as error:
            status.fail(str(error))
            raise
        finally:
            bus.listeners.remove(status)
        run.write("results.json", result)
        return result


def _survey_and_choose(run: RunDirectory, problem: Problem, status: StatusFile, bus: EventBus) -> dict[str, Any]:
    """Answer from published accuracies: every member is judged, nothing is trained."""
    began_s = time.monotonic()
    candidates = survey(problem.judge, bus)
    feasible = [c for c in candidates if c.verdict.feasible]
    if not feasible:
        raise nearest_miss(problem, [(c.architecture, c.verdict) for c in candidates])
    best = [feasible[i] for i in pareto_front([c.losses(problem.goal) for c in feasible])]
    points = [point(problem, c.architecture, c.verdict, accuracy_pct=c.metrics.accuracy_pct) for c in best]
    chosen = max(points, key=lambda p: (p["accuracy_pct"], -p["latency_ms"]))
    status.seconds["search"] = time.monotonic() - began_s
    result = _result(run, "finished", {"seconds": status.seconds, "notices": status.notices})
    result |= {
        "chosen": chosen,
        "why": "the most accurate network whose upper end is within every budget",
        "front": points,
        "zoo": points,
        "model_reason": f"published weights are not ours to redistribute. Do this: nas export {run.path} --to MODEL.onnx (needs timm).",
        "evaluations": len(feasible),
        "proposals": len(candidates),
    }
    scored = [(c.architecture, c.verdict, c.metrics.accuracy_pct) for c in candidates]
    winner = next(c.architecture for c in best if c.architecture.key == chosen["key"])
    result["why_not_more"] = why_not_more(problem.judge, scored, winner)
    others = [point(problem, c.architecture, c.verdict, accuracy_pct=c.metrics.accuracy_pct) for c in candidates]
    _write_report(run, problem, result, {"all published networks": others})
    return result


def survey(judge: Judge, bus: EventBus | None = None) -> list[Candidate]:
    """Judge and score every member of a space whose accuracies are published."""
    bus = bus or EventBus()
    evaluator = evaluators.get("published")(judge.space)  # type: ignore[call-arg]
    members = list(judge.space.enumerate())
    began_s = time.monotonic()
    bus.emit(PhaseStarted("search", total=len(members), detail=f"{judge.space.name}, {len(members)} published weights"))
    verdicts: list[Verdict] = []
    with _uncollected():
        for found in _side_by_side(judge, [members[i : i + 64] for i in range(0, len(members), 64)]):
            verdicts += found
            bus.emit(PhaseAdvanced("search", len(verdicts)))
    bus.emit(PhaseFinished("search", time.monotonic() - began_s))
    return [Candidate(a, v, evaluator.evaluate(a)) for a, v in zip(members, verdicts, strict=True)]


def _side_by_side(judge: Judge, chunks: Sequence[list[Architecture]]) -> Iterator[list[Verdict]]:
    """Yield the verdicts of each chunk, in order; every core takes its share where processes can be forked cheaply."""
    cores = os.cpu_count() or 1
    if cores < 2 or len(chunks) < 2 or sys.platform != "linux" or "torch" in sys.modules:
        yield from map(judge.verdicts, chunks)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(cores, 8), context) as pool:
        yield from pool.map(judge.verdicts, chunks)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let graphs pile up without a search for garbage among them, which takes as long as making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def zoo_front(problem: Problem) -> list[dict[str, Any]]:
    """Return the front of the published networks within the budgets of a search, to stand beside its own."""
    if "zoo" not in spaces.names():
        return []
    judge = _judge(get_space("zoo"), problem.goal, problem.targets, problem.request, None)
    feasible = [c for c in survey(judge) if c.verdict.feasible]
    beside = Problem(problem.request, problem.targets, problem.goal, judge.space, judge)
    best = [feasible[i] for i in pareto_front([c.losses(problem.goal) for c in feasible])]
    return [point(beside, c.architecture, c.verdict, accuracy_pct=c.metrics.accuracy_pct) for c in best]


def nearest_miss(problem: Problem, seen: Sequence[tuple[Architecture, Verdict]]) -> InfeasibleError:
    """Return the error that names the candidate which breaks the budgets least."""

    def worst(verdict: Verdict) -> float:
        return max(verdict.violations.values(), default=0.0)

    architecture, verdict = min(seen, key=lambda pair: worst(pair[1]))
    name = problem.space.facts(architecture).get("network") or architecture.key
    broken = max(verdict.violations, key=lambda key: verdict.violations[key])
    budget = next((b for b in problem.goal.budgets if b.name == broken), None)
    limit = budget.limit.text if budget else "the device's operators"
    where = f" on {budget.device}" if budget and budget.device else ""
    estimate = verdict.estimates[budget.device if budget and budget.device else problem.device]
    found = (
        "with an operator that the device lacks"
        if estimate.unsupported
        else f"upper end {estimate.upper_ms:.3g} ms ({estimate.latency_ms:.3g} ms {estimate.basis})"
    )
    if budget and budget.limit.quantity not in ("latency", "throughput"):
        found = f"{100 * verdict.violations[broken]:.0f} % above it"
    return InfeasibleError(
        f"search: nothing of {len(seen)} in space {problem.space.name} meets {limit}{where}. The nearest miss is {name}, {found}. "
        "Do this: raise the budget, or search another space."
    )


def point(
    problem: Problem,
    architecture: Architecture,
    verdict: Verdict,
    *,
    accuracy_pct: float | None = None,
    supernet_accuracy_pct: float | None = None,
) -> dict[str, Any]:
    """Return an architecture as the JSON contract shows it."""
    devices: dict[str, dict[str, Any]] = {}
    for device, estimate in verdict.estimates.items():
        entry: dict[str, Any] = {
            "latency_ms": estimate.latency_ms,
            "lower_ms": estimate.lower_ms,
            "upper_ms": estimate.upper_ms,
            "basis": estimate.basis,
            "precision": verdict.precisions[device],
            "extrapolated": bool(estimate.extrapolated),
        }
        if (budget := problem.judge.budget_of(device)) is not None:
            entry |= {"budget_ms": budget.limit.value, "margin_ms": budget.limit.value - estimate.upper_ms}
        devices[device] = entry
    first = devices[problem.device]
    return {
        "key": architecture.key,
        "architecture": {"space": architecture.space, "version": architecture.version, "genes": list(architecture.genes)},
        "devices": devices,
        "latency_ms": first["latency_ms"],
        "lower_ms": first["lower_ms"],
        "upper_ms": first["upper_ms"],
        "precision": first["precision"],
        "resolution": written_resolution(verdict.resolution),
        "accuracy_pct": accuracy_pct,
        "supernet_accuracy_pct": supernet_accuracy_pct,
        "macs": int(verdict.values["macs"]),
        "params": int(verdict.values["params"]),
        **problem.space.facts(architecture),
    }


def written_resolution(size: Sequence[int]) -> int | str:
    """Return a resolution as the command line reads it: 224, or ``192x256``."""
    height, width = size
    return height if height == width else f"{height}x{width}"


def _result(run: RunDirectory, status: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON contract's keys, filled with what holds before anything is known."""
    seconds = state.get("seconds", {})
    return {
        "run_dir": str(run.path),
        "status": status,
        "chosen": None,
        "front": [],
        "zoo": [],
        "model": None,
        "model_reason": "the run has not come to that yet",
        "evaluations": 0,
        "proposals": 0,
        "seconds": {phase: float(seconds.get(phase, 0.0)) for phase in PHASES},
        "notices": list(state.get("notices", [])),
    }


def _write_report(
    run: RunDirectory, problem: Problem, result: Mapping[str, Any], others: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    from nas.report.plots import draw_front
    from nas.report.results import result_text

    budget = problem.judge.budget_of(problem.device)
    run.write_text("table.txt", result_text(result))
    limit_ms = budget.limit.value if budget else None
    draw_front(run.path / "pareto.png", result["front"], chosen=result["chosen"], device=problem.device, budget_ms=limit_ms, others=others)
