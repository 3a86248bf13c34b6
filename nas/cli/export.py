"""``nas export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli._options import Format, InputRange, write

if TYPE_CHECKING:
    from nas.results import Export, Exports


def command(
    subject: Annotated[str, typer.Argument(help="Run directory or architecture file.", metavar="DIR|ARCH.json")],
    to: Annotated[Path, typer.Option("--to", help="File to write.", metavar="FILE.onnx|.pt2|.xml|.tflite")],
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="Number of the trial to export; default: the run's choice.", metavar="N")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Weights of an architecture file: a .safetensors file, or random.", metavar="FILE|random"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, fp16, w8a16, w8a8 or mixed; all writes one file for each and compares them. Default: the network's own.",
        ),
    ] = None,
    quantisation: Annotated[
        str | None,
        typer.Option(
            "--quantisation",
            help="Quantisation methods, in order, that replace the usual ones; nas search --help lists them.",
            metavar="NAME,…",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set that normalises, calibrates and tests the file of an architecture; a run has its own."),
    ] = None,
    exporter: Annotated[
        str | None, typer.Option("--exporter", help="Format: onnx, pt2, openvino or tflite; default: by the file's ending.", metavar="NAME")
    ] = None,
    input_range: InputRange = "normalised",
    task: Annotated[
        Literal["classes", "features"],
        typer.Option(
            "--task", help="classes: the classifier. features: no classifier; the outputs are the feature maps stride4 to stride32."
        ),
    ] = "classes",
    form: Format = "table",
) -> None:
    """Write a network as a model file, reload the file and compare it with the network."""
    from nas import api
    from nas.results import Exports

    result = api.export(
        subject,
        to,
        trial=trial,
        weights=weights,
        precision=precision,
        quantisation=quantisation,
        data=data,
        input_range=input_range,
        exporter=exporter,
        task=task,
    )
    write(result, form, _print_all if isinstance(result, Exports) else _print)


def _print(result: Export) -> None:
    from nas.report.tables import print_lines

    kinds = ", ".join(f"{count} {op}" for op, count in result.operators.items())
    size = f"{result.size_bytes / 1e6:.2f} MB"
    print_lines(result.notices)
    print_lines([f"{result.path}: {size}, weights {result.weights}, {kinds}"])
    print_lines([f"reloaded in its runtime, largest difference {result.max_difference:.1e}; sha256 {result.sha256}"])
    if result.accuracy_pct is not None:
        print_lines([f"{result.precision}: {result.accuracy_pct:.2f} % of the test images in its runtime"])


def _print_all(result: Exports) -> None:
    from nas.report.tables import Column, print_lines, print_table

    columns = [
        Column("precision"),
        Column(f"{result.device} ms"),
        Column("interval ms", 2),
        Column("basis", 3),
        Column("kB", 4),
        Column("test %", 1),
        Column("file"),
    ]
    rows = []
    for row in result.precisions:
        accuracy = "" if row.accuracy_pct is None else f"{row.accuracy_pct:.2f}"
        spread, basis = f"{row.lower_ms:.3g}–{row.upper_ms:.3g}", "extrapolated" if row.extrapolated else "estimated"
        rows.append([row.precision, f"{row.latency_ms:.3g}", spread, basis, f"{row.size_bytes / 1e3:.0f}", accuracy, row.path])
    print_table("One network at every precision", columns, rows)
    for row in result.precisions:
        if row.float_parts:
            print_lines([f"{row.precision}: in float {', '.join(row.float_parts)}"])
