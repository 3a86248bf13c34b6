"""``nas systems``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results import SystemEntry


def command(
    name: Annotated[str | None, typer.Argument(help="Part of a system's name; by default every system.", metavar="[NAME]")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="Only systems of this kind: attention, channel mixer, convolution, frequency, latency method, macro design, pruning, quantisation, "
            "recipe, reparameterisation, search, stitching or token reduction.",
        ),
    ] = None,
    built: Annotated[bool, typer.Option("--built", help="Only systems that are built here, in part or whole.")] = False,
    form: Format = "table",
) -> None:
    """List the published systems that this project follows, and what is built here of each."""
    from nas import api
    from nas.errors import UnknownNameError

    rows = api.list_systems()
    if kind is not None:
        if kind not in (kinds := {row.kind for row in rows}):
            raise UnknownNameError("kind", kind, kinds)
        rows = tuple(row for row in rows if row.kind == kind)
    rows = tuple(row for row in rows if row.parts or not built)
    if name is not None and not (rows := tuple(row for row in rows if name.lower() in row.system.lower())):
        raise UnknownNameError("system", name, {row.system for row in api.list_systems()})
    write(rows, form, _print)


def _print(rows: Sequence[SystemEntry]) -> None:
    from nas.report.tables import print_lines, print_table

    body = [
        [row.number, row.system, row.priority, row.grade or "", str(row.networks or ""), ", ".join(row.parts) or row.note] for row in rows
    ]
    print_table("", ["", "system", "", "NPU", "networks", "parts"], body)
    count = sum(bool(row.parts) for row in rows)
    print_lines([f"{len(rows)} systems, {count} of them built; {sum(row.networks for row in rows)} published networks counted"])
