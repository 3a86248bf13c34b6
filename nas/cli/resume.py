"""``nas resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Format, progress, write


def command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="DIR")],
    data: Annotated[str | None, typer.Option("--data", help="The run's data, if they have moved.")] = None,
    supernet: Annotated[str | None, typer.Option("--supernet", help="The supernet that the run started from, if it has moved.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="The run's storage, if its address has changed.")] = None,
    runner: Annotated[
        str, typer.Option("--runner", help="Command that times the file {onnx} on the device; default: the run's own, which needs --yes.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Allow the run's own --runner command to be executed.")] = False,
    form: Format = "table",
) -> None:
    """Continue a run where it stopped. A finished run prints its result."""
    from nas.report.results import print_result
    from nas.runs.lifecycle import resume

    with progress() as bus:
        result = resume(run, bus, runner=runner, yes=yes, data=data, supernet=supernet, storage=storage)
    write(result, form, print_result)
