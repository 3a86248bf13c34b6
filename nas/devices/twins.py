"""What other profiles say of one: of the same chip with other times, of the same source with newer ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from nas.devices.names import find_profile, head_of, profile_files, slug, superseded_text, superseded_updates
from nas.devices.profile import Profile, load_profile
from nas.errors import NasError

MOST_APART_PCT = 5.0
"""Profiles of one chip whose times differ by more are not one device. Set by hand."""

LATE_DAYS = 60
"""A profile whose timings end this long before those of other devices of its source is older than the newest data."""

_FEWEST = 3  # networks timed on both; by hand: two could agree by chance
_ORIGIN = re.compile(r'^\[origin\]\n(?:(?!\[).*\n)*?title = "([^"\n]*)"\n(?:(?!\[).*\n)*?retrieved = "(\d{4}-\d\d-\d\d)"', re.MULTILINE)


def remarks(profile: Profile) -> tuple[str, ...]:
    """Return a line for each profile of the same chip whose times differ by over 5 %, and one each where newer data are known or an update is not used."""
    lines = [line for name in _of_one_chip(profile) if (line := _apart(profile, name))]
    lines += [superseded_text(name, update) for name, update in superseded_updates().items() if name == profile.name]
    return (*lines, *((late,) if (late := older_than_known(profile.origin.title, profile.origin.retrieved)) else ()))


def older_than_known(source: str, until: str) -> str:
    """Return the line of a profile whose timings end before those of other devices of its source; empty where they do not.

    Args:
        source: Title of the profile's origin.
        until: Date of its newest timing.
    """
    newest = _newest().get(source, "")
    if not until or not newest or _days(newest) - _days(until) < LATE_DAYS:
        return ""
    return (
        f"older than the newest data: its timings end on {until}, those of other devices of this source on {newest}; a newer SDK moves latencies "
        "by a few percent, single networks by more"
    )


def _days(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def _newest() -> Mapping[str, str]:
    return _newest_of(tuple(sorted(profile_files().values())))


@lru_cache(maxsize=4)
def _newest_of(files: tuple[Path, ...]) -> Mapping[str, str]:
    """Return the date of the newest timing by title of the source."""
    newest: dict[str, str] = {}
    for file in files:
        try:
            match = _ORIGIN.search(file.read_text(encoding="utf-8"))
            if match and _days(match[2]) > 0:
                newest[match[1]] = max(newest.get(match[1], ""), match[2])
        except (OSError, UnicodeDecodeError, ValueError):
            continue  # `read_profile` says what is wrong with it
    return newest


def chips_of(name: str, head: Mapping[str, Any]) -> frozenset[str]:
    """Return the chips whose times a profile promises: those that it stands in for, else its own names.

    Args:
        name: Of the profile.
        head: Its ``aliases`` and ``proxy``.
    """
    proxy = str(head.get("proxy", ""))
    if proxy:
        return frozenset(map(slug, proxy.partition(", by ")[0].split(", ")))
    return frozenset(map(slug, (name, *head.get("aliases", ()))))


def _of_one_chip(profile: Profile) -> list[str]:
    """Return other profiles of a chip that this one promises, at the same runtime, where one of the two stands in for it."""
    own = chips_of(profile.name, profile.model_dump(include={"aliases", "proxy"}))
    names = []
    for name, file in sorted(profile_files().items()):
        if name == profile.name:
            continue
        head = head_of(file)
        if head.get("runtime") == profile.runtime and bool(head.get("proxy")) != bool(profile.proxy) and own & chips_of(name, head):
            names.append(name)
    return names


def _apart(profile: Profile, name: str) -> str:
    try:
        other = load_profile(find_profile(name))
    except NasError:
        return ""
    for precision in profile.precisions:
        if precision not in other.precisions:
            continue
        mine, theirs = profile.precisions[precision].timings_ms, other.precisions[precision].timings_ms
        both = sorted(set(mine) & set(theirs))
        if len(both) < _FEWEST:
            continue
        ratio = math.exp(median(math.log(theirs[n] / mine[n]) for n in both))
        if abs(ratio - 1) * 100 > MOST_APART_PCT:
            which = f"{other.name}, a stand-in," if other.proxy else f"the real one, {other.name},"
            more = "" if other.proxy else f". Do this: --device {other.name}"
            return f"of the same chip {which} takes {ratio:.2f} times as long at {precision} (median of {len(both)} networks){more}"
    return ""
