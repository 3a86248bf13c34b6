"""Devices by name: where their profiles lie, and which one a user means. Nothing is validated here, so a wrong name costs nothing."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.errors import NasError, UnknownNameError
from nas.registry import match_name

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # names of devices on Windows, with any ending


def is_plain_name(name: str) -> bool:
    """Return whether a text names a file in a folder, and nothing else, on every system: no path, drive, control character or reserved name."""
    harmless = not any(character in '/\\:<>"|?*' or not character.isprintable() for character in name)
    return harmless and 0 < len(name.encode()) <= 128 and name[0] not in ". -" and name[-1] not in ". " and not _RESERVED.fullmatch(name)


def config_home() -> Path:
    """Return the user's configuration folder."""
    return Path(os.environ.get("NAS_CONFIG_HOME") or Path.home() / ".config" / "nas")


def updates_home() -> Path:
    """Return where profiles are that newer timings were put into: one there goes before a shipped one of its name, unless that is newer."""
    return config_home() / "updates"


def profile_files() -> dict[str, Path]:
    """Return every profile's file by device name, without reading any; of two with one name the first (see `clashes`)."""
    return {name: paths[0] for name, paths in _all_files().items()}


def clashes() -> dict[str, tuple[Path, ...]]:
    """Return the files of every name that is taken more than once; such a name cannot be used, all others can."""
    return {name: tuple(paths) for name, paths in _all_files().items() if len(paths) > 1}


def clash_text(name: str, paths: Sequence[Path]) -> str:
    """Return what is wrong with a name that is taken twice, in one line."""
    return f"device: a name is taken twice, got {name!r} from {paths[0]} and {paths[1]}. Do this: rename or remove {paths[-1]}."


@lru_cache(maxsize=1)
def _foreign_rooms() -> tuple[Path, ...]:
    return tuple(Path(root) for point in entry_points(group="nas.devices") for root in point.load().__path__)


def _all_files() -> dict[str, list[Path]]:
    spec = find_spec("hardware_profiles")
    rooms = [Path(root) for root in (spec.submodule_search_locations if spec else None) or ()]
    rooms += _foreign_rooms()
    rooms.append(config_home() / "devices")
    files: dict[str, list[Path]] = {}
    for room in rooms:
        names = sorted(os.listdir(room)) if room.is_dir() else []
        for name in names:
            if name.endswith(".toml") and not name.startswith("."):
                files.setdefault(name.removesuffix(".toml"), []).append(room / name)
    for name, update in _updates().items():
        others = files.get(name, [])
        if not others or _age(update) >= max(map(_age, others)):
            files[name] = [update]
    return files


def _updates() -> dict[str, Path]:
    room = updates_home()
    names = sorted(os.listdir(room)) if room.is_dir() else []
    return {name.removesuffix(".toml"): room / name for name in names if name.endswith(".toml") and not name.startswith(".")}


def superseded_updates() -> dict[str, Path]:
    """Return the updated profiles that are not used, as a newer one of their name was shipped since."""
    if not (updates := _updates()):
        return {}
    used = _all_files()
    return {name: update for name, update in updates.items() if update not in used[name]}


def superseded_text(name: str, update: Path) -> str:
    """Return what became of an update that is not used, in one line."""
    return f"the profile of {name} that is shipped is newer than its update, which is not used, got {update}. Do this: remove it, or nas devices update"


def version_of(text: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared: of ``QAIRT 2.50.0`` (2, 50, 0); none for a text without digits."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", text))


def _age(path: Path) -> tuple[tuple[int, ...], str]:
    """Return the newest SDK of a profile's timings and when these were retrieved: the larger is the newer."""
    try:
        return _age_as_of(path.stat().st_mtime_ns, path)
    except OSError:
        return (), ""


@lru_cache(maxsize=1024)
def _age_as_of(_changed_ns: int, path: Path) -> tuple[tuple[int, ...], str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    versions = re.findall(r'^runtime_version = "([^"\n]*)"', text, re.MULTILINE)
    retrieved = re.search(r'^retrieved = "([^"\n]*)"', text, re.MULTILINE)
    return max(map(version_of, versions), default=()), retrieved[1] if retrieved else ""


def find_profile(device: str | Path) -> Path:
    """Return the file of a device by path, by name, by an alias, or by a part of these that only one device has.

    Raises:
        UnknownNameError: No such device, or several.
        NasError: Two files have the name.
    """
    text = str(device)
    if text.endswith(".toml") or os.sep in text:
        return Path(text)
    files = _all_files()
    name = text if text in files else device_name(text, {name: paths[0] for name, paths in files.items()})
    first, *others = files[name]
    if others:
        raise NasError(clash_text(name, [first, *others]))
    return first


def device_name(text: str, files: Mapping[str, Path]) -> str:
    """Return the device that a user means; see `nas.registry.match_name`.

    Raises:
        UnknownNameError: No such device, or several.
    """
    remedy = "A new device is one file: nas devices add, or hardware_profiles/NAME.toml."
    try:
        return match_name("device", text, files, remedy=remedy, parts=False)
    except UnknownNameError:  # titles and aliases stand inside the files, which are read only then
        # of two profiles of one board the shorter name goes first: that of its usual runtime
        others = {alias: name for name in sorted(files, key=len, reverse=True) for alias in _aliases(files[name])}
        return match_name("device", text, files, others, remedy=remedy)


def slug(title: str) -> str:
    """Return a device's title as a profile name: ``SA8295P ADP`` -> ``sa8295p``."""
    plain = re.sub(r"\s*(\(Proxy\)|\bADP\b)\s*", " ", title)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def head_of(path: Path) -> Mapping[str, Any]:
    """Return what stands before the first table of a profile; nothing of a file that cannot be read (`read_profile` says why)."""
    try:
        return _head_as_of(path.stat().st_mtime_ns, path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


@lru_cache(maxsize=1024)
def _head_as_of(_changed_ns: int, path: Path) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8").partition("\n[")[0])


def _aliases(path: Path) -> list[str]:
    """Return the title and the aliases of a profile."""
    head = head_of(path)
    aliases = head.get("aliases", ())
    return [name for name in (head.get("title", ""), *(aliases if isinstance(aliases, list) else ())) if isinstance(name, str) and name]
