"""Reading fitted coefficients that anyone may have written: bounded before memory is taken, checked whole, and one line for what is wrong."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import MALFORMED, ArtifactError, one_line

_LARGEST = 512 * 1024**2


@contextmanager
def reading(predictor: str, path: Path) -> Iterator[None]:
    """Turn whatever a malformed file makes a reader raise into one line.

    Raises:
        ArtifactError: Missing, or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{predictor}: no such file, got {str(path)!r}.") from None
    except MALFORMED as error:
        raise ArtifactError(f"{predictor}: damaged file {str(path)!r} ({one_line(error) or type(error).__name__}).") from None


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an npz; no objects.

    Raises:
        ValueError: They would take more than half a gigabyte, or hold objects.
    """
    with zipfile.ZipFile(path) as file:
        whole = sum(entry.file_size for entry in file.infolist())
    if whole > _LARGEST:
        raise ValueError(f"{whole / 1e6:.0f} MB of arrays")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: It is too large, or no JSON.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path.stat().st_size / 1e6:.0f} MB of text")
    return json.loads(path.read_text(encoding="utf-8"))


def check_shapes(arrays: Mapping[str, tuple[npt.NDArray[Any], tuple[int, ...]]], *, may_lack: frozenset[str] = frozenset()) -> None:
    """Check that arrays have their shapes and hold numbers.

    Args:
        arrays: By name, each with its shape.
        may_lack: Names of those that hold NaN where nothing was measured.

    Raises:
        ValueError: One does not.
    """
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}, expected {shape}")
        good = np.isfinite(array) | np.isnan(array) if name in may_lack else np.isfinite(array)
        if not good.all():
            raise ValueError(f"{name} holds what is no number")
