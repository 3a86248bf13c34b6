"""``nas devices add``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import AddedDevice


def command(
    profile: Annotated[Path, typer.Argument(help="Profile to add.", metavar="FILE.toml")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the device; default: the file's name without its ending.")] = None,
    form: Format = "table",
) -> None:
    """Check a profile and copy it, with its fitted coefficients, into the user's device folder."""
    from nas.devices.device_folder import add_profile
    from nas.results.listings import AddedDevice

    device, target, artifacts = add_profile(profile, name)
    write(AddedDevice(name=device, path=str(target), artifacts=tuple(artifacts)), form, _render)


def _render(result: AddedDevice) -> None:
    from nas.report.tables import print_lines

    print_lines([f"{result.name} is known now: {result.path}"])
