"""What a search hands over: the choice fine-tuned, exported, reloaded and tested, and the front's best measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import NasError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.exporting.trained import Trained, onnx_predictions
from nas.quantisation.method import ACTIVATION_BITS
from nas.runs.directory import RunDirectory
from nas.runs.problem import Problem, elastic
from nas.spaces.architecture import Architecture

if TYPE_CHECKING:
    from nas.training.data.dataset import Dataset
    from nas.training.supernet.train import Recipe
    from nas.training.supernet.weights import Supernet

TUNING: Recipe | None = None
"""How the choice is fine-tuned; None for the default recipe."""

MEMBER_FILE = "finetuned.safetensors"


def verify(problem: Problem, points: Sequence[Mapping[str, Any]], bus: EventBus) -> dict[str, Any]:
    """Measure the front's best networks, and say how the estimates did."""
    from nas.devices.measure import measure_graph, measure_onnx, measure_with_runner

    request = problem.request
    began_s = time.monotonic()
    best = sorted(points, key=lambda p: (-p["supernet_accuracy_pct"], p["latency_ms"]))[: request.verify]
    bus.emit(PhaseStarted("verify", total=len(best), detail=f"measuring {len(best)} networks"))
    rows = []
    for i, found in enumerate(best, 1):
        data = found["architecture"]
        graph = problem.space.lower(Architecture(data["space"], data["version"], tuple(data["genes"])))

        def timed(path: Path) -> Any:
            return measure_with_runner(path, request.runner) if request.runner else measure_onnx(path, problem.device)  # type: ignore[arg-type]

        try:
            measured = measure_graph(graph, timed)
        except NasError as error:
            rows.append({"key": found["key"], "line": f"verify: {found['key']}: {error}"})
            continue
        inside = found["lower_ms"] <= measured.median_ms <= found["upper_ms"]
        error_pct = 100 * (found["latency_ms"] / measured.median_ms - 1)
        where = f"{'inside' if inside else 'outside'} the interval of {found['lower_ms']:.3g}–{found['upper_ms']:.3g} ms"
        line = f"verify: {found['key']}: {measured.median_ms:.3g} ms measured on {measured.device}, estimated {found['latency_ms']:.3g} ms "
        rows.append(
            {
                "key": found["key"],
                **measured.to_json(),
                "error_pct": error_pct,
                "inside": inside,
                "line": f"{line}({error_pct:+.0f} %), {where}",
            }
        )
        bus.emit(PhaseAdvanced("verify", i, {"measured_ms": measured.median_ms}))
    bus.emit(PhaseFinished("verify", time.monotonic() - began_s))
    return {"networks": rows}


def finish(
    run: RunDirectory, problem: Problem, dataset: Dataset, supernet: Supernet, architecture: Architecture, bus: EventBus
) -> dict[str, Any]:
    """Fine-tune at the deployment resolution, recalibrate, fuse, quantise where asked for, export, reload, and test what was exported.

    Raises:
        ArtifactError: The exported file does not say what the network says.
    """
    from nas.exporting.exporters.onnx import annotate
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.finetune import finetune, finetuning_recipe
    from nas.training.supernet.statistics import predictions

    space, verdict = elastic(problem), problem.judge.verdicts([architecture])[0]
    resolution, precision = verdict.resolution, verdict.precisions[problem.device]
    tuned = finetune(
        supernet.extract(space.plainly(architecture), resolution),
        architecture,
        dataset,
        run.path / MEMBER_FILE,
        TUNING or finetuning_recipe(dataset, problem.space.lower(architecture, resolution).cost.macs),
        resolution=resolution,
        seed=problem.request.seed,
        bus=bus,
        device=str(supernet.device),
    )
    labels = dataset.labels("test")
    given = predictions(tuned.module, Batches(dataset, "test", resolution, supernet.device))
    float_pct = 100 * float(np.mean(given == labels))
    began_s = time.monotonic()
    bus.emit(PhaseStarted("export", total=len(labels), detail="ONNX, reloaded in ONNX Runtime"))
    path, part = run.path / "model.onnx", run.path / ".model.part.onnx"
    for left in (path, part):  # of a session that was killed here
        left.unlink(missing_ok=True)
    facts = metadata(run, problem, dataset, architecture, tuned.validation_accuracy_pct)
    trained = Trained(space, architecture, tuned.module.to("cpu"), resolution, dataset)
    quantised = precision in ACTIVATION_BITS or precision == "mixed"
    artifact = trained.export(precision if quantised else "fp32", part, facts, problem.request.takes)  # compilers for fp16 take fp32 files
    found = []
    for i, label in enumerate(onnx_predictions(part, dataset, resolution), 1):
        found.append(label)
        if i % 32 == 0:
            bus.emit(PhaseAdvanced("export", i))
    exported = np.array(found)
    accuracy_pct = 100 * float(np.mean(exported == labels))
    changed = int(np.sum(exported != given))
    if quantised:
        bus.emit(Notice(f"test accuracy: {float_pct:.2f} % in float, {accuracy_pct:.2f} % in the {precision} file in ONNX Runtime."))
    elif changed:
        bus.emit(Notice(f"the exported file names another class than the network in PyTorch on {changed} of {len(labels)} test images."))
    artifact = annotate(artifact, {"test_accuracy_pct": f"{accuracy_pct:.4f}", "float_test_accuracy_pct": f"{float_pct:.4f}"})
    part.rename(path)
    lacking = lacking_operators(problem, architecture, artifact.operators)
    if lacking:
        bus.emit(Notice(f"the device lacks operators of the exported file: {', '.join(lacking)}."))
    bus.emit(PhaseFinished("export", time.monotonic() - began_s))
    return {
        "accuracy_pct": accuracy_pct,
        "float_accuracy_pct": float_pct,
        "validation_accuracy_pct": tuned.validation_accuracy_pct,
        "sha256": artifact.sha256,
        "max_difference": artifact.max_difference,
        "lacking_operators": lacking,
        "sensitivity_db": trained.sensitivity_db() if quantised else {},
    }


def lacking_operators(problem: Problem, architecture: Architecture, written: Mapping[str, int]) -> list[str]:
    """Return the operators that a device lacks, sorted: of the graph, by its estimate, and of the file, by its profile's list.

    Args:
        problem: Whose devices.
        architecture: That was exported.
        written: Operator kinds in the file, which writes some of the graph's operators as several.
    """
    found = {name for estimate in problem.judge.estimates(architecture).values() for name in estimate.unsupported}
    for target in problem.targets:
        found |= set(target.profile.at(target.precision).unsupported_ops) & set(written)
    return sorted(found)


def metadata(run: RunDirectory, problem: Problem, dataset: Dataset, architecture: Architecture, validation_pct: float) -> dict[str, str]:
    """Return what is written into the file beside its accuracy, so that it can be used and traced without the run directory."""
    import json

    estimates = problem.judge.verdicts([architecture])[0]
    mean, std = dataset.statistics
    devices = {
        device: {
            "latency_ms": e.latency_ms,
            "lower_ms": e.lower_ms,
            "upper_ms": e.upper_ms,
            "basis": e.basis,
            "precision": estimates.precisions[device],
            "confidence": e.confidence,
            "extrapolated": bool(e.extrapolated),
        }
        for device, e in estimates.estimates.items()
    }
    manifest = run.manifest
    return {
        "architecture": architecture.to_json(),
        "devices": json.dumps(devices),
        "data": f"{dataset.name} {dataset.key}",
        "validation_accuracy_pct": f"{validation_pct:.4f}",
        "input": "NCHW float32, RGB in 0…1, less mean, over std",
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "classes": json.dumps(dataset.classes, ensure_ascii=False),
        "versions": json.dumps({"nas": manifest["nas"], "python": manifest["python"], **manifest["packages"]}),
        "hashes": json.dumps(manifest["facts"]),
        "seed": str(problem.request.seed),
    }
