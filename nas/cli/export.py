"""``nas export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from torch import nn

    from nas.arch import Architecture
    from nas.space import Resolution, SearchSpace


def command(
    subject: Annotated[str, typer.Argument(help="Run directory or architecture file.", metavar="DIR|ARCH.json")],
    to: Annotated[Path, typer.Option("--to", help="File to write.", metavar="FILE.onnx")],
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Another network of the run than its choice.", metavar="N")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Trained weights (.safetensors), or random.", metavar="FILE|random")
    ] = None,
    form: Format = "table",
) -> None:
    """Write a network as a model file that has been reloaded and compared."""
    from nas.errors import UsageError
    from nas.exporter import exporters

    kind = to.suffix.removeprefix(".")
    if not kind:
        raise UsageError(f"--to {to}: says no format. Expected a file name that ends in .onnx.")
    exporter = exporters.get(kind)()
    if to.exists():
        raise UsageError(f"--to {to}: the file exists. Do this: name another or remove it.")
    if Path(subject).suffix == ".json":
        if trial is not None:
            raise UsageError("--trial: belongs to a run directory. Do this: leave it out.")
        space, architecture, module, resolution, said = _of_file(Path(subject), weights)
    else:
        space, architecture, module, resolution, said = _of_run(Path(subject), trial, weights)
    graph = space.lower(architecture, resolution)
    artifact = exporter.export(module, graph, to, metadata={"architecture": architecture.to_json(), "weights": said})
    result = {
        "path": str(artifact.path),
        "format": artifact.format,
        "precision": artifact.precision,
        "architecture": json.loads(architecture.to_json()),
        "weights": said,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "max_difference": artifact.max_difference,
        "operators": dict(artifact.operators),
    }
    write(result, form, _render)


Found = tuple["SearchSpace", "Architecture", "nn.Module", "Resolution | None", str]


def _of_file(path: Path, weights: str | None) -> Found:
    from nas.errors import UsageError
    from nas.network import read_architecture

    space, architecture = read_architecture(path)
    if space.evaluator == "published" and weights is None:
        return space, architecture, space.build(architecture), None, "published"
    if weights is None:
        raise UsageError(f"export: {path} is an architecture without weights. Do this: --weights FILE.safetensors, or --weights random.")
    return _with_weights(space, architecture, weights)


def _of_run(path: Path, trial: int | None, weights: str | None) -> Found:
    from nas.arch import Architecture
    from nas.design import MEMBER_FILE, SUPERNET_FILE, open_study
    from nas.errors import ArtifactError, UsageError
    from nas.pipeline import request_of
    from nas.problem import pose
    from nas.run import RunDirectory

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
            return space, architecture, space.build(architecture), None, "published"
        return _with_weights(space, architecture, weights or str(path / MEMBER_FILE))
    if problem.dataset is None:
        raise UsageError("--trial: this run keeps no trials, its networks are published. Do this: nas export with an architecture file.")
    trials = {found.number: found.architecture for found in open_study(run, problem, create=False).trials()}
    if trial not in trials:
        raise UsageError(f"--trial {trial}: not in this run. Expected 0 to {max(trials, default=0)}.")
    architecture = trials[trial]
    if weights is not None:
        return _with_weights(space, architecture, weights)
    from nas.elastic import ElasticSpace
    from nas.supernet.batches import Batches
    from nas.supernet.statistics import calibration_indices, pictures, recalibrate
    from nas.supernet.train import load_supernet

    if not isinstance(space, ElasticSpace):
        raise UsageError(f"--trial: space {space.name} has no shared weights. Do this: --weights FILE.safetensors, or --weights random.")
    supernet = load_supernet(Path(problem.request.supernet or path / SUPERNET_FILE), space)
    resolution = problem.judge.verdicts([architecture])[0].resolution
    module = supernet.extract(architecture, resolution)
    train = Batches(problem.dataset, "train", resolution, supernet.device)
    recalibrate(module, pictures(train.plain(128, calibration_indices(train))))
    return space, architecture, module, resolution, "shared, not fine-tuned"


def _with_weights(space: SearchSpace, architecture: Architecture, weights: str) -> Found:
    from nas.errors import ArtifactError
    from nas.supernet.finetune import fresh, load_member

    if weights == "random":
        height, width = space.lower(architecture).inputs[0].shape[-2:]
        classes = getattr(space, "num_classes", 1000)
        module = fresh(space, architecture, num_classes=classes, resolution=(height, width), seed=0)
        return space, architecture, module, None, "random"
    found, module, resolution = load_member(Path(weights), space)
    if found != architecture:
        raise ArtifactError(f"--weights {weights}: of another architecture, got {found.key}. Expected {architecture.key}.")
    return space, architecture, module, resolution, "trained"


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines

    kinds = ", ".join(f"{count} {op}" for op, count in result["operators"].items())
    size = f"{result['size_bytes'] / 1e6:.2f} MB"
    print_lines([f"{result['path']}: {size}, weights {result['weights']}, {kinds}"])
    print_lines([f"reloaded in ONNX Runtime, largest difference {result['max_difference']:.1e}; sha256 {result['sha256']}"])
