"""Published accuracies: an ``.npz`` with arrays ``arch`` (rows), ``columns`` (names) and ``accuracy`` (rows × columns, percent)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import DataError, one_line
from nas.graphs.arrays import read_arrays

_ARRAYS = ("arch", "columns", "accuracy")


def holds_accuracies(path: Path) -> bool:
    """Return whether a file has the arrays of such a table; other tables hold latencies.

    Raises:
        DataError: No such file, or not an ``.npz`` file of plain arrays.
    """
    return set(_ARRAYS) <= set(_arrays(path))


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        return read_arrays(path)
    except FileNotFoundError:
        raise DataError(f"table: no such file, got {str(path)!r}.") from None
    except ValueError as error:
        raise DataError(f"table: not an .npz file of plain arrays, got {str(path)!r} ({one_line(error)}).") from None


def read_accuracies(path: Path) -> tuple[list[object], list[str], np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return rows, names of columns, and accuracies in percent, shape (rows, columns).

    Raises:
        DataError: No such file, a damaged one, or not such a table.
    """
    arrays = _arrays(path)
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise DataError(f"table: {path} lacks {missing[0]!r}. Expected arrays 'arch', 'columns' and 'accuracy'.")
    arch, names, accuracy = (arrays[name] for name in _ARRAYS)
    if not arch.ndim or names.ndim != 1 or names.dtype.kind != "U" or accuracy.dtype.kind not in "iuf":
        kinds = ", ".join(f"{name} {arrays[name].dtype} {arrays[name].shape}" for name in _ARRAYS)
        raise DataError(f"table: {path}: got {kinds}. Expected rows, names as text, and numbers.")
    if not accuracy.size or accuracy.shape != (len(arch), len(names)):
        raise DataError(f"table: {path}: {accuracy.shape} accuracies for {len(arch)} rows and {len(names)} columns.")
    columns = [str(name) for name in names.tolist()]
    if len(set(columns)) < len(columns):
        raise DataError(f"table: {path}: a column is there twice, got {one_line(repr(columns), 120)}.")
    percent = accuracy.astype(float)
    if not np.all(np.isfinite(percent) & (percent >= 0) & (percent <= 100)):
        raise DataError(f"table: {path}: an accuracy outside 0 to 100 %.")
    return arch.tolist(), columns, percent
