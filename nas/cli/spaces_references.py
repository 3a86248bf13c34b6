"""``nas spaces references``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli._options import Format, write


def command(
    system: Annotated[str | None, typer.Option("--system", help="Only this system.")] = None,
    form: Format = "table",
) -> None:
    """List the published networks that are built here, in their deploy form."""
    from nas.errors import UnknownNameError
    from nas.runs.problem import written_resolution
    from nas.spaces.reference import references

    rows: list[dict[str, Any]] = [
        {
            "name": variant.name,
            "system": variant.system,
            "space": name,
            "params": variant.params,
            "macs": variant.macs,
            "resolution": written_resolution(variant.resolution),
            "top1_pct": variant.top1_pct,
        }
        for name, found in references.items()
        for variant in found.variants().values()
    ]
    if system is not None:
        known = {row["system"].lower() for row in rows}
        if system.lower() not in known:
            raise UnknownNameError("system", system, {row["system"] for row in rows})
        rows = [row for row in rows if row["system"].lower() == system.lower()]
    write(rows, form, _render)


def _render(rows: list[dict[str, Any]]) -> None:
    from nas.report.tables import print_lines, print_table

    body = [
        [
            row["name"],
            row["system"],
            f"{row['macs'] / 1e6:,.0f}",
            f"{row['params'] / 1e6:.2f}",
            str(row["resolution"]),
            "" if row["top1_pct"] is None else f"{row['top1_pct']:.1f}",
        ]
        for row in rows
    ]
    print_table("", ["network", "system", "MMACs", "Mparams", "px", "top-1 %"], body)
    print_lines([f"{len(rows)} networks of {len({row['system'] for row in rows})} systems"])
