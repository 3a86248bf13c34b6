"""A user's table of timings, as spreadsheets and scripts write it: any of three separators, decimal commas, a byte-order mark, units behind numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nas.errors import UsageError, did_you_mean, one_line
from nas.units import Precision

_REPEAT_RATIO = 1.3  # by hand: of two timings of one network
_FASTEST_MS, _SLOWEST_MS = 1e-6, 1e7  # the limits of `nas.devices.profile`
_SEPARATORS = (",", ";", "\t")
_MOST_FAULTS = 8  # by hand: what one line can name
_LARGEST = 50_000_000  # bytes; by hand
_COLUMNS = {"network": "network", "model": "network", "latency_ms": "latency_ms", "precision": "precision"}
_WORDS = {
    "int8": Precision.W8A8,
    "uint8": Precision.W8A8,
    "float16": Precision.FP16,
    "half": Precision.FP16,
    "float32": Precision.FP32,
    "float": Precision.FP32,
}


@dataclass(frozen=True, slots=True)
class UserTiming:
    """One line of a user's file, repeats merged by their median."""

    subject: str
    precision: str
    latency_ms: float


def read_timings(path: Path, default_precision: str) -> list[UserTiming]:
    """Read ``network,latency_ms[,precision]``; a network is a published name, a model file or an architecture file.

    Lines that are empty or start with ``#`` are passed over, and so are further columns. Where the separator is no comma, a comma is a decimal
    point.

    Raises:
        UsageError: Not such a file, a latency that is no positive number of milliseconds, or repeats that contradict each other; all faults in
            one line.
    """
    where = f"timings {one_line(path)}"
    header, rows, separator = _rows_of(_text_of(path, where), where)
    faults: list[str] = []
    latencies: dict[tuple[str, str], list[float]] = {}
    for line, cells in rows:
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        name, latency_text = row.get("network", ""), row.get("latency_ms", "")
        written = row.get("precision", "").lower() or default_precision
        precision = _WORDS.get(written, written)
        latency_ms = _milliseconds(latency_text, decimal_comma=separator != ",")
        if not name:
            faults.append(f"line {line} names no network")
        elif latency_ms is None:
            faults.append(f"line {line} ({one_line(name, 60)}) has no positive latency in ms, got {one_line(repr(latency_text), 60)}")
        elif precision not in list(Precision):
            hint = did_you_mean(precision, Precision)
            faults.append(
                f"line {line} ({one_line(name, 60)}) has an unknown precision, got {one_line(repr(written), 60)}.{hint}".rstrip(".")
            )
        else:
            latencies.setdefault((name, precision), []).append(latency_ms)
    for (name, precision), values in latencies.items():
        if max(values) > _REPEAT_RATIO * min(values):
            faults.append(
                f"repeats of {one_line(name, 60)} at {precision} contradict each other, got {min(values):g} to {max(values):g} ms"
            )
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise UsageError(f"{where}: {'; '.join(faults[:_MOST_FAULTS])}{more}.")
    return [UserTiming(name, precision, median(values)) for (name, precision), values in latencies.items()]


def _text_of(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{where}: too large for a table of timings, got {path.stat().st_size / 1e6:.0f} MB.")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror}).") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding == "utf-16" or b"\0" in data:
            raise UsageError(f"{where}: is no text. Expected a table with the columns network,latency_ms[,precision].") from None
        text = data.decode("cp1252", errors="replace")  # what spreadsheets on Windows write
    if "\0" in text:
        raise UsageError(f"{where}: is no text. Expected a table with the columns network,latency_ms[,precision].")
    return text


def _rows_of(text: str, where: str) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Return the names of the columns, the rows with their line, and the separator.

    Raises:
        UsageError: A column is missing, or there twice.
    """
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UsageError(f"{where}: is empty. Expected a table with the columns network,latency_ms[,precision].")
    first = lines[0][1]
    separator = max(_SEPARATORS, key=first.count)
    numbers = [i for i, _ in lines]
    try:
        cells = list(csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise UsageError(f"{where}: cannot be read ({one_line(error)}).") from None
    header = [_column_of(cell) for cell in cells[0]]
    missing = [name for name in ("network", "latency_ms") if header.count(name) != 1]
    if missing:
        first_cells = [one_line(cell, 40) for cell in cells[0]][:12]
        fault = "is there twice" if missing[0] in header else "is missing"
        raise UsageError(f"{where}: the column {missing[0]} {fault}, got {first_cells}. Expected network,latency_ms[,precision].")
    return header, [(numbers[min(i, len(numbers) - 1)], row) for i, row in enumerate(cells[1:], 1) if any(row)], separator


def _column_of(cell: str) -> str:
    name = re.sub(r"[\s()\[\]_-]+", "_", cell.strip().lower()).strip("_")
    return _COLUMNS.get(name, name)


def _milliseconds(text: str, *, decimal_comma: bool) -> float | None:
    """Return a number of milliseconds, None where it is none."""
    number = re.sub(r"\s*ms$", "", text.strip(), flags=re.IGNORECASE)
    comma, point = number.rfind(","), number.rfind(".")
    if not decimal_comma and point < 0 and re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", number, flags=re.ASCII):
        return None  # 1,234: a thousand or one and a bit
    if comma >= 0 > point:
        number = number.replace(",", ".", 1)
    elif comma > point >= 0:  # 1.234,5
        number = number.replace(".", "").replace(",", ".")
    elif point > comma >= 0:  # 1,234.5
        number = number.replace(",", "")
    if not re.fullmatch(r"[+]?[0-9]*[.]?[0-9]+([eE][+-]?[0-9]+)?|[+]?[0-9]+[.]", number, flags=re.ASCII):
        return None
    value = float(number)
    return value if _FASTEST_MS <= value <= _SLOWEST_MS else None  # as in a profile


__all__: Sequence[str] = ["UserTiming", "read_timings"]
