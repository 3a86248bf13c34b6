"""``nas export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli._options import Format, Takes, write
from nas.units import PRECISIONS

if TYPE_CHECKING:
    from torch import nn

    from nas.exporting.exporter import Artifact, Exporter
    from nas.runs.problem import Problem
    from nas.searching.judge import Target
    from nas.spaces.architecture import Architecture
    from nas.spaces.space import Resolution, SearchSpace
    from nas.training.data.dataset import Dataset


def command(
    subject: Annotated[str, typer.Argument(help="Run directory or architecture file.", metavar="DIR|ARCH.json")],
    to: Annotated[Path, typer.Option("--to", help="File to write.", metavar="FILE.onnx")],
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Another network of the run than its choice.", metavar="N")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Trained weights (.safetensors), or random.", metavar="FILE|random")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="fp32, fp16, w8a16, w8a8, mixed, or all for one file each and a table; default: the network's own."
        ),
    ] = None,
    quantisation: Annotated[
        str | None,
        typer.Option("--quantisation", help="Other methods for a quantised file than the usual ones, in order.", metavar="NAME,…"),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="For an architecture file: what calibrates and tests a quantised file, and normalises.")
    ] = None,
    takes: Takes = "normalised",
    form: Format = "table",
) -> None:
    """Write a network as a model file that has been reloaded and compared."""
    from nas.errors import UsageError
    from nas.exporting.exporter import exporters
    from nas.quantisation.method import DEFAULT_RECIPE, methods

    kind = to.suffix.removeprefix(".")
    if not kind:
        raise UsageError(f"--to {to}: says no format. Expected a file name that ends in .onnx.")
    exporter = exporters.get(kind)()
    if precision not in (None, *PRECISIONS, "mixed", "all"):
        raise UsageError(f"--precision: unknown, got {precision!r}. Expected one of {', '.join(PRECISIONS)}, mixed or all.")
    if to.exists():
        raise UsageError(f"--to {to}: the file exists. Do this: name another or remove it.")
    recipe = tuple(quantisation.split(",")) if quantisation else DEFAULT_RECIPE
    methods(recipe)
    if Path(subject).suffix == ".json":
        if trial is not None:
            raise UsageError("--trial: belongs to a run directory. Do this: leave it out.")
        found = _of_file(Path(subject), weights, data)
    else:
        found = _of_run(Path(subject), trial, weights)
    if takes != "normalised" and found.dataset is None:
        raise UsageError(f"--input {takes}: mean and deviation are those of the data. Do this: --data NAME|DIR, or export a run.")
    found = replace(found, takes=takes, recipe=recipe)
    facts = {"architecture": found.architecture.to_json(), "weights": found.said}
    if precision == "all":
        write(_at_all(found, to, facts), form, _render_all)
        return
    artifact, accuracy_pct = _written(found, precision or found.precision, to, facts, exporter)
    result = {
        "path": str(artifact.path),
        "format": artifact.format,
        "precision": artifact.precision,
        "architecture": json.loads(found.architecture.to_json()),
        "weights": found.said,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "max_difference": artifact.max_difference,
        "accuracy_pct": accuracy_pct,
        "operators": dict(artifact.operators),
    }
    write(result, form, _render)


@dataclass(frozen=True)
class Found:
    """What a user asked to export.

    Attributes:
        space: Of the architecture.
        architecture: Its genes.
        module: With weights.
        resolution: At which it runs; None for its own.
        said: What the weights are.
        dataset: Calibrates and tests; None where there is none.
        precision: At which a run chose it.
        target: The run's first device.
        takes: What the file is to take, a key of `nas.exporting.exporter.PEAKS`.
        recipe: Of a quantised file, see `nas.quantisation.method`.
    """

    space: SearchSpace
    architecture: Architecture
    module: nn.Module
    resolution: Resolution | None
    said: str
    dataset: Dataset | None = None
    precision: str = "fp32"
    target: Target | None = None
    takes: str = "normalised"
    recipe: tuple[str, ...] = ()


def _written(found: Found, precision: str, to: Path, facts: Mapping[str, str], plain: Exporter) -> tuple[Artifact, float | None]:
    """Write one file; with data and trained weights its accuracy is measured in ONNX Runtime and written into it."""
    from nas.errors import UsageError
    from nas.exporting.exporters.onnx import annotate
    from nas.exporting.trained import Trained, accuracy_in_runtime_pct, normalising
    from nas.spaces.elastic import ElasticSpace

    graph = found.space.lower(found.architecture, found.resolution)
    if precision == "fp32":
        artifact = plain.export(found.module, graph, to, metadata=facts)
        return (normalising(artifact, found.takes, found.dataset) if found.dataset else artifact), None
    if found.dataset is None or not isinstance(found.space, ElasticSpace):
        if precision == "fp16":
            from nas.exporting.exporter import exporters

            return exporters.get("onnx-fp16")().export(found.module, graph, to, metadata=facts), None
        raise UsageError(f"--precision {precision}: quantisation needs pictures of the task. Do this: --data NAME|DIR, or export a run.")
    height, width = graph.inputs[0].shape[-2:]
    trained = Trained(found.space, found.architecture, found.module, (height, width), found.dataset, found.recipe)
    if precision == "mixed" and len(set(found.space.part_precisions(found.architecture).values())) < 2:
        raise UsageError("--precision mixed: this network runs at one precision. Do this: nas search --precision any, or --precision all.")
    artifact = trained.export(precision, to, facts, found.takes)
    accuracy_pct = accuracy_in_runtime_pct(to, found.dataset, trained.resolution)
    return annotate(artifact, {"test_accuracy_pct": f"{accuracy_pct:.4f}"}), accuracy_pct


def _at_all(found: Found, to: Path, facts: Mapping[str, str]) -> dict[str, Any]:
    """Write a network at every precision that its device prices, and mixed; return latency, size and accuracy of each."""
    from nas.errors import UsageError
    from nas.exporting.exporter import exporters
    from nas.exporting.trained import Trained, spared
    from nas.runs.problem import load_targets
    from nas.spaces.elastic import ElasticSpace
    from nas.spaces.precision import PrecisionSpace

    if found.dataset is None or found.target is None or not isinstance(found.space, ElasticSpace):
        raise UsageError("--precision all: compares on a run's device and data. Do this: give a run directory.")
    device = found.target.profile.name
    targets = {t.precision: t for t in load_targets([device], "any")}
    plain, member = found.space.plain, found.space.plainly(found.architecture)
    rows: list[dict[str, Any]] = []
    asked = {name: replace(found, space=plain, architecture=member) for name in targets}
    if len(targets) > 1 and all(t.predictor.prices_mixed for t in targets.values()):
        mixed = found
        if len(set(found.space.part_precisions(found.architecture).values())) < 2:
            space = PrecisionSpace(plain, list(targets))
            height, width = plain.lower(member, found.resolution).inputs[0].shape[-2:]
            trained = Trained(plain, member, found.module, (height, width), found.dataset)
            mixed = replace(found, space=space, architecture=spared(trained, space))
        asked["mixed"] = mixed
    paths = {name: to.with_stem(f"{to.stem}-{name}") for name in asked}
    if taken := [path for path in paths.values() if path.exists()]:
        raise UsageError(f"--to {to}: {taken[0]} exists. Do this: name another or remove it.")
    for name, subject in asked.items():
        target = targets.get(name) or next(iter(targets.values()))
        path = paths[name]
        artifact, accuracy_pct = _written(subject, name, path, facts, exporters.get("onnx")())
        graph = subject.space.lower(subject.architecture, found.resolution)
        estimate = target.predictor.estimate(graph, target.profile, target.precision)
        rows.append(
            {
                "precision": name,
                "path": str(path),
                "latency_ms": estimate.latency_ms,
                "lower_ms": estimate.lower_ms,
                "upper_ms": estimate.upper_ms,
                "extrapolated": bool(estimate.extrapolated),
                "size_bytes": artifact.size_bytes,
                "accuracy_pct": accuracy_pct,
                "float_parts": sorted(k for k, p in _parts(subject).items() if p in ("fp32", "fp16")) if name == "mixed" else [],
            }
        )
    return {"device": device, "architecture": json.loads(found.architecture.to_json()), "precisions": rows}


def _parts(found: Found) -> Mapping[str, str]:
    from nas.spaces.elastic import ElasticSpace

    return found.space.part_precisions(found.architecture) if isinstance(found.space, ElasticSpace) else {}


def _of_file(path: Path, weights: str | None, data: str | None) -> Found:
    from nas.errors import UsageError
    from nas.spaces.network import read_architecture
    from nas.training.data.dataset import load_dataset

    space, architecture = read_architecture(path)
    if space.evaluator == "published" and weights is None:
        return Found(space, architecture, space.build(architecture), None, "published")
    if weights is None:
        raise UsageError(f"export: {path} is an architecture without weights. Do this: --weights FILE.safetensors, or --weights random.")
    found = _with_weights(space, architecture, weights)
    return replace(found, dataset=load_dataset(data)) if data else found


def _of_run(path: Path, trial: int | None, weights: str | None) -> Found:
    from nas.errors import ArtifactError, UsageError
    from nas.runs.delivery import MEMBER_FILE
    from nas.runs.directory import RunDirectory
    from nas.runs.lifecycle import request_of
    from nas.runs.problem import pose
    from nas.runs.trained_search import SUPERNET_FILE, open_study
    from nas.spaces.architecture import Architecture

    run = RunDirectory.open(path)
    chosen = (run.results or {}).get("chosen") or run.read("architecture.json")
    problem = pose(request_of(run))
    space = problem.space
    if trial is None:
        if chosen is None:
            raise ArtifactError(f"run {path}: has chosen nothing yet. Do this: nas resume {path}, or --trial N.")
        data = chosen.get("architecture", chosen)
        architecture = Architecture(data["space"], data["version"], tuple(data["genes"]))
        if problem.dataset is None:
            return Found(space, architecture, space.build(architecture), None, "published")
        return _of_problem(_with_weights(space, architecture, weights or str(path / MEMBER_FILE)), problem)
    if problem.dataset is None:
        raise UsageError("--trial: this run keeps no trials, its networks are published. Do this: nas export with an architecture file.")
    trials = {found.number: found.architecture for found in open_study(run, problem, create=False).trials()}
    if trial not in trials:
        raise UsageError(f"--trial {trial}: not in this run. Expected 0 to {max(trials, default=0)}.")
    architecture = trials[trial]
    if weights is not None:
        return _of_problem(_with_weights(space, architecture, weights), problem)
    from nas.spaces.elastic import ElasticSpace
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.statistics import calibration_indices, pictures, recalibrate
    from nas.training.supernet.train import load_supernet

    if not isinstance(space, ElasticSpace):
        raise UsageError(f"--trial: space {space.name} has no shared weights. Do this: --weights FILE.safetensors, or --weights random.")
    supernet = load_supernet(Path(problem.request.supernet or path / SUPERNET_FILE), space.plain)
    resolution = problem.judge.verdicts([architecture])[0].resolution
    module = supernet.extract(space.plainly(architecture), resolution)
    train = Batches(problem.dataset, "train", resolution, supernet.device)
    recalibrate(module, pictures(train.plain(128, calibration_indices(train))))
    return _of_problem(Found(space, architecture, module, resolution, "shared, not fine-tuned"), problem)


def _of_problem(found: Found, problem: Problem) -> Found:
    """Add what the run knows: data, device, and the precision if the choice is a quantised one."""
    precision = problem.judge.verdicts([found.architecture])[0].precisions[problem.device]
    chosen = "fp32" if precision in ("fp32", "fp16") else precision
    return replace(found, dataset=problem.dataset, precision=chosen, target=problem.targets[0])


def _with_weights(space: SearchSpace, architecture: Architecture, weights: str) -> Found:
    from nas.errors import ArtifactError
    from nas.training.supernet.finetune import fresh, load_member

    if weights == "random":
        height, width = space.lower(architecture).inputs[0].shape[-2:]
        classes = getattr(space, "num_classes", 1000)
        module = fresh(space, architecture, num_classes=classes, resolution=(height, width), seed=0)
        return Found(space, architecture, module, None, "random")
    found, module, resolution = load_member(Path(weights), space)
    if found != architecture:
        raise ArtifactError(f"--weights {weights}: of another architecture, got {found.key}. Expected {architecture.key}.")
    return Found(space, architecture, module, resolution, "trained")


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines

    kinds = ", ".join(f"{count} {op}" for op, count in result["operators"].items())
    size = f"{result['size_bytes'] / 1e6:.2f} MB"
    print_lines([f"{result['path']}: {size}, weights {result['weights']}, {kinds}"])
    print_lines([f"reloaded in ONNX Runtime, largest difference {result['max_difference']:.1e}; sha256 {result['sha256']}"])
    if result["accuracy_pct"] is not None:
        print_lines([f"{result['precision']}: {result['accuracy_pct']:.2f} % of the test images in ONNX Runtime"])


def _render_all(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines, print_table

    columns = ["precision", f"{result['device']} ms", "interval ms", "basis", "kB", "test %", "file"]
    rows = []
    for row in result["precisions"]:
        accuracy = "" if row["accuracy_pct"] is None else f"{row['accuracy_pct']:.2f}"
        spread, basis = f"{row['lower_ms']:.3g}–{row['upper_ms']:.3g}", "extrapolated" if row["extrapolated"] else "estimated"
        rows.append([row["precision"], f"{row['latency_ms']:.3g}", spread, basis, f"{row['size_bytes'] / 1e3:.0f}", accuracy, row["path"]])
    print_table("One network at every precision", columns, rows)
    for row in result["precisions"]:
        if row["float_parts"]:
            print_lines([f"{row['precision']}: in float {', '.join(row['float_parts'])}"])
