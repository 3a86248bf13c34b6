"""The user's device folder: what may be written into it, and how.

A profile may come from a stranger. Nothing that it says decides where a file is written: names are plain, and files are put in place in one step,
over a link rather than through it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nas.devices.names import config_home, find_profile, is_plain_name, profile_files
from nas.devices.profile import read_profile
from nas.errors import ArtifactError, UsageError, one_line


def checked_name(name: str) -> str:
    """Return a device's name.

    Raises:
        UsageError: It cannot be one.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) or not is_plain_name(name):
        raise UsageError(f"device: not a name, got {name!r}. Expected lower-case letters, digits, dots and hyphens.")
    return name


def add_profile(profile: Path, name: str | None = None) -> tuple[str, Path, list[str]]:
    """Check a profile and put it, with the fitted artifacts that lie next to it, into the user's device folder.

    Args:
        profile: Its file.
        name: Of the device; the file's stem by default.

    Returns:
        The device's name, its file, and the names of the artifacts.

    Raises:
        UsageError: The profile is wrong, its name is taken, or an artifact of its name is there already.
        ArtifactError: The folder cannot be written.
    """
    found = read_profile(profile)
    device = checked_name((name or profile.stem).lower())
    if device in profile_files():
        raise UsageError(f"device: the name is taken, got {device!r} ({find_profile(device)}). Do this: give another --name.")
    room = config_home() / "devices"
    named = sorted({at.artifact for at in found.precisions.values() if at.artifact})
    artifacts = [artifact for artifact in named if (profile.parent / artifact).is_file()]
    for artifact in artifacts:
        if (profile.parent / artifact).resolve().parent != profile.parent.resolve():
            raise UsageError(
                f"device {device}: its artifact is a link out of its folder, got {artifact!r}. Do this: put the file itself there."
            )
        if (room / artifact).is_file() and (room / artifact).read_bytes() != (profile.parent / artifact).read_bytes():
            raise UsageError(f"device {device}: another artifact of that name is in {room}, got {artifact!r}. Do this: rename it.")
    files = {artifact: (profile.parent / artifact).read_bytes() for artifact in artifacts}
    write_whole(room, {**files, f"{device}.toml": _renamed(profile.read_text(encoding="utf-8"), device).encode()})
    return device, room / f"{device}.toml", artifacts


def write_whole(room: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, each whole or not at all; all are written before the first is put in place.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    token = secrets.token_hex(4)
    parts = {name: room / f".{token}.{i}.part" for i, name in enumerate(files)}
    try:
        room.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            with parts[name].open("xb") as stream:
                stream.write(data)
        for name, part in parts.items():
            os.replace(part, room / name)
    except OSError as error:
        raise ArtifactError(f"device folder {one_line(room)}: cannot be written ({error.strerror}).") from None
    finally:
        for part in parts.values():
            with suppress(OSError):  # a room that is no folder has none
                part.unlink(missing_ok=True)


def _renamed(text: str, device: str) -> str:
    """Return a profile's text under another name, where it states one."""
    head, bracket, tables = text.partition("\n[")
    return re.sub(r"(?m)^name\s*=.*$", f'name = "{device}"', head) + bracket + tables
