"""``nas show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results import ModelFile


def command(
    run: Annotated[Path, typer.Argument(help="Run directory, or a model file.", metavar="DIR|FILE")], form: Format = "table"
) -> None:
    """Show a run, running or finished: phase, evaluations, best, front, time left. Of a model file, show its metadata."""
    if run.suffix and not run.is_dir():
        from nas.exporting.reading import read_model_file

        write(read_model_file(run), form, _print_file)
        return
    from nas.report.results import print_result
    from nas.runs.lifecycle import show

    write(show(run), form, print_result)


_MOST = 12
"""Entries of a list that are shown. Set by hand."""


def _print_file(result: ModelFile) -> None:
    from nas.report.tables import Column, print_lines, print_table

    print_lines([f"{result.path}: {result.format}, {result.size_bytes / 1e6:.2f} MB"])
    rows = [row for key, value in result.facts.items() for row in _rows(key, value)]
    print_table("", ["what", Column("value", text=True)], rows)


def _rows(key: str, value: str) -> list[list[str]]:
    """Return a fact as rows: one for each entry of what is written as JSON."""
    import json

    try:
        data = json.loads(value)
    except ValueError:
        return [[key, value]]
    if isinstance(data, dict):
        return [[f"{key}: {name}", _text(entry)] for name, entry in data.items()]
    return [[key, _text(data) if isinstance(data, list) else value]]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return " ".join(map(_text, value[:_MOST])) + (f" … ({len(value)} in all)" if len(value) > _MOST else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
