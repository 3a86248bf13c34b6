"""``nas devices update``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, device_names, write

if TYPE_CHECKING:
    from nas.results.listings import PrecisionMoved, Updated

_SHOWN = 3  # networks a device; by hand: what fits a terminal


def command(
    source: Annotated[
        Path, typer.Option("--from", help="A wheel of qai-hub-models, or a folder of its perf.yaml files.", metavar="WHEEL|DIR")
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device", help="Update only this device; default: all; may be given several times.", metavar="D", autocompletion=device_names
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the profiles; default: the user's folder of updates.", metavar="DIR")] = None,
    form: Format = "table",
) -> None:
    """Update profiles with newer timings of Qualcomm AI Hub, and list what changed. Shipped profiles stay as they are."""
    from nas import api

    write(api.update_devices(source, devices=device or (), to=to), form, _print)


def _print(result: Updated) -> None:
    from nas.report.tables import print_lines, print_table

    rows = [
        [
            row.device,
            row.precision,
            f"{row.before.removeprefix('QAIRT ') or '–'} → {row.after.removeprefix('QAIRT ')}",
            str(row.n),
            f"{row.factor:.3f}",
            f"{row.start_ms:+.3f}",
            str(row.carried),
            _largest(row),
        ]
        for row in result.moved
    ]
    print_table("What moved", ["device", "precision", "QAIRT", "n", "factor", "start ms", "carried", "moved most, ms"], rows)
    n, source = len(result.paths), f"{result.source} {result.release}".rstrip()
    lines = [f"{n} {'profile' if n == 1 else 'profiles'} updated from {source}: {Path(next(iter(result.paths.values()))).parent}"]
    if any(row.carried for row in result.moved):
        widest = max(row.halfwidth_pct or 0.0 for row in result.moved)
        lines.append(
            f"carried: timed before and not again, now estimated as factor × ms + start, ±{widest:.0f} % at most; estimates move alike. "
            "In a replay on QAIRT 2.50 89 to 97 % lay within such intervals"
        )
    if result.older:
        lines.append(f"nothing newer in the table, unchanged: {', '.join(result.older)}")
    if result.unknown_devices:
        lines.append(f"no profile for {', '.join(result.unknown_devices)}")
    if result.unknown_networks:
        lines.append(f"no graph for {', '.join(result.unknown_networks)}")
    print_lines(lines)


def _largest(row: PrecisionMoved) -> str:
    """Return the networks that moved most, before and after."""
    moved = sorted((n for n in row.networks if n.change_pct is not None), key=lambda n: -abs(n.change_pct or 0.0))[:_SHOWN]
    return ", ".join(f"{n.network} {n.before_ms:g} → {n.ms:g}" for n in moved)
