"""Reading files of arrays that anyone may have written: memory is bounded before it is taken, and no object is opened."""

from __future__ import annotations

import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import MALFORMED, one_line

LARGEST_BYTES = 512 * 1024**2
"""Of all arrays of a file together. Set by hand."""

_MALFORMED: tuple[type[Exception], ...] = (*MALFORMED, TokenError)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ``.npz`` by name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Damaged, no ``.npz``, more than `LARGEST_BYTES`, or an array that holds other than numbers and text.
    """
    try:
        with zipfile.ZipFile(path) as file:
            whole = sum(entry.file_size for entry in file.infolist())
        if whole > LARGEST_BYTES:
            raise ValueError(f"{whole / 1e6:.0f} MB of arrays, at most {LARGEST_BYTES / 1e6:.0f} MB are read")
        with np.load(path, allow_pickle=False) as data:
            arrays = {str(name): data[name] for name in data.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
                raise ValueError(f"{one_line(name, 60)!r} holds neither numbers nor text")
            if array.dtype.kind == "U" and not _is_text(array):
                raise ValueError(f"{one_line(name, 60)!r} holds characters that there are not")
    except FileNotFoundError:
        raise
    except _MALFORMED as error:
        raise ValueError(one_line(error) or type(error).__name__) from None
    return arrays


def _is_text(array: npt.NDArray[Any]) -> bool:
    """Whether the code points of an array of text are characters: beyond the last of Unicode, Python's own functions fail."""
    if not array.dtype.itemsize:
        return True
    points = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4" if array.dtype.byteorder in "<>" else "u4")
    return not ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any()
