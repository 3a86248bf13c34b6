"""``nas studies``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, StorageTimeout, write

if TYPE_CHECKING:
    from nas.results import StudySummary


def command(
    storage: Annotated[str, typer.Option("--storage", help="URL of a database, or path of a journal.")],
    storage_timeout: StorageTimeout = 60.0,
    form: Format = "table",
) -> None:
    """List the searches that a storage holds: status, space, devices, evaluations, best."""
    from nas.searching.address import keep_password
    from nas.searching.storage import open_backend
    from nas.searching.studies import summaries

    write(summaries(open_backend(keep_password(storage), create=False, timeout_s=storage_timeout)), form, _print)


def _print(summaries: list[StudySummary]) -> None:
    from nas.report.tables import Column, print_lines, print_table

    if not summaries:
        print_lines(["no study"])
        return
    columns = [
        *(Column("study"), Column("status", 1), Column("space", 4), Column("devices", 5), Column("evaluations", 3), Column("proposals", 6)),
        *(Column("workers", 7), Column("best", 2)),
    ]
    rows = [
        (
            summary.study,
            summary.status,
            summary.space,
            " ".join(summary.devices),
            str(summary.evaluations),
            str(summary.proposals),
            str(summary.workers),
            "-" if summary.best is None else f"{summary.best:.2f}",
        )
        for summary in summaries
    ]
    print_table("", columns, rows)
