"""``nas resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli._options import Format, progress, write


def command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="DIR")],
    runner: Annotated[str, typer.Option("--runner", help="Command that times {onnx} on the device, in place of the run's own.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Let the run's own --runner command be executed.")] = False,
    form: Format = "table",
) -> None:
    """Continue a run where it stopped; print the result of a finished one."""
    from nas.report.results import print_result
    from nas.runs.lifecycle import resume

    with progress() as bus:
        result = resume(run, bus, runner=runner, yes=yes)
    write(result, form, print_result)
