"""``nas resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Format, progress, write


def command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="DIR")],
    data: Annotated[str | None, typer.Option("--data", help="The run's data, if they lie elsewhere by now.")] = None,
    supernet: Annotated[str | None, typer.Option("--supernet", help="The weights that it started from, if they lie elsewhere.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Its storage, if that has another address by now.")] = None,
    runner: Annotated[str, typer.Option("--runner", help="Command that times {onnx} on the device, in place of the run's own.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Let the run's own --runner command be executed.")] = False,
    form: Format = "table",
) -> None:
    """Continue a run where it stopped; print the result of a finished one."""
    from nas.report.results import print_result
    from nas.runs.lifecycle import resume

    with progress() as bus:
        result = resume(run, bus, runner=runner, yes=yes, data=data, supernet=supernet, storage=storage)
    write(result, form, print_result)
