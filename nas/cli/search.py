"""``nas search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Confidence, Devices, Format, InputRange, Seed, StorageTimeout, StudyName, known_devices, progress, write


def command(
    device: Devices,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="A bound: 5ms, 200fps, 20MB (of the file), 1.2GMACs, 5Mparams, 300MB-peak, 2.5MB-ram, 6MB-flash; D:8ms for the device D alone. "
            "May be given several times.",
            metavar="B",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", help="Most points of accuracy that a network may lose at 8 bits, as predicted from its graph.", metavar="PCT"
        ),
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option(
            "--minimize",
            help="What is weighed against accuracy: latency (of every device), macs, params, size or memory; default latency. May be given several times.",
            metavar="COST",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="fp32, fp16, w8a16, w8a8, or any, which chooses one for each part; default: each device's own.", metavar="P"
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="Search space; nas spaces list names them. Default: with --data what is worth trying (zoo, chain, hybrid, vit-t), else hybrid.",
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
        Path | None,
        typer.Option("--weights-dir", help="Folder of weight files, each named like its network: resnet50.safetensors.", metavar="DIR"),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            help="Where one trained network may go on in another (--space chain): near (in depth), similar (by what both make of your pictures), "
            "all, or pairs A:3>B:4. Default: near.",
            metavar="P,…",
        ),
    ] = None,
    edits: Annotated[
        str | None,
        typer.Option(
            "--edits",
            help="What may be done to the blocks of trained networks (--space chain): out, width, merge, rank. Default: all.",
            metavar="A,B,…",
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            "--importance",
            help="Which inner channels of a trained network stay (--space chain): by taylor, entropy, norms or distortion. Default: taylor.",
            metavar="I",
        ),
    ] = None,
    mixers: Annotated[
        str | None,
        typer.Option(
            "--mixers",
            help="Token and channel mixers to choose from; green takes all that NPUs run well. Default: the space's own.",
            metavar="A,B,…",
        ),
    ] = None,
    knobs: Annotated[
        str | None,
        typer.Option(
            "--knobs", help="Knobs of mixers, MIXER.KNOB, of which every value is searched; default: the usual values.", metavar="A.K,…"
        ),
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            "--evaluator",
            help="What scores candidates: supernet, supernet-in-time (under --time-limit), quantised, probe, zero-cost, alone, published or table; else default: the space's own.",
            metavar="NAME",
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            "--table",
            help="Table of known accuracies (arrays arch, columns, accuracy) or latencies (arch, ms/DEVICE). May be given several times.",
            metavar="T.npz",
        ),
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column of the table's accuracies.", metavar="C")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Data set: digits, a folder of class folders, a .tar of one, or the archive cifar-10-binary.tar.gz. Default: digits, which only shows that everything works.",
            metavar="NAME|DIR|TAR",
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution", help="Size of the pictures on the device, 224 or HEIGHTxWIDTH; default: the space's own, or searched."
        ),
    ] = None,
    proxy_resolution: Annotated[
        int | None,
        typer.Option(
            "--proxy-resolution",
            min=8,
            help="Size of the pictures on which the supernet trains, in pixels; default: the data's own, 32 to 128.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Epochs of the supernet's training; default: by data and machine, 3 without --data.",
        ),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(
            "--finetune-epochs", min=1, help="Epochs of fine-tuning the chosen network; default: by data and machine, 3 without --data."
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit",
            help="Time for the whole run, the export and its test included: 90s, 30min, 2h; default: no limit.",
            metavar="T",
        ),
    ] = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            "--searcher",
            help="What proposes candidates: guided, random, exhaustive, local, evolution, nsga2, nsga3, tpe, gp, optuna-nsga2, or with the extra "
            "[nni] nni-random, nni-tpe, nni-evolution; default guided.",
            metavar="NAME",
        ),
    ] = None,
    evals: Annotated[
        int | None, typer.Option("--evals", help="How many candidates are scored; default 120, without --data 24.", metavar="N")
    ] = None,
    confidence: Confidence = 0.9,
    supernet: Annotated[
        Path | None, typer.Option("--supernet", help="Trained supernet (.safetensors), as nas train writes it; default: one is trained.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory to make; default runs/TIME-SPACE-DEVICE.", metavar="DIR")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", help="Storage that workers share: URL of a database, or path of a journal; default: a file in the run directory."
        ),
    ] = None,
    study: StudyName = "nas",
    storage_timeout: StorageTimeout = 60.0,
    workers: Annotated[
        str, typer.Option("--workers", help="Ray cluster that evaluates candidates; default: this process.", metavar="ray://ADDRESS")
    ] = "",
    quantisation: Annotated[
        str | None,
        typer.Option(
            "--quantisation",
            help="Quantisation methods, in order, for scoring and writing at 8 bits: minmax, mse, percentile, smoothing, equalisation, bias-correction, "
            "adaround, wide-softmax, noisyquant, lrp-qvit, mptq-vit, q-hyvit, quantisation-aware-training.",
            metavar="NAME,…",
        ),
    ] = None,
    exporter: Annotated[
        str, typer.Option("--exporter", help="Format of the model file: onnx, pt2, openvino or tflite.", metavar="NAME")
    ] = "onnx",
    input_range: InputRange = "normalised",
    verify: Annotated[
        int,
        typer.Option(
            "--verify",
            min=0,
            help="Measure the N best of the front on the device, correct all estimates by them and choose again.",
            metavar="N",
        ),
    ] = 0,
    runner: Annotated[
        str,
        typer.Option(
            "--runner", help="Command for --verify: it times the file {onnx} on the device and prints milliseconds, as for nas measure."
        ),
    ] = "",
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Pictures in one run of a device that states throughput; default: the profile's own."),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train from nothing: no published weights, where no --space is named.")
    ] = False,
    form: Format = "table",
) -> None:
    """Find the most accurate network that the devices run within the budgets, and write its model file."""
    if not table:  # a device may be a table's column
        known_devices(device)

    from nas import api
    from nas.report.results import print_result

    options = {name: value for name, value in locals().items() if name not in ("form", "api", "print_result")}
    options |= {name: _words(options[name]) for name in ("pairs", "edits", "mixers", "knobs", "quantisation")}
    options |= {name: options[name] or () for name in ("anchor", "budget", "minimize", "table")}
    with progress() as bus:
        result = api.search(**options, bus=bus)
    write(result, form, print_result)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip()) if text else ()
