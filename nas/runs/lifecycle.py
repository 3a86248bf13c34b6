"""What `nas search` does from the request to the result, in phases that each can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError, InfeasibleError, NasError
from nas.events import EventBus, Notice
from nas.runs.directory import RunDirectory, StatusFile, eta_s
from nas.runs.problem import Problem, pose
from nas.runs.request import Request
from nas.spaces.architecture import Architecture

PHASES = ("train", "search", "finetune", "export")


def start(request: Request, out: Path | None, bus: EventBus) -> dict[str, Any]:
    """Run a search in a new directory and return its result.

    Raises:
        NasError: What went wrong, in one line; what was done so far is kept.
    """
    if out is not None and out.exists():  # before data are read
        raise RunDirectory.taken(out)
    problem = pose(request)
    run = RunDirectory.create(out, f"{problem.space.name}-{problem.device}", request.model_dump(), facts_of(problem))
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
    problem = pose(request_of(run))
    facts = facts_of(problem)
    for name, believed in run.manifest["facts"].items():
        if facts.get(name) != believed:
            raise ArtifactError(
                f"run {path}: {name} has changed since, got {facts.get(name)}. Expected {believed}. Do this: start a new run."
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
    search = status.get("search", {})
    result = _result(run, state, status)
    result |= {
        "front": (run.read("front.json") or {}).get("front", []),
        "zoo": (run.read("zoo.json") or {}).get("front", []),
        "evaluations": int(search.get("evaluations", 0)),
        "proposals": int(search.get("proposals", 0)),
        "phase": status["phase"],
        "done": status.get("done"),
        "total": status.get("total"),
        "eta_s": eta_s(status) if state == "running" else None,
        "evaluations_per_s": search.get("evaluations_per_s"),
        "best_accuracy_pct": search.get("best_accuracy_pct"),
        "front_size": int(search.get("front_size", 0)),
        "hypervolume": search.get("hypervolume"),
        "error": status.get("error"),
    }
    return result


def request_of(run: RunDirectory) -> Request:
    """Return what a run was asked for.

    Raises:
        ArtifactError: Its manifest is damaged.
    """
    from pydantic import ValidationError

    try:
        return Request.model_validate(run.manifest.get("request"))
    except ValidationError as error:
        fault = error.errors()[0]
        raise ArtifactError(f"run {run.path}: manifest.json is damaged ({'.'.join(map(str, fault['loc']))}: {fault['msg']}).") from None


def facts_of(problem: Problem) -> dict[str, str]:
    """Return the hashes of what a run believes; it is continued only while they hold."""
    facts = {f"the profile of {t.profile.name} at {t.precision}": t.profile.hash for t in problem.targets}
    facts["the space"] = f"{problem.space.name} version {problem.space.version}"
    if problem.dataset is not None:
        facts["the data"] = problem.dataset.key
    return facts


def _work(run: RunDirectory, problem: Problem, bus: EventBus) -> dict[str, Any]:
    with run.work():
        status = StatusFile(run)
        bus.listeners.append(status)
        try:
            for text in problem.notices:
                bus.emit(Notice(text))
            if problem.dataset is None:
                from nas.runs.published_search import choose_published

                found, points = choose_published(problem, bus)
                others = {"all published networks": points}
                winner = Architecture(problem.space.name, problem.space.version, tuple(found["chosen"]["architecture"]["genes"]))
                do = problem.space.recipe(winner)
                found["model_reason"] = "published weights are not copied." + (f" Do this: {do}" if do else "")
            else:
                from nas.runs.trained_search import design

                found = design(run, problem, bus)
                others = {"published networks (ImageNet-1k)": found["zoo"]} if problem.dataset.name == "imagenet" else {}
        except (NasError, OSError) as error:
            status.fail(str(error))
            raise
        finally:
            bus.listeners.remove(status)
        result = _result(run, "finished", {"seconds": status.seconds, "notices": status.notices}) | found
        _write_report(run, problem, result, others)
        run.write("results.json", result)
        return result


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
