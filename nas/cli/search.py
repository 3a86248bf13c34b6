"""``nas search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Confidence, Devices, Format, Seed, Takes, checked_confidence, write


def command(
    device: Devices,
    budget: Annotated[
        list[str] | None, typer.Option("--budget", help="5ms, 200fps, 20MB, 1.2GMACs, 5Mparams; for one device D:8ms.", metavar="B")
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option(
            "--minimize", help="Beside accuracy: latency (of every device; the default), macs, params, size, memory.", metavar="COST"
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, fp16, w8a16, w8a8, or any: chosen for each part.", metavar="P")
    ] = None,
    space: Annotated[str, typer.Option("--space", help="Search space; nas spaces list.", metavar="S")] = "hybrid",
    data: Annotated[str, typer.Option("--data", help="Name of a data set, a folder of class folders, or a tar of one.")] = "digits",
    resolution: Annotated[str | None, typer.Option("--resolution", help="Deployment resolution: 224 or 192x256.")] = None,
    proxy_resolution: Annotated[
        int | None, typer.Option("--proxy-resolution", min=8, help="Side in pixels at which the supernet trains.")
    ] = None,
    searcher: Annotated[str | None, typer.Option("--searcher", help="How candidates are proposed.", metavar="NAME")] = None,
    evals: Annotated[int | None, typer.Option("--evals", help="Accuracies to compute.", metavar="N")] = None,
    confidence: Confidence = 0.9,
    supernet: Annotated[Path | None, typer.Option("--supernet", help="Trained supernet (.safetensors) to start from.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory to make; default runs/TIME-SPACE-DEVICE.", metavar="DIR")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="URL of a shared study; default: a file in the run directory.")] = None,
    takes: Takes = "normalised",
    verify: Annotated[int, typer.Option("--verify", min=0, help="Measure the front's best N at the end.", metavar="N")] = 0,
    runner: Annotated[str, typer.Option("--runner", help="For --verify: a command that times {onnx} on the device and prints ms.")] = "",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images a run, for devices that state throughput.")] = None,
    form: Format = "table",
) -> None:
    """Find the most accurate network that the devices run within the budgets, and write its model file."""
    from nas.errors import UsageError
    from nas.events import EventBus
    from nas.report.progress import ProgressReport
    from nas.report.results import print_result
    from nas.runs.lifecycle import start
    from nas.runs.request import Request

    if evals is not None and evals < 1:
        raise UsageError(f"evals: too few, got {evals}. Expected at least 1.")
    request = Request(
        devices=tuple(str(Path(name).resolve()) if name.endswith(".toml") else name for name in device),
        budgets=tuple(budget or ()),
        minimize=tuple(minimize or ()),
        precision=precision,
        space=space,
        data=data,
        resolution=resolution,
        proxy_resolution=proxy_resolution,
        searcher=searcher,
        evals=evals,
        confidence=checked_confidence(confidence),
        supernet=str(supernet.resolve()) if supernet else None,
        seed=seed,
        storage=storage,
        takes=takes,
        verify=verify,
        runner=runner,
        batch=batch,
    )
    progress = ProgressReport()
    try:
        result = start(request, out, EventBus([progress]))
    finally:
        progress.close()
    write(result, form, print_result)
