"""Which split and which class a picture belongs to, by the folders that it lies in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from nas.errors import DataError
from nas.training.dataset import Split

Place = tuple[Split, str]

_SPLIT = re.compile(r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?)|(test(?:ing)?))(?:[ _-]?(?:set|data|split|images))?", re.IGNORECASE)
_ORDER: tuple[Split, ...] = ("train", "validation", "test")


def split_of(folder: str) -> Split | None:
    """Return the split that a folder's name says: ``train``, ``Training``, ``val``, ``Validation``, ``test_set``, …; else None."""
    match = _SPLIT.fullmatch(folder)
    return next(split for split, group in zip(_ORDER, match.groups(), strict=True) if group) if match else None


def readable(name: str) -> str:
    """Return a file system's name as text that can be printed and stored: composed, with bytes that are not UTF-8 escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def places(source: str, paths: Sequence[str]) -> list[Place | None]:
    """Return (split, class) of each path; None lies in no class folder. Folders around the whole are ignored.

    Args:
        source: For messages.
        paths: Inside the data set, with ``/``.

    Raises:
        DataError: Folders named like splits without class folders or without training pictures; no class folder at all.
    """
    parts: list[tuple[str, ...]] = _unwrapped([PurePosixPath(path).parts for path in paths])
    found = _placed(source, parts)
    if paths and not any(found):
        raise DataError(
            f"data {source}: the pictures lie in no class folder, got {readable(paths[0])!r}. Expected CLASS/*.jpg or train/CLASS/*.jpg."
        )
    return [(place[0], readable(place[1])) if place else None for place in found]


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
