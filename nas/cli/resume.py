"""``nas resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Format, progress, write


def command(run: Annotated[Path, typer.Argument(help="Run directory.", metavar="DIR")], form: Format = "table") -> None:
    """Continue a run where it stopped; print the result of a finished one."""
    from nas.report.results import print_result
    from nas.runs.lifecycle import resume

    with progress() as bus:
        result = resume(run, bus)
    write(result, form, print_result)
