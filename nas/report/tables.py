"""Tables for people, on stdout: they fit the terminal by leaving columns out; a pipe gets them plain and whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
"""Blanks between columns. Set by hand."""

_NARROWEST_TEXT = 24  # characters; by hand
_NUMERIC = "0123456789.-+–<>≤≥×"

_whole = False


def show_whole_tables(wanted: bool = True) -> None:
    """Keep every column from now on, however narrow the terminal is (``--wide``)."""
    global _whole  # noqa: PLW0603 - one command line a process
    _whole = wanted


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        head: What stands over it.
        priority: 0 for what is always shown; of the others the largest is left out first, and of equals the one further right.
        text: Whether it is prose, which may go over several lines; anything else stays whole.
    """

    head: str
    priority: int = 0
    text: bool = False


def stdout_console() -> Console:
    """Return a console on stdout, as wide as its terminal; for a pipe it writes no escapes and breaks no line."""
    import sys

    from rich.console import Console

    return Console(highlight=False, width=width_of(sys.stdout))


def width_of(stream: TextIO) -> int:
    """Return the columns of the terminal that a stream goes to; what is no terminal has room for any line."""
    import os

    if not stream.isatty():
        return 100_000
    stated = os.environ.get("COLUMNS", "")
    try:
        columns = int(stated) if stated.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a terminal that does not say
        columns = 0
    return columns or 80


def print_table(title: str, columns: Sequence[Column | str], rows: Iterable[Sequence[str]], console: Console | None = None) -> None:
    """Print one table; columns that hold numbers only are right-aligned.

    In a terminal that is too narrow columns are left out by their priority, and one line names them. Where not even the others fit, each row
    becomes a few lines. Nothing but prose is ever broken.
    """
    target = console or stdout_console()
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    body = [[str(cell) for cell in row] for row in rows]
    fits = not target.is_terminal or _whole
    shown = list(range(len(heads))) if fits else _fitting(heads, body, target.width)
    if not fits and _width(heads, body, shown) > target.width:
        _print_stacked(title, heads, body, shown, target)
    else:
        _print_grid(title, heads, body, shown, target)
    left_out = [heads[i].head for i in range(len(heads)) if i not in shown and any(row[i] for row in body)]
    if left_out:
        print_lines([f"left out for the terminal's width: {', '.join(left_out)} (--wide)"], target)


def _fitting(heads: Sequence[Column], body: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns that are shown: those with a value, less the least important ones until the rest fits."""
    shown = [i for i, head in enumerate(heads) if not head.priority or any(row[i] for row in body) or not body]
    while _width(heads, body, shown) > width:
        least = max(shown, key=lambda i: (heads[i].priority, i))
        if not heads[least].priority:
            break
        shown.remove(least)
    return shown


def _width(heads: Sequence[Column], body: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    return sum(_least(heads[i], [row[i] for row in body]) for i in shown) + _GAP * (len(shown) - 1)


def _least(head: Column, cells: Sequence[str]) -> int:
    """Return the least width of a column: its longest cell, or word where it is prose; a head may be broken between words."""
    longest = max(map(len, cells), default=0)
    if head.text:
        longest = min(longest, max([_NARROWEST_TEXT, *(len(word) for cell in cells for word in cell.split())]))
    return max([longest, *map(len, head.head.split())])


def _print_grid(title: str, heads: Sequence[Column], body: Sequence[Sequence[str]], shown: Sequence[int], console: Console) -> None:
    whole = not console.is_terminal or _whole
    cells = {i: [row[i] for row in body] for i in shown}
    if whole:
        widths = {i: max(map(len, [heads[i].head, *cells[i]])) for i in shown}
    else:
        widths = {i: _least(heads[i], cells[i]) for i in shown}
        room = console.width - _width(heads, body, shown)
        for i in shown:  # prose takes the room that is left, else heads do
            wanted = max(map(len, [heads[i].head, *cells[i]])) - widths[i]
            more = min(room, wanted) if heads[i].text else 0
            widths[i], room = widths[i] + more, room - more
    right = {i for i in shown if body and any(cells[i]) and all(not cell or cell[0] in _NUMERIC for cell in cells[i])}
    if title:
        _print_bold([title, ""], console)
    _print_bold(_row_lines([heads[i].head for i in shown], shown, widths, right), console)
    lines = ["─" * (sum(widths.values()) + _GAP * (len(shown) - 1))]
    for row in body:
        lines += _row_lines([row[i] for i in shown], shown, widths, right)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _row_lines(texts: Sequence[str], shown: Sequence[int], widths: Mapping[int, int], right: Collection[int]) -> list[str]:
    """Return a row as lines: more than one where a text is longer than its column."""
    import textwrap

    cells = [
        textwrap.wrap(text, widths[i], break_long_words=False, break_on_hyphens=False) if len(text) > widths[i] else [text]
        for i, text in zip(shown, texts, strict=True)
    ]
    lines = []
    for at in range(max(map(len, cells))):
        parts = [cell[at] if at < len(cell) else "" for cell in cells]
        padded = [part.rjust(widths[i]) if i in right else part.ljust(widths[i]) for i, part in zip(shown, parts, strict=True)]
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines


def _print_bold(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True, style="bold" if console.is_terminal else None)


def _print_stacked(title: str, heads: Sequence[Column], body: Sequence[Sequence[str]], shown: Sequence[int], console: Console) -> None:
    if title:
        print_lines([title, ""], console)
    for row in body:
        print_lines([row[shown[0]]], console)
        print_lines(["  " + ", ".join(f"{heads[i].head} {row[i]}" for i in shown[1:] if row[i])], console)


def print_lines(lines: Iterable[str], console: Console | None = None) -> None:
    """Print lines as they are; a terminal gets them broken between words, with what follows indented."""
    import textwrap

    target = console or stdout_console()
    for line in lines:
        if target.is_terminal and len(line) > target.width:
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            broken = textwrap.wrap(
                line, target.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
            )
        else:
            broken = [line]
        for part in broken:
            target.print(part, markup=False, soft_wrap=True)
