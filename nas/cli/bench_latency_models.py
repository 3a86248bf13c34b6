"""``nas bench latency-models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import ModelScores

if TYPE_CHECKING:
    from nas.bench.aihub import Table
    from nas.devices.predictor import Sample


def command(
    perf: Annotated[Path, typer.Option(help="Table of timings (AI Hub's columns), CSV or CSV.gz.")],
    models: Annotated[Path, typer.Option(help="Table of the models that can be rebuilt (aihub_models.csv).")],
    device: Annotated[str, typer.Option(help="Device, by any of its names in the table.")],
    precision: Annotated[Literal["fp16", "w8a16", "w8a8"], typer.Option(help="Precision of the timings.")] = "fp16",
    graphs: Annotated[
        Path | None, typer.Option(help="Folder of NAME.onnx files, named as in the table; these replace the committed graphs.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="release:DATE (fit what was known before, predict networks first timed later), lineage (no network of its lineage), "
            "loo, family, or few:K: K timings on the device, all else of it unseen."
        ),
    ] = "lineage",
    task: Annotated[
        Literal["single-image", "classification"], typer.Option(help="Networks to test; the others only calibrate.")
    ] = "single-image",
    lineages: Annotated[
        Path | None,
        typer.Option(
            help="CSV file network,lineage,reason; a network without a row is a lineage of its own. Default: the committed table."
        ),
    ] = None,
    boards: Annotated[
        Path | None, typer.Option(help="Table of device names that mean one board; default: aihub_boards.csv beside the timings.")
    ] = None,
    donor: Annotated[
        str | None, typer.Option(help="Device whose timing of the tested network is known to the model; default: none.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="qnn or tflite.")] = "qnn",
    predictor: Annotated[str, typer.Option(help="Latency predictor under test.")] = "physical",
    seed: Annotated[int, typer.Option(help="Seed of the draws of few:K.")] = 0,
    form: Format = "json",
) -> None:
    """Refit a latency model by a published protocol and report its errors on networks left out."""
    from nas.bench.aihub import classifiers, graphs_of, read_models, read_table, repeats_within_pct, samples_of, single_images
    from nas.bench.latency_models import release_date, run_baselines, run_protocol, splits_of
    from nas.bench.lineages import lineage_of, read_lineages
    from nas.devices.predictor import predictors
    from nas.devices.scores import score
    from nas.errors import UsageError
    from nas.results.listings import ModelScores

    if graphs is not None and not graphs.is_dir():
        raise UsageError(f"graphs: no such folder, got {str(graphs)!r}.")
    kind = predictors.get(predictor)
    rows = read_models(models)
    known, families, missing = graphs_of(rows, graphs)
    table = read_table(perf, known, runtime, boards)
    name, other = table.device(device), table.device(donor) if donor else None
    if other == name:
        raise UsageError(f"donor: is the device itself (or the same data), got {donor!r}. Expected another device.")
    listed_lineages = read_lineages(lineages)
    lineage = {n: lineage_of(n, listed_lineages) for n in known}
    # quantised precisions take their prior from fp16; few-shot splits leave the device's other precisions out
    related = {precision} if precision == "fp16" else {precision, "fp16"}

    def usable(timings: Table) -> list[Sample]:
        chosen = [s for s in samples_of(timings, known, families) if s.precision in related]
        return [s for s in chosen if s.precision == precision or s.device != name] if protocol.startswith("few") else chosen

    day = release_date(protocol)
    before = usable(read_table(perf, known, runtime, boards, before=day)) if day else None
    classes = {*classifiers(rows), *(set(known) - {row["aihub_model"] for row in rows} if graphs else ())}
    tested = [n for n in single_images(known) if task == "single-image" or n in classes]
    splits = list(splits_of(usable(table), name, tested, protocol, other, seed, precision, lineage, before))
    predictions = run_protocol(kind, splits, name, precision, other)
    if not predictions:
        raise UsageError(f"donor: {donor} timed none of the tested networks at {precision}.")
    result = ModelScores(
        protocol=protocol if donor is None else f"{protocol}, donor {other}",
        device=name,
        precision=precision,
        runtime=runtime,
        predictor=predictor,
        seed=seed,
        **score(predictions, groups=lineage).dump(),
        baselines=run_baselines(splits, name, precision),
        repeats_within_pct=repeats_within_pct(table, name, precision),
        without_graph=tuple(missing),
        notes=tuple(table.notes),
    )
    write(result, form, _render)


def _render(result: ModelScores) -> None:
    from nas.report.tables import print_lines, print_table

    shown = [
        [
            n.name,
            f"{n.measured_ms:.3f}",
            f"{n.latency_ms:.3f}",
            f"{n.lower_ms:.3f} … {n.upper_ms:.3f}",
            f"{100 * (n.latency_ms / n.measured_ms - 1):+.1f} %",
        ]
        for n in sorted(result.networks, key=lambda n: -abs(n.latency_ms / n.measured_ms - 1))
    ]
    print_table("", ["network", "measured ms", "estimated ms", "90 % interval", "error"], shown)
    low, high = result.mean_error_interval_pct
    lines = [
        f"{result.device} {result.precision} {result.runtime}, {result.protocol}: {result.networks_tested} networks "
        f"of {result.lineages_tested} lineages",
        f"mean error {result.mean_error_pct:.1f} % (bootstrap {low:.1f} to {high:.1f}), median {result.median_error_pct:.1f} %, "
        f"{result.within_10_pct:.0f} % within 10 %, coverage {result.coverage_pct:.0f} %, "
        f"{result.above_upper_pct:.0f} % above the upper end, half-width {result.halfwidth_pct:.0f} %",
        *(f"{name}: mean {figures['mean_error_pct']:.1f} % over {figures['answered']}" for name, figures in result.baselines.items()),
        *result.notes,
    ]
    print_lines(lines)
