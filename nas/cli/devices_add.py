"""``nas devices add``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli._options import Format, write


def command(
    profile: Annotated[Path, typer.Argument(help="The profile's .toml file.", metavar="FILE.toml")],
    name: Annotated[str | None, typer.Option("--name", help="Device name; default: the file's stem.")] = None,
    form: Format = "table",
) -> None:
    """Check a profile and put it, with its fitted artifacts, into the user's device folder."""
    import re
    import shutil

    from nas.devices.profile import config_home, profile_files, read_profile
    from nas.errors import UsageError

    found = read_profile(profile)
    device = (name or profile.stem).lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", device):
        raise UsageError(f"device: not a name, got {device!r}. Expected lower-case letters, digits, dots and hyphens.")
    if device in profile_files():
        raise UsageError(f"device: the name is taken, got {device!r} ({profile_files()[device]}). Do this: give another --name.")
    room = config_home() / "devices"
    room.mkdir(parents=True, exist_ok=True)
    artifacts = sorted({at.artifact for at in found.precisions.values() if at.artifact and (profile.parent / at.artifact).is_file()})
    for artifact in artifacts:
        if (room / artifact).exists() and (room / artifact).read_bytes() != (profile.parent / artifact).read_bytes():
            raise UsageError(f"device {device}: another artifact of that name is in {room}, got {artifact!r}. Do this: rename it.")
        shutil.copyfile(profile.parent / artifact, room / artifact)
    target = room / f"{device}.toml"
    shutil.copyfile(profile, target)
    write({"name": device, "path": str(target), "artifacts": artifacts}, form, _render)


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines

    print_lines([f"{result['name']} is known now: {result['path']}"])
