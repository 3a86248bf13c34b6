"""Tables for people, on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stdout_console() -> Console:
    """Return a console on stdout; a pipe gets plain text wide enough for every table."""
    import sys

    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None) -> None:
    """Print one table; columns that hold numbers only are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    body = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(body) and all(not row[i] or row[i][0] in "0123456789.-–<>≤≥×" for row in body)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))  # what a file or a user wrote is no markup
    (console or stdout_console()).print(table)


def print_lines(lines: Iterable[str], console: Console | None = None) -> None:
    """Print lines as they are."""
    target = console or stdout_console()
    for line in lines:
        target.print(line, markup=False, soft_wrap=True)
