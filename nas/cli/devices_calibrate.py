"""``nas devices calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Base, Format, Precision, write

if TYPE_CHECKING:
    from nas.results import Calibrated


def command(
    name: Annotated[str, typer.Argument(help="Name of the new device.", metavar="NAME")],
    timings: Annotated[
        Path,
        typer.Option(
            "--from",
            help="CSV file with the columns network, latency_ms and, if wanted, precision. A network is a published name, an .onnx file or an architecture file.",
        ),
    ],
    base: Base = "sa8295p",
    precision: Precision = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the profile; default: the user's device folder.", metavar="DIR")] = None,
    form: Format = "table",
) -> None:
    """Make a profile of your own device from a few timings, and report its errors on networks left out of the fit."""
    from nas import api

    write(api.calibrate(name, timings, base=base, precision=precision, to=to), form, _print)


def _print(result: Calibrated) -> None:
    from nas.report.tables import print_lines, print_table

    for precision, scores in result.precisions.items():
        rows = [[n.name, f"{n.measured_ms:.3f}", f"{n.latency_ms:.3f}", f"{n.lower_ms:.3f} … {n.upper_ms:.3f}"] for n in scores.networks]
        print_table(
            f"{precision}, each network predicted without its own timing", ["network", "measured ms", "predicted ms", "90 % interval"], rows
        )
        print_lines(
            [
                f"held out: mean error {scores.mean_error_pct:.1f} %, median {scores.median_error_pct:.1f} %, "
                f"{scores.coverage_pct:.0f} % inside the 90 % interval, over {scores.networks_tested} networks"
            ]
        )
    if result.quantity != "latency":
        print_lines(
            [
                f"{result.base} states throughput, so the timings are taken for milliseconds a frame at full load (1000 / frames a second), not for "
                "latencies. Are they latencies, do this: remove the profile and name a --base that states latency, such as sa8295p."
            ]
        )
    print_lines([*(f"left out as broken: {line}" for line in result.broken), f"{result.name} is known now: {result.path}"])
