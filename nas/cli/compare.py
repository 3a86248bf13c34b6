"""``nas compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import RunSummary


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, two or more.", metavar="RUN RUN…")],
    to: Annotated[Path | None, typer.Option("--to", help="Page of charts and tables to write; default: none.", metavar="FILE.html")] = None,
    form: Format = "table",
) -> None:
    """Compare runs: the choice of each, its accuracy and latency, the number of evaluations and the time."""
    from nas import api

    write(list(api.compare(runs, to=to)), form, _print)


def _print(rows: list[RunSummary]) -> None:
    from nas.report.tables import Column, print_table

    devices = list(dict.fromkeys(device for row in rows for device in row.devices))
    columns = [Column("run"), Column("network", 1), Column("top-1 %", 1), *(Column(f"on {device}", 2) for device in devices)]
    columns += [Column("space", 3), Column("status", 4), Column("front", 5), Column("evaluations", 6), Column("seconds", 7)]
    body = []
    for row in rows:
        at = [row.devices.get(device) for device in devices]
        latencies = ["" if one is None else f"{one.shown[0]} {one.unit} ({one.shown[1]})" for one in at]
        accuracy = "" if row.accuracy_pct is None else f"{row.accuracy_pct:.2f}"
        numbers = [str(row.front_size), str(row.evaluations), f"{row.seconds:.0f}"]
        body.append([row.run, row.network or "", accuracy, *latencies, row.space or "", row.status, *numbers])
    print_table("", columns, body)
