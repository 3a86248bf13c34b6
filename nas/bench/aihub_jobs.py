"""The tables of Qualcomm AI Hub as rows: profile jobs, and the boards that ran them.

Source: quic/ai-hub-models, history of ``perf.yaml``, and the wheels of qai-hub-models (BSD-3-Clause), as a CSV with one row a profile job;
beside it ``aihub_boards.csv`` says which device names are one board and which boards are phones that stand in for others.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from nas.devices.aihub_perf import PRECISIONS
from nas.devices.names import slug
from nas.errors import DataError
from nas.graphs.operators import Shape

WORDS = PRECISIONS

BOARDS_FILE = "aihub_boards.csv"
"""Name of the table of boards, looked for beside the table of timings."""

_BOARD_COLUMNS = {"board", "names", "soc", "hexagon", "proxy", "note"}


@dataclass(frozen=True, slots=True)
class Board:
    """One piece of hardware and the names under which its jobs are shown.

    Attributes:
        name: Name as a profile has it, the slug of the title.
        title: Name of the board in the table.
        titles: Device names that are this board, its own among them.
        soc: System on chip.
        generation: Of its Hexagon NPU, such as ``v68``; empty where the table of boards does not say.
        proxy: A phone that stands in for a car or an IoT chip: none of its timings is one of that chip.
        note: What the table of boards remarks.
    """

    name: str
    title: str
    titles: tuple[str, ...]
    soc: str = ""
    generation: str = ""
    proxy: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One profile job, a row of the table.

    Attributes:
        job: AI Hub's identifier.
        release: Of the published table.
        date: ISO date of the release.
        network: AI Hub's model name.
        component: Name of the compiled part; some models are several networks.
        precision: One of `nas.units.Precision`, or AI Hub's word for a mixture.
        runtime: The table's word.
        title: Device name under which the job was shown.
        board: Title of the board that ran it.
        latency_ms: Positive.
        unit: ``NPU``, ``GPU`` or ``CPU``: where most of it ran.
        layers: Of the compiled graph; `layers_npu`, `layers_gpu` and `layers_cpu` say where they ran.
        peak_memory_mb: Upper end of the range for the process, runtime included; None where not stated.
        input: Compiled size, batch first; None where not stated.
        sdk: QAIRT version; empty where not stated.
    """

    job: str
    release: str
    date: str
    network: str
    component: str
    precision: str
    runtime: str
    title: str
    board: str
    latency_ms: float
    unit: str
    layers: int
    layers_npu: int
    layers_gpu: int
    layers_cpu: int
    peak_memory_mb: float | None
    input: Shape | None
    sdk: str

    @property
    def wholly_on_npu(self) -> bool:
        """Whether no layer fell back to the CPU or GPU."""
        return self.unit == "NPU" and 0 < self.layers == self.layers_npu and not self.layers_gpu and not self.layers_cpu


@cache
def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _megabytes(text: str) -> float | None:
    return (0.0 if not float(text) else _positive(text)) if text else None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def _size(text: str) -> Shape:
    shape = (1, *map(_count, text.split("x")))
    if 0 in shape:
        raise ValueError
    return shape


# column -> what reads its fields, in the order of the attributes of `Job`
_COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "job": str,
    "release": str,
    "date": cache(_day),
    "model": str,
    "component": str,
    "precision": lambda text: WORDS.get(text, text),
    "runtime": str,
    "device": str,
    "board": str,
    "ms": _positive,
    "unit": str,
    "layers": _count,
    "layers_npu": _count,
    "layers_gpu": _count,
    "layers_cpu": _count,
    "peak_memory_mb": _megabytes,
    "input": cache(lambda text: _size(text) if text else None),
    "qairt": str,
}


def read_jobs(path: Path) -> list[Job]:
    """Read the table, gzipped or not, in the order of its rows.

    Raises:
        DataError: No such file, a column is missing, or a field is not what its column says.
    """
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if missing := _COLUMNS.keys() - set(header):
                raise DataError(f"latency table {path}: a column is missing, got none called {min(missing)!r}.")
            fields = itemgetter(*map(header.index, _COLUMNS))
            jobs = []
            for row in reader:
                if len(row) != len(header):
                    raise DataError(f"latency table {path}: line {reader.line_num}: got {len(row)} fields. Expected {len(header)}.")
                jobs.append(_job(fields(row), path, reader.line_num))
            return jobs
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        raise DataError(f"latency table {path}: cannot be read ({error}).") from None


def _job(fields: Sequence[str], path: Path, line: int) -> Job:
    try:
        return Job(*[parse(field) for parse, field in zip(_COLUMNS.values(), fields, strict=True)])
    except ValueError:
        column, field = next(pair for pair in zip(_COLUMNS, fields, strict=True) if not _readable(*pair))
        raise DataError(f"latency table {path}: line {line}: not a value of the column {column!r}, got {field!r}.") from None


def _readable(column: str, field: str) -> bool:
    try:
        _COLUMNS[column](field)
    except ValueError:
        return False
    return True


def read_boards(path: Path) -> list[Board]:
    """Read which device names are one board (``aihub_boards.csv``); names of one board stand in one field, parted by ``|``.

    Raises:
        DataError: Not such a file, or one name under two boards.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table of boards {path}: cannot be read ({error}).") from None
    if not rows or (missing := _BOARD_COLUMNS - rows[0].keys()):
        raise DataError(f"table of boards {path}: a column is missing, got none called {min(missing) if rows else 'board'!r}.")
    boards = []
    owner: dict[str, str] = {}
    for row in rows:
        titles = tuple(dict.fromkeys([row["board"], *(name.strip() for name in row["names"].split("|") if name.strip())]))
        for title in titles:
            if owner.setdefault(title, row["board"]) != row["board"]:
                raise DataError(f"table of boards {path}: one name under two boards, got {title!r} for {owner[title]} and {row['board']}.")
        if row["proxy"] not in ("yes", "no"):
            raise DataError(f"table of boards {path}: proxy of {row['board']}: got {row['proxy']!r}. Expected yes or no.")
        boards.append(Board(slug(row["board"]), row["board"], titles, row["soc"], row["hexagon"], row["proxy"] == "yes", row["note"]))
    return boards
