"""What the page of a run shows, gathered from the run: candidates, where the time goes, and the command that does it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import isqrt, prod
from pathlib import Path

from nas.graphs.graph import Graph, Operator
from nas.report.charts import OperatorTime, Stage
from nas.report.html import Page, page_html
from nas.results import Point, Ranking, Result
from nas.runs.directory import CONTEST_FILE, RunDirectory
from nas.runs.explain import stage_of
from nas.runs.options import CHECKS
from nas.runs.problem import Problem
from nas.runs.ranking import PLOT, RANKED, RESULT
from nas.runs.request import Request

PAGE = "report.html"
_ADDRESSES = ("storage", "workers")
_MOST_STAGES = 16
"""Stages that are drawn one by one; more are joined where their maps have one size. Set by hand."""

_JOINED = ("pairs", "edits", "mixers", "knobs", "quantisation")


def write_page(run: RunDirectory, problem: Problem, result: Result, candidates: Mapping[str, Sequence[Point]]) -> None:
    """Write ``report.html`` into the run."""
    pictures = {title: path.read_bytes() for title, path in (("the chain", run.path / "chain.png"),) if path.is_file()}
    operators, stages = _operators(problem, result), _stages(problem, result)
    request = problem.request
    if (run.path / CONTEST_FILE).is_file():  # the run chose the space
        request = request.model_copy(update={name: Request.model_fields[name].default for name in ("space", "anchors")})
    page = Page(result, candidates, operators, stages, command_of(request), _facts(run, problem), pictures, *_ranking(run))
    run.write_text(PAGE, page_html(page))


def _ranking(run: RunDirectory) -> tuple[Ranking | None, bytes]:
    """Return what `nas rank` has found of the run's scores, and its plot."""
    folder = run.path / RANKED
    plot = (folder / PLOT).read_bytes() if (folder / PLOT).is_file() else b""
    return run.load(f"{RANKED}/{RESULT}", Ranking), plot


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


def _stages(problem: Problem, result: Result) -> list[Stage]:
    if result.chosen is None:
        return []
    chosen = problem.space.architecture(result.chosen.architecture.genes)
    return stages_of(problem.space.lower(chosen, problem.judge.resolution))


def stages_of(graph: Graph) -> list[Stage]:
    """Return the stages of a graph in order; neighbouring ones of one map size as one where there are very many."""
    stages = [_stage(graph, name, list(operators)) for name, operators in groupby(graph.operators, key=lambda op: stage_of(op.name))]
    if len(stages) > _MOST_STAGES:
        stages = [_joined(list(alike)) for _, alike in groupby(stages, key=lambda stage: stage.side)]
    return stages


def _stage(graph: Graph, name: str, operators: Sequence[Operator]) -> Stage:
    shape = operators[-1].outputs[0].shape[1:]
    side = shape[-1] if len(shape) == 3 else isqrt(shape[0]) if len(shape) == 2 else 1
    macs = sum(graph.macs_of(op) for op in operators)
    params = sum(weight.params for op in operators for weight in op.weights)
    return Stage((name,), "×".join(map(str, shape)) or str(prod(shape)), float(side), macs, params, len(operators))


def _joined(stages: Sequence[Stage]) -> Stage:
    sums = {key: sum(getattr(stage, key) for stage in stages) for key in ("macs", "params", "operators")}
    return replace(stages[-1], names=tuple(name for stage in stages for name in stage.names), **sums)


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
