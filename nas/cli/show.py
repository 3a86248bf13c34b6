"""``nas show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Format, write


def command(run: Annotated[Path, typer.Argument(help="Run directory.", metavar="DIR")], form: Format = "table") -> None:
    """Show a run, also while it works: phase, evaluations, best, front, time left."""
    from nas.report.results import print_result
    from nas.runs.lifecycle import show

    write(show(run), form, print_result)
