"""``nas spaces list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import SpaceRow


def command(
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Build each space and count its choices and members; needs the extra [search].")
    ] = False,
    form: Format = "table",
) -> None:
    """List the search spaces and the purpose of each."""
    from nas.results.listings import SpaceRow
    from nas.spaces.outline import families, outline

    rows: list[SpaceRow] = []
    for family in families():
        summary, presets = outline(family)
        for preset in presets or ("",):
            name = f"{family}-{preset}" if preset else family
            rows.append(_counted(name, summary) if sizes else SpaceRow(name=name, summary=summary))
    write(rows, form, lambda records: _render(records, sizes))


def _counted(name: str, summary: str) -> SpaceRow:
    import math

    from nas.errors import NasError
    from nas.results.listings import SpaceRow
    from nas.spaces.naming import get_space

    try:
        space = get_space(name)
    except NasError as error:
        return SpaceRow(name=name, summary=summary, choices=None, log10_size=None, needs=str(error))
    return SpaceRow(name=name, summary=summary, choices=len(space.choices), log10_size=round(math.log10(space.size()), 9), needs=None)


def _render(rows: list[SpaceRow], sizes: bool) -> None:
    from nas.report.tables import Column, print_lines, print_table

    if sizes:
        body = [[row.name, str(row.choices or ""), _size(row), row.needs or row.summary] for row in rows]
        print_table("", ["space", "choices", "size", Column("what", text=True)], body)
    else:
        print_table("", ["space", Column("what", text=True)], [[row.name, row.summary] for row in rows])
        print_lines(["nas spaces show S says what a space chooses from; --sizes counts all."])


def _size(row: SpaceRow) -> str:
    if row.log10_size is None:
        return ""
    return f"{10**row.log10_size:,.0f}" if row.log10_size < 6 else f"10^{row.log10_size:.0f}"
