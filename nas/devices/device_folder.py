"""The user's device folder: what may be written into it, and how.

A profile may come from a stranger. Nothing that it says decides where a file is written: names are plain, and files are put in place in one step,
over a link rather than through it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nas.devices.names import config_home, find_profile, is_plain_name, profile_files
from nas.devices.profile import read_profile
from nas.errors import ArtifactError, UsageError, one_line

log = logging.getLogger(__name__)

_LIST = ".files.json"
"""How a list of files ends that are written and not yet all in place."""


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
    added = read_profile(profile)
    device = checked_name((name or profile.stem).lower())
    if device in profile_files():
        raise UsageError(f"device: the name is taken, got {device!r} ({find_profile(device)}). Do this: give another --name.")
    room = config_home() / "devices"
    named = sorted({at.artifact for at in added.precisions.values() if at.artifact})
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
    """Write files into a folder, each whole, and all of them or none.

    All are written before the first is put in place, and a list of them. Who is cut off between two is finished by the next who writes there.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    token = secrets.token_hex(4)
    parts = {f".{token}.{i}.part": name for i, name in enumerate(files)}
    listed, draft = room / f".{token}{_LIST}", room / f".{token}.list.part"
    try:
        room.mkdir(parents=True, exist_ok=True)
        finish_cut_off(room)
        for part, name in parts.items():
            with (room / part).open("xb") as stream:
                stream.write(files[name])
        draft.write_text(json.dumps(parts), encoding="utf-8")
        os.replace(draft, listed)
        _put_in_place(room, listed)
    except OSError as error:
        raise ArtifactError(f"device folder {one_line(room)}: cannot be written ({error.strerror}).") from None
    finally:
        for part in () if listed.exists() else (*parts, draft.name):
            with suppress(OSError):  # a room that is no folder has none
                (room / part).unlink(missing_ok=True)


def finish_cut_off(room: Path) -> None:
    """Put the files in place that somebody had written and listed when they were cut off, and say so."""
    for listed in sorted(room.glob(f".*{_LIST}")) if room.is_dir() else ():
        names = _put_in_place(room, listed)
        log.warning("device folder %s: was cut off while it was written; finished: %s", one_line(room), ", ".join(names))


def _put_in_place(room: Path, listed: Path) -> list[str]:
    try:
        parts = {str(part): str(name) for part, name in json.loads(listed.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise ArtifactError(f"device folder: damaged list, got {one_line(listed)}. Do this: remove it.") from None
    for part, name in parts.items():
        if Path(part).name != part or not is_plain_name(name):
            raise ArtifactError(
                f"device folder: {one_line(listed)} names no file of the folder, got {one_line(name)!r}. Do this: remove it."
            )
        with suppress(FileNotFoundError):  # in place already
            os.replace(room / part, room / name)
    listed.unlink(missing_ok=True)
    return sorted(parts.values())


def _renamed(text: str, device: str) -> str:
    """Return a profile's text under another name, where it states one."""
    head, bracket, tables = text.partition("\n[")
    return re.sub(r"(?m)^name\s*=.*$", f'name = "{device}"', head) + bracket + tables
