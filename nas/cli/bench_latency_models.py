"""``nas bench latency-models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nas.cli._options import Format, write


def command(
    perf: Annotated[Path, typer.Option(help="Table of timings (AI Hub's columns), CSV or CSV.gz.")],
    models: Annotated[Path, typer.Option(help="Which models of the table can be rebuilt (aihub_models.csv).")],
    device: Annotated[str, typer.Option(help="Device under any of its names in the table.")],
    precision: Annotated[Literal["fp16", "w8a16", "w8a8"], typer.Option(help="Precision in question.")] = "fp16",
    graphs: Annotated[
        Path | None, typer.Option(help="Folder of NAME.onnx by the table's model names; these come before the committed graphs.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="loo, family, or few:K: K timings on the device, all else of it unseen.")] = "loo",
    boards: Annotated[
        Path | None, typer.Option(help="Which device names are one board; default: aihub_boards.csv beside the table of timings.")
    ] = None,
    donor: Annotated[str | None, typer.Option(help="Device whose timing of the tested network is known.")] = None,
    runtime: Annotated[str, typer.Option(help="qnn or tflite.")] = "qnn",
    predictor: Annotated[str, typer.Option(help="Latency predictor under test.")] = "physical",
    seed: Annotated[int, typer.Option(help="Of the draws of few:K.")] = 0,
    form: Format = "json",
) -> None:
    """Refit a latency model inside a protocol and say how wrong it is on networks that it never saw."""
    from nas.bench.aihub import classifiers, graphs_of, read_models, read_table, repeats_within_pct, samples_of
    from nas.bench.latency_models import run_baselines, run_protocol, splits_of
    from nas.devices.predictor import predictors
    from nas.devices.scores import score
    from nas.errors import UsageError

    if graphs is not None and not graphs.is_dir():
        raise UsageError(f"graphs: no such folder, got {str(graphs)!r}.")
    kind = predictors.get(predictor)
    rows = read_models(models)
    known, families, missing = graphs_of(rows, graphs)
    table = read_table(perf, known, runtime, boards)
    name, other = table.device(device), table.device(donor) if donor else None
    if other == name:
        raise UsageError(f"donor: is the device itself (or the same data), got {donor!r}. Expected another device.")
    # quantised precisions take their prior from fp16; few-shot splits leave the device's other precisions out
    related = {precision} if precision == "fp16" else {precision, "fp16"}
    samples = [
        s for s in samples_of(table, known, families) if s.precision in related and not (s.device == name and s.precision != precision)
    ]
    listed = {row["aihub_model"] for row in rows}
    tested = (
        [*classifiers(rows), *(file.stem for file in sorted(graphs.glob("*.onnx")) if file.stem not in listed)]
        if graphs
        else classifiers(rows)
    )
    splits = list(splits_of(samples, name, tested, protocol, other, seed, precision))
    predictions = run_protocol(kind, splits, name, precision, other)
    if not predictions:
        raise UsageError(f"donor: {donor} timed none of the tested networks at {precision}.")
    result: dict[str, Any] = {
        "protocol": protocol if donor is None else f"{protocol}, donor {other}",
        "device": name,
        "precision": precision,
        "runtime": runtime,
        "predictor": predictor,
        "seed": seed,
        **score(predictions).dump(),
        "baselines": run_baselines(splits, name, precision),
        "repeats_within_pct": repeats_within_pct(table, name, precision),
        "without_graph": missing,
        "notes": list(table.notes),
    }
    write(result, form, _render)


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines, print_table

    shown = [
        [
            n["name"],
            f"{n['measured_ms']:.3f}",
            f"{n['latency_ms']:.3f}",
            f"{n['lower_ms']:.3f} … {n['upper_ms']:.3f}",
            f"{100 * (n['latency_ms'] / n['measured_ms'] - 1):+.1f} %",
        ]
        for n in sorted(result["networks"], key=lambda n: -abs(n["latency_ms"] / n["measured_ms"] - 1))
    ]
    print_table("", ["network", "measured ms", "estimated ms", "90 % interval", "error"], shown)
    low, high = result["mean_error_interval_pct"]
    lines = [
        f"{result['device']} {result['precision']} {result['runtime']}, {result['protocol']}: {result['networks_tested']} networks",
        f"mean error {result['mean_error_pct']:.1f} % (bootstrap {low:.1f} to {high:.1f}), median {result['median_error_pct']:.1f} %, "
        f"{result['within_10_pct']:.0f} % within 10 %, coverage {result['coverage_pct']:.0f} %, half-width {result['halfwidth_pct']:.0f} %",
        *(f"{name}: mean {found['mean_error_pct']:.1f} % over {found['answered']}" for name, found in result["baselines"].items()),
        *result["notes"],
    ]
    print_lines(lines)
