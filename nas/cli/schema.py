"""``nas schema``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="A command (search, predict, …) or a record (Result, Point, …).", metavar="NAME")],
) -> None:
    """Print the JSON Schema of what a command prints with --format json."""
    from nas import results
    from nas.errors import UnknownNameError
    from nas.results import listings

    known, commands = results.schemas() | listings.schemas(), results.COMMANDS | listings.COMMANDS
    record = commands.get(name.replace(" ", "-"), name)
    if record not in known:
        raise UnknownNameError("schema", name, {*commands, *known})
    typer.echo(json.dumps(known[record].model_json_schema(), indent=2, ensure_ascii=False))
