"""What is written into a model file, so that it can be used and traced without the run directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nas.runs.teaching import TEACHER_FILE, Lesson

if TYPE_CHECKING:
    from nas.runs.directory import RunDirectory
    from nas.runs.problem import Problem
    from nas.spaces.architecture import Architecture
    from nas.spaces.space import SearchSpace
    from nas.training.dataset import Dataset


def data_facts(dataset: Dataset) -> dict[str, str]:
    """Return what a file's input must look like, and what its scores mean."""
    mean, std = dataset.statistics
    return {
        "data": f"{dataset.name} {dataset.key}",
        "input": "NCHW float32, RGB in 0…1, less mean, over std",
        "layout": "NCHW",
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "classes": json.dumps(dataset.classes, ensure_ascii=False),
    }


def run_facts(run: RunDirectory, problem: Problem, architecture: Architecture) -> dict[str, str]:
    """Return what a run knows of one of its networks, its accuracies apart."""
    verdict = problem.judge.verdicts([architecture])[0]
    devices = {
        device: {
            "latency_ms": e.latency_ms,
            "lower_ms": e.lower_ms,
            "upper_ms": e.upper_ms,
            "basis": e.basis,
            "precision": verdict.precisions[device],
            "confidence": e.confidence,
            "extrapolated": bool(e.extrapolated),
        }
        for device, e in verdict.estimates.items()
    }
    manifest = run.manifest
    facts = {
        "architecture": architecture.to_json(),
        "devices": json.dumps(devices),
        "versions": json.dumps({"nas": manifest.nas, "python": manifest.python, **manifest.packages}),
        "hashes": json.dumps(manifest.facts),
        "seed": str(problem.request.seed),
    }
    lesson = run.load(TEACHER_FILE, Lesson)
    if lesson is not None and lesson.network:
        facts["teacher"] = lesson.network
    return facts if problem.dataset is None else facts | data_facts(as_expected(problem.dataset, problem.space, architecture))


def as_expected(dataset: Dataset, space: SearchSpace, architecture: Architecture) -> Dataset:
    """Return data normalised as a network expects them: by their own statistics, or by those that its published weights were trained with."""
    expected = space.normalisation(architecture)
    return dataset if expected is None else dataset.normalised_by(*expected)
