"""``nas worker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, StorageTimeout, progress, write

if TYPE_CHECKING:
    from nas.results import Contribution


def command(
    storage: Annotated[str, typer.Option("--storage", help="Storage of the search, as given to nas search --storage.")],
    supernet: Annotated[
        Path | None, typer.Option("--supernet", help="The search's trained weights, if they have another path on this machine.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="The search's data, if they have another path on this machine.")] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Name of the search in the storage; default: the only one, else nas.", metavar="NAME")
    ] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a search that has not begun.", metavar="S")] = 3600.0,
    storage_timeout: StorageTimeout = 60.0,
    form: Format = "table",
) -> None:
    """Evaluate candidates for a search that runs in another process, until the search has enough."""
    from nas.runs.worker import work

    with progress() as bus:
        result = work(storage, study=study, supernet=supernet, data=data, wait_s=wait, timeout_s=storage_timeout, bus=bus)
    write(result, form, _print)


def _print(result: Contribution) -> None:
    from nas.report.tables import print_lines

    print_lines([f"{result.evaluations} evaluations, {result.proposals} proposals in {result.storage}"])
