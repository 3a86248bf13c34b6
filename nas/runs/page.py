"""What the page of a run shows, gathered from the run: candidates, where the time goes, and the command that does it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.report.html import OperatorTime, Page, page_html
from nas.results import Point, Result
from nas.runs.directory import RunDirectory
from nas.runs.explain import stage_of
from nas.runs.options import CHECKS
from nas.runs.problem import Problem
from nas.runs.request import Request

PAGE = "report.html"
_ADDRESSES = ("storage", "workers")
_JOINED = ("mixers", "knobs", "quantisation")


def write_page(run: RunDirectory, problem: Problem, result: Result, candidates: Mapping[str, Sequence[Point]]) -> None:
    """Write ``report.html`` into the run."""
    pictures = {title: path.read_bytes() for title, path in (("the chain", run.path / "chain.png"),) if path.is_file()}
    page = Page(result, candidates, _operators(problem, result), command_of(problem.request), _facts(run, problem), pictures)
    run.write_text(PAGE, page_html(page))


def command_of(request: Request) -> str:
    """Return the command line that asks for the same search; files are named without their folders, and addresses are left out."""
    words = ["nas", "search"]
    for name in Request.model_fields:
        value = getattr(request, name)
        if value == Request.model_fields[name].default or value is None:
            continue
        flag = CHECKS[name][0]
        if name in _ADDRESSES:
            words += [flag, "URL"]
        elif isinstance(value, tuple):
            words += [flag, ",".join(value)] if name in _JOINED else [word for each in value for word in (flag, _without_folder(each))]
        else:
            words += [flag, _without_folder(str(value))]
    return shlex.join(words)


def _without_folder(word: str) -> str:
    """Return a path's last part; of a runner's command, each word's."""
    return " ".join(Path(part).name if part.startswith(("/", "~", "./", "../")) else part for part in word.split(" "))


def _operators(problem: Problem, result: Result) -> dict[str, tuple[OperatorTime, ...]]:
    if result.chosen is None:
        return {}
    chosen = problem.space.architecture(result.chosen.architecture.genes)
    return {
        device: tuple(OperatorTime(op.name, stage_of(op.name), op.op, op.latency_ms) for op in estimate.operators)
        for device, estimate in problem.judge.estimates(chosen).items()
    }


def _facts(run: RunDirectory, problem: Problem) -> dict[str, str]:
    manifest = run.read("manifest.json") or {}
    packages = manifest.get("packages", {})
    facts = {"space": f"{problem.space.name}, version {problem.space.version}", "seed": str(problem.request.seed)}
    if problem.dataset is not None:
        facts["data"] = f"{problem.dataset.name}, content {problem.dataset.key}"
    for target in problem.targets:
        known = f"{target.precision}, profile {target.profile.hash}, grade {target.profile.at(target.precision).grade}"
        facts[f"device {target.profile.name}"] = f"{known}; {target.profile.title}, {target.profile.runtime}"
    facts["made by"] = f"nas {manifest.get('nas', '')}, Python {manifest.get('python', '')}"
    return facts | {"packages": ", ".join(f"{name} {version}" for name, version in packages.items() if version)}
