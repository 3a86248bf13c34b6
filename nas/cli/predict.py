"""``nas predict``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nas.cli._options import Confidence, Devices, Dims, InputShapes, Precision, known_devices, known_network, network_names, sizes, write

if TYPE_CHECKING:
    from nas.results import Estimate, Unpriced

BROKEN_BUDGET = 3
"""Exit code where a budget is broken."""

Judged = Literal["upper", "point"]


def command(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="ARCH.json, MODEL.onnx (.tflite, .pt2) or names of published networks.",
            metavar="ARCH.json|MODEL.onnx|REFERENCE",
            autocompletion=network_names,
        ),
    ],
    device: Devices,
    precision: Precision = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show the share of every operator.")] = False,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", help="5ms, 200fps, 20MB, D:8ms; may be given several times. Exit code 3 where one is broken.", metavar="B"
        ),
    ] = None,
    on: Annotated[
        Judged,
        typer.Option(
            "--on", help="Which end of the estimate must keep the budget: the interval's upper end, or its central value (point)."
        ),
    ] = "upper",
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare", help="An older network, or a folder of files of the same names: what got slower, and where.", metavar="OLD"
        ),
    ] = None,
    profile_hash: Annotated[
        list[str] | None,
        typer.Option("--profile-hash", help="Fail unless a device's estimates come from this profile and fit.", metavar="[D:]HASH"),
    ] = None,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Of an architecture's input: 224 or 192x256.")] = None,
    task: Annotated[
        Literal["classes", "features"],
        typer.Option(
            "--task",
            help="features: the maps at strides 4 to 32 that detectors and segmenters take, at 512 and 640 px, quickest first; default classes.",
        ),
    ] = "classes",
    input_shape: InputShapes = None,
    dim: Dims = None,
    confidence: Confidence = 0.9,
    form: Annotated[Literal["table", "json", "csv", "junit"], typer.Option("--format", help="How the result is printed.")] = "table",
) -> None:
    """Estimate how long networks take on devices, with an interval; a device's own timing is shown where there is one."""
    shapes = sizes(input_shape, dim)
    subjects, devices = list(dict.fromkeys(networks)), list(dict.fromkeys(known_devices(device)))
    if len(subjects) == 1:
        known_network(subjects[0])

    from nas import api
    from nas.report import predictions

    single = len(subjects) == len(devices) == 1 and task == "classes"
    terms: dict[str, Any] = {
        "precision": precision,
        "resolution": resolution,
        "confidence": confidence,
        "budget": budget or (),
        "on": on,
        "compare": compare,
        "profile_hash": profile_hash or (),
        "task": task,
        **shapes,
    }
    results: list[Estimate | Unpriced] = (
        [api.predict(subjects[0], devices[0], **terms)] if single else list(api.predict_all(subjects, devices, **terms))
    )
    if task == "features":
        results.sort(key=_by_size_and_time)
    if form in ("csv", "junit"):
        sys.stdout.write(predictions.as_csv(results) if form == "csv" else predictions.as_junit(results))
    else:
        write(results[0] if single else results, form, lambda _: predictions.print_predictions(results, breakdown=breakdown))
    _leave(results)


def _by_size_and_time(result: Estimate | Unpriced) -> tuple[str, str, float]:
    """Return by what backbones are ordered: device, size of picture, time; what was not priced comes last."""
    size = result.network.rpartition(" ")[2] if " " in result.network else "~"
    return result.device, size, getattr(result, "latency_ms", float("inf"))


def _leave(results: Sequence[Estimate | Unpriced]) -> None:
    """Exit 3 where a budget is broken, else 1 where a network was not priced; each of these is a line on stderr."""
    from nas.results import Unpriced

    unpriced = [result for result in results if isinstance(result, Unpriced)]
    for error in dict.fromkeys(result.error for result in unpriced):
        sys.stderr.write(f"nas: {error}\n")
    if any(not isinstance(result, Unpriced) and not result.within_budgets for result in results):
        raise SystemExit(BROKEN_BUDGET)
    if unpriced:
        raise SystemExit(1)
