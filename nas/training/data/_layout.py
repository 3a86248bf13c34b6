"""Which split and which class a picture belongs to, by the folders that it lies in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from nas.errors import DataError
from nas.training.dataset import Split

Place = tuple[Split, str]

_SPLIT = re.compile(
    r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?|dev)|(test(?:ing)?|eval(?:uation)?))(?:[ _-]?(?:set|data|split|images))?", re.IGNORECASE
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ORDER: tuple[Split, ...] = ("train", "validation", "test")


def split_of(folder: str) -> Split | None:
    """Return the split that a folder's name says: ``train``, ``Training``, ``val``, ``dev``, ``test_set``, ``eval``, …; else None.

    Source:
        The words are those of Hugging Face Datasets, ``data_files.py``, and their usual endings.
    """
    match = _SPLIT.fullmatch(folder)
    return next(split for split, group in zip(_ORDER, match.groups(), strict=True) if group) if match else None


def readable(name: str) -> str:
    """Return a file system's name as text that can be printed and stored: composed; bytes that are not UTF-8, and what steers a terminal, escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda match: match.group().encode("unicode_escape").decode(), unicodedata.normalize("NFC", text))


def places(source: str, paths: Sequence[str]) -> list[Place | None]:
    """Return (split, class) of each path; None lies in no class folder. Folders around the whole are ignored.

    Args:
        source: For messages.
        paths: Inside the data set, with ``/``.

    Raises:
        DataError: Folders named like splits without class folders or without training pictures; no class folder at all.
    """
    parts: list[tuple[str, ...]] = _unwrapped([PurePosixPath(path).parts for path in paths])
    placed = _placed(source, parts)
    if paths and not any(placed):
        raise DataError(
            f"data {source}: the pictures lie in no class folder, got {readable(paths[0])!r}. Expected CLASS/*.jpg or train/CLASS/*.jpg."
        )
    return [(place[0], readable(place[1])) if place else None for place in placed]


def doubts(paths: Sequence[str], placed: Sequence[Place | None]) -> list[str]:
    """Return a line for each thing about a layout that its owner may not have meant.

    Args:
        paths: As of `places`.
        placed: What `places` returned.
    """
    lines = []
    labels = sorted({place[1] for place in placed if place})
    names: dict[str, list[str]] = {}
    for label in labels:
        names.setdefault(" ".join(label.split()).casefold(), []).append(label)
    lines += [f"the classes {', '.join(map(repr, alike))} have nearly the same name" for alike in names.values() if len(alike) > 1]
    below: dict[str, set[str]] = {label: set() for label in labels}
    deeper = []
    for path, place in zip(paths, placed, strict=True):
        own = [readable(part) for part in PurePosixPath(path).parts[:-1]]
        if place and place[1] in own and (inner := [part for part in own[own.index(place[1]) + 1 :] if not split_of(part)]):
            below[place[1]].add(inner[0])
            deeper.append((path, place[1]))
    if deeper:
        line = f"{len(deeper)} pictures lie in folders below that of their class: {readable(deeper[0][0])!r} is of class {deeper[0][1]!r}"
        common = set.intersection(*below.values())
        if len(common) > 1 and len({place for place, inner in below.items() if inner == common}) == len(below):
            line += (
                f". All classes hold the folders {', '.join(map(repr, sorted(common)[:3]))}{', …' if len(common) > 3 else ''}. "
                "Do this: where those are the classes, name the folders above them train, val and test"
            )
        lines.append(line)
    return lines


def _unwrapped(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Take off folders that hold everything; what lies loose beside their contents becomes the empty tuple."""
    while True:
        tops = {p[0] for p in parts if len(p) > 1}
        if len(tops) != 1 or split_of(min(tops)) or not any(len(p) > 2 for p in parts):
            return parts
        parts = [p[1:] if len(p) > 1 else () for p in parts]


def _placed(source: str, parts: list[tuple[str, ...]]) -> list[Place | None]:
    direct = {p[0] for p in parts if len(p) == 2}
    deep = {p[0] for p in parts if len(p) > 2}
    splits = {top: split for top in direct | deep if (split := split_of(top))}
    others = (direct | deep) - splits.keys()
    if splits.keys() & deep and (len(set(splits.values())) > 1 or not others & direct):
        if "train" not in {splits[top] for top in splits.keys() & deep}:
            shown = ", ".join(sorted(splits))
            raise DataError(f"data {source}: no pictures to train on, got the splits {shown}. Expected train/CLASS/*.jpg beside them.")
        return [(splits[p[0]], p[1]) if len(p) > 2 and p[0] in splits else None for p in parts]
    if splits and not others:
        shown = ", ".join(sorted(splits))
        raise DataError(f"data {source}: pictures lie in {shown} without class folders. Expected train/CLASS/*.jpg.")
    inner = {split_of(p[1]) if len(p) > 2 else None for p in parts if len(p) > 1}
    if inner and None not in inner and "train" in inner:  # CLASS/train/*.jpg
        return [(split, p[0]) if len(p) > 2 and (split := split_of(p[1])) else None for p in parts]
    return [("train", p[0]) if len(p) > 1 else None for p in parts]
