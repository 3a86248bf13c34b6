"""Published latency tables: rows of architectures, a column of milliseconds a device, and what is wrong with them said aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.devices.predictor import Floats
from nas.errors import DataError, UnknownNameError, one_line
from nas.graphs.arrays import read_arrays
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.space import SearchSpace, spaces


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """A table.

    Attributes:
        path: Its file.
        space: The space of its rows.
        architectures: One a row.
        ms: By device, shape (rows,).
    """

    path: Path
    space: SearchSpace
    architectures: tuple[Architecture, ...]
    ms: Mapping[str, Floats]

    def column(self, device: str) -> Floats:
        """Return a device's latencies in ms.

        Raises:
            UnknownNameError: The table has no such device.
        """
        if device not in self.ms:
            raise UnknownNameError("device of the table", device, self.ms, f"The table is {self.path}.")
        return self.ms[device]

    def defects(self, devices: Sequence[str]) -> list[str]:
        """Return in words what is wrong with the columns of some devices."""
        faults = []
        for device in devices:
            y = self.column(device)
            if np.all(y == np.round(y)):
                faults.append(f"{device}: whole milliseconds, a step is {100 / float(np.median(y)):.0f} % of the median")
            if idle := int(np.sum(y < 0.05 * np.median(y))):
                faults.append(
                    f"{device}: {idle} rows show less than a twentieth of the median; such graphs fold away on a compiled runtime"
                )
            if len(y) >= 1000 and (share := _drift(y)) > 0.05:
                faults.append(
                    f"{device}: blocks of 100 consecutive rows differ by {100 * share:.0f} %, a state of the device, not of the networks"
                )
        if repeated := len(self.architectures) - len(set(self.architectures)):
            faults.append(f"{repeated} rows repeat another row's network")
        return faults


def _drift(y: Floats) -> float:
    """Return the spread of the medians of blocks of 100 rows beyond what the spread of rows explains, relative to the median."""
    blocks = np.log(y[: len(y) // 100 * 100].reshape(-1, 100))
    inner = 1.25 * blocks.std(axis=1).mean() / 10  # standard error of a block's median
    return float(np.sqrt(max(0.0, float(np.median(blocks, axis=1).var()) - inner**2)))


def read_latency_table(path: Path, space: str = "") -> LatencyTable:
    """Read an ``.npz`` with an array ``arch`` and an array ``ms/<device>`` a device.

    Args:
        path: The file.
        space: Name of the space; guessed from the spelling of the rows where empty.

    Raises:
        DataError: No such file, not such a table, or latencies that are not positive and finite.
        UsageError: A row that the space does not know.
    """
    try:
        arrays = read_arrays(path)
        columns = {name.removeprefix("ms/"): values.astype(float) for name, values in arrays.items() if name.startswith("ms/")}
    except FileNotFoundError:
        raise DataError(f"latency table: no such file, got {str(path)!r}.") from None
    except ValueError as error:
        raise DataError(f"latency table: not an .npz file of plain arrays, got {str(path)!r} ({one_line(error)}).") from None
    if "arch" not in arrays or not columns:
        raise DataError(f"latency table: {path} lacks {'arch' if columns else 'ms/<device>'}. Expected arrays 'arch' and 'ms/<device>'.")
    rows = arrays["arch"]
    if not rows.ndim or not len(rows):
        raise DataError(f"latency table: {path}: 'arch' is no list of rows, got the shape {rows.shape}.")
    for device, values in columns.items():
        if values.shape != (len(rows),):
            raise DataError(f"latency table: {path}, device {one_line(device, 60)}: {values.shape} latencies for {len(rows)} rows.")
        if not np.all(np.isfinite(values) & (values > 0)):
            raise DataError(f"latency table: {path}, device {one_line(device, 60)}: a latency that is not positive and finite.")
    known = get_space(space or _guess(rows, path))
    return LatencyTable(path, known, tuple(known.parse(row) for row in rows.tolist()), columns)


def _guess(rows: npt.NDArray[Any], path: Path) -> str:
    matches = [family for family, kind in spaces.items() if len(rows) and kind.spells(rows)]
    if len(matches) != 1:
        several = f" of {' or '.join(matches)}" if matches else " of no known spelling"
        raise DataError(f"latency table: {path}: rows{several}, got {one_line(repr(rows[:1]))}. Do this: --space NAME.")
    return matches[0]
