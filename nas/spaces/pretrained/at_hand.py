"""Which published networks this machine has trained weights of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nas.errors import UnknownNameError
from nas.spaces.pretrained.files import SUFFIXES
from nas.spaces.pretrained.libraries import library_of
from nas.spaces.pretrained.origins import PACKAGES, Origin, check_folder, find_weights


def networks_at_hand(names: Iterable[str] = (), folder: Path | None = None) -> dict[str, Origin]:
    """Return the published networks whose weights lie here, by name, each file once: of the folder, then packages, then timm's cache.

    Args:
        names: Networks that are looked for in timm's cache, with or without a tag of their weights; the first one that a file serves names it.
        folder: Of the user's own files, named like networks. A file whose name no library knows is not a candidate.

    Raises:
        UsageError: The folder does not exist.
    """
    check_folder(folder)
    own = sorted(path.stem for path in folder.iterdir() if path.suffix in SUFFIXES) if folder is not None else []
    origins: dict[str, Origin] = {}
    for name in dict.fromkeys([*filter(_is_known, own), *filter(_is_known, PACKAGES), *names]):
        origin = find_weights(name, folder)
        if origin is not None and origin.path not in {other.path for other in origins.values()}:
            origins[name] = origin
    return origins


def _is_known(name: str) -> bool:
    try:
        library_of(name)
    except UnknownNameError:
        return False
    return True
