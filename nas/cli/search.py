"""``nas search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Confidence, Devices, Format, Seed, StorageTimeout, StudyName, Takes, known_devices, progress, write


def command(
    device: Devices,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="5ms, 200fps, 20MB, 1.2GMACs, 5Mparams, 300MB-peak, 2.5MB-ram; for one device D:8ms.", metavar="B"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Points of accuracy that a network may be likely to lose in 8 bits, by its graph.", metavar="PCT"),
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option(
            "--minimize", help="Beside accuracy: latency (of every device; the default), macs, params, size, memory.", metavar="COST"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="fp32, fp16, w8a16, w8a8, or any: chosen for each part; default: each device's own.", metavar="P"),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="Search space; default: with --data and published weights at hand zoo, else hybrid; nas spaces list.",
            metavar="S",
        ),
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor", help="Trained network to start from (--space chain); may be given several times.", metavar="NET|FILE.py:F|NET.pt2"
        ),
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option("--weights-dir", help="Folder of files of weights, named like networks.", metavar="DIR")
    ] = None,
    mixers: Annotated[
        str | None,
        typer.Option("--mixers", help="Token and channel mixers to choose from, or green: all that NPUs run well.", metavar="A,B,…"),
    ] = None,
    knobs: Annotated[
        str | None,
        typer.Option("--knobs", help="Knobs of mixers that are searched with all their values beside the usual ones.", metavar="A.K,…"),
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            "--evaluator",
            help="What scores candidates: supernet, quantised, zero-cost, published, table; default: the space's own.",
            metavar="NAME",
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option("--table", help="Known accuracies (arch, columns, accuracy) or latencies (arch, ms/DEVICE).", metavar="T.npz"),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Which accuracy of the table.", metavar="C")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Name of a data set, a folder of class folders, or a tar of one; default digits.", metavar="NAME|DIR|TAR"
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution", help="Size of picture at which the network will run: 224 or 192x256; default: the space's own, or searched."
        ),
    ] = None,
    proxy_resolution: Annotated[
        int | None,
        typer.Option("--proxy-resolution", min=8, help="Side in pixels at which the supernet trains; default: the data's own, 32 to 128."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Passes over the training pictures for the supernet; default: by data and machine.",
        ),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option("--finetune-epochs", min=1, help="Passes over the training pictures for the choice; default: by data and machine."),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit",
            help="For everything until the exported file is tested: 30min, 2h, 90s; default: what data and machine allow.",
            metavar="T",
        ),
    ] = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            "--searcher", help="What proposes candidates: random, tpe, nsga2, evolution, local, …; default guided.", metavar="NAME"
        ),
    ] = None,
    evals: Annotated[
        int | None, typer.Option("--evals", help="Accuracies to compute; default 120, without --data 60.", metavar="N")
    ] = None,
    confidence: Confidence = 0.9,
    supernet: Annotated[Path | None, typer.Option("--supernet", help="Trained supernet (.safetensors) to start from.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory to make; default runs/TIME-SPACE-DEVICE.", metavar="DIR")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="URL of a shared study; default: a file in the run directory.")] = None,
    study: StudyName = "nas",
    storage_timeout: StorageTimeout = 60.0,
    workers: Annotated[
        str, typer.Option("--workers", help="Ray cluster that evaluates candidates; default: this process.", metavar="ray://ADDRESS")
    ] = "",
    quantisation: Annotated[
        str | None,
        typer.Option("--quantisation", help="Other methods than the usual ones for scoring and writing at 8 bits.", metavar="NAME,…"),
    ] = None,
    exporter: Annotated[
        str, typer.Option("--exporter", help="Format of the model file: onnx, pt2, openvino, tflite.", metavar="NAME")
    ] = "onnx",
    takes: Takes = "normalised",
    verify: Annotated[int, typer.Option("--verify", min=0, help="Measure the front's best N on the device at the end.", metavar="N")] = 0,
    runner: Annotated[
        str, typer.Option("--runner", help="For --verify: a command that times {onnx} on the device and prints ms, as for `nas measure`.")
    ] = "",
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Pictures a run, for devices that state throughput; default: the profile's own.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Leave published weights alone where no --space is named: train from nothing.")
    ] = False,
    form: Format = "table",
) -> None:
    """Find the most accurate network that the devices run within the budgets, and write its model file."""
    if not table:  # a device may be a table's column
        known_devices(device)

    from nas import api
    from nas.report.results import print_result

    given = {name: value for name, value in locals().items() if name not in ("form", "api", "print_result")}
    given |= {name: _words(given[name]) for name in ("mixers", "knobs", "quantisation")}
    given |= {name: given[name] or () for name in ("anchor", "budget", "minimize", "table")}
    with progress() as bus:
        result = api.search(**given, bus=bus)
    write(result, form, print_result)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()
