"""``nas bench latency-transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Confidence, Format, Seed, write

if TYPE_CHECKING:
    from nas.results.listings import TransferComparison


def command(
    table: Annotated[Path, typer.Option(help="Latency table: an .npz file with the arrays arch and ms/DEVICE.")],
    test_devices: Annotated[str, typer.Option(help="Devices to predict, separated by commas.")],
    train_devices: Annotated[str, typer.Option(help="Devices whose latencies are known, separated by commas; default: none.")] = "",
    samples: Annotated[int, typer.Option(min=5, help="Timings taken on each device to predict.")] = 10,
    train_samples: Annotated[int | None, typer.Option(min=5, help="Rows from which timings are drawn; default: the whole table.")] = None,
    query: Annotated[
        int | None, typer.Option(min=2, help="Rows to predict, after those of --train-samples; default: the whole table.")
    ] = None,
    trim: Annotated[float, typer.Option(help="Share of the fastest and of the slowest rows to leave out.")] = 0.0,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions.")] = 20,
    confidence: Confidence = 0.9,
    space: Annotated[str, typer.Option(help="Search space of the rows; default: by their spelling.")] = "",
    predictor: Annotated[str, typer.Option(help="Latency predictor under test.")] = "transfer",
    seed: Seed = 0,
    form: Format = "table",
) -> None:
    """Predict devices of a published table from a few timings each, by the protocols of HELP and NASFLAT."""
    from rich.console import Console

    from nas.bench.latency_transfer import TransferProtocol, bench_latency_transfer
    from nas.devices.latency_table import read_latency_table
    from nas.units import checked_confidence

    protocol = TransferProtocol(samples, train_samples, query, trim, repeats, checked_confidence(confidence), seed)
    timings = read_latency_table(table, space)
    split = [[name.strip() for name in text.split(",") if name.strip()] for text in (train_devices, test_devices)]
    console = Console(stderr=True)
    result = bench_latency_transfer(timings, split[0], split[1], protocol, console.print, predictor)
    write(result, form, _render)


def _render(result: TransferComparison) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("device", "ρ", "sd", "ceiling ρ", "τ", "mean %", "median %", "within 10 %", "within 25 %", "coverage %", "± %")
    for name, row in result.devices.items():
        numbers = [f"{value:.3f}" for value in (row.spearman, row.spearman_sd)] + [
            f"{row.ceiling['spearman']:.3f}",
            f"{row.kendall:.3f}",
        ]
        keys = ("mean_error_pct", "median_error_pct", "within_10_pct", "within_25_pct", "coverage_pct", "halfwidth_pct")
        shown.add_row(name, *numbers, *(f"{getattr(row, key):.1f}" for key in keys))
    console = Console()
    console.print(shown)
    plain = ", ".join(f"{name} {row['mean_spearman']:.3f}" for name, row in result.baselines.items())
    console.print(f"mean ρ {result.mean_spearman:.4f} (ceiling {result.mean_ceiling_spearman:.4f}); baselines: {plain}")
    for defect in result.defects:
        console.print(f"note: {defect}", highlight=False)
