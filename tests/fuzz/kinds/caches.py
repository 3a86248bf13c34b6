"""Damaged files of the cache of pictures, index and pixels in turn: made again, or used where they are whole."""

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from nas.errors import UsageError
from nas.training.dataset import SPLITS, load_dataset

ENDING = ".cache"
WORDS = (b"null", b"[]", b'"entries"', b'"picture"', b'"row": -1', b'"size": null', b"NaN")


def _pictures(root: Path) -> None:
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.random.default_rng(i + 100 * (name == "b")).integers(0, 256, (9, 9, 3), np.uint8)).save(
                root / name / f"{i}.png"
            )


_HOME = tempfile.TemporaryDirectory()
_DATA = Path(_HOME.name) / "d"
_pictures(_DATA)


def _opened() -> list[np.ndarray]:
    data = load_dataset(str(_DATA))
    return [data.pixels(split, size).copy() for split in SPLITS for size in ((24, 24), (6, 6))]


def _files(cache: str) -> list[Path]:
    return sorted(path for path in Path(cache).rglob("*") if path.is_file())


def read(path: Path) -> object:
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAS_CACHE_HOME"] = cache
        before = _opened()
        for file in _files(cache):
            file.write_bytes(data)
        same = [bool(np.array_equal(a, b)) for a, b in zip(before, _opened(), strict=True)]
        if all(same) and all(file.read_bytes() != data for file in _files(cache)):
            raise UsageError("refused by every file, and made again")
        return same


def absurd(result: list[bool]) -> str:
    return "" if all(result) else "other pixels than before"


def seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAS_CACHE_HOME"] = cache
        _opened()
        return [file.read_bytes() for file in _files(cache)]
