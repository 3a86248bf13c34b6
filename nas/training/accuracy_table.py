"""Published accuracies: an ``.npz`` with arrays ``arch`` (rows), ``columns`` (names) and ``accuracy`` (rows × columns, percent)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.errors import MALFORMED, DataError, one_line


def holds_accuracies(path: Path) -> bool:
    """Return whether a file has the arrays of such a table; other tables hold latencies.

    Raises:
        DataError: No such file, or not an ``.npz`` file of plain arrays.
    """
    return {"arch", "columns", "accuracy"} <= set(_arrays(path))


def _arrays(path: Path) -> tuple[str, ...]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return tuple(data.files)
    except FileNotFoundError:
        raise DataError(f"table: no such file, got {str(path)!r}.") from None
    except MALFORMED as error:
        raise DataError(f"table: not an .npz file of plain arrays, got {str(path)!r} ({one_line(error)}).") from None


def read_accuracies(path: Path) -> tuple[list[object], list[str], np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return rows, names of columns, and accuracies in percent, shape (rows, columns).

    Raises:
        DataError: No such file, a damaged one, or not such a table.
    """
    missing = {"arch", "columns", "accuracy"} - set(_arrays(path))
    if missing:
        raise DataError(f"table: {path} lacks {min(missing)!r}. Expected arrays 'arch', 'columns' and 'accuracy'.")
    try:
        with np.load(path, allow_pickle=False) as data:
            rows, columns = data["arch"].tolist(), [str(name) for name in data["columns"].tolist()]
            accuracy = data["accuracy"].astype(float)
    except MALFORMED as error:
        raise DataError(f"table: a damaged array in {path} ({one_line(error)}).") from None
    if accuracy.shape != (len(rows), len(columns)):
        raise DataError(f"table: {path}: {accuracy.shape} accuracies for {len(rows)} rows and {len(columns)} columns.")
    if not np.all(np.isfinite(accuracy) & (accuracy >= 0) & (accuracy <= 100)):
        raise DataError(f"table: {path}: an accuracy outside 0 to 100 %.")
    return rows, columns, accuracy
