"""``nas spaces references``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results import Reference


def command(
    system: Annotated[str | None, typer.Option("--system", help="Only this system.")] = None,
    form: Format = "table",
) -> None:
    """List the published networks that are built here, in their deploy form."""
    from nas import api
    from nas.errors import UnknownNameError

    rows = api.list_references()
    if system is not None:
        wanted = _plain(system)
        matching = tuple(row for row in rows if wanted in (_plain(row.system), *map(_plain, row.system.split("/"))))
        if not matching:
            raise UnknownNameError("system", system, {row.system for row in rows})
        rows = matching
    write(rows, form, _print)


def _print(rows: Sequence[Reference]) -> None:
    from nas.report.tables import Column, print_lines, print_table

    body = [
        [
            row.name,
            row.system,
            f"{row.macs / 1e6:,.0f}",
            f"{row.params / 1e6:.2f}",
            str(row.resolution),
            "" if row.top1_pct is None else f"{row.top1_pct:.1f}",
        ]
        for row in rows
    ]
    print_table("", ["network", Column("system", 1), "MMACs", "Mparams", Column("px", 2), "top-1 %"], body)
    print_lines([f"{len(rows)} networks of {len({row.system for row in rows})} systems"])


def _plain(system: str) -> str:
    return system.lower().replace(" ", "")
