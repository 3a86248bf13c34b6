"""``table``: accuracies that a file knows, such as those of NAS-Bench-201; looked up, not computed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from nas.errors import DataError, UnknownNameError, UsageError
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace
from nas.training.accuracy_table import read_accuracies
from nas.training.evaluator import Assignment, Evaluator, Metrics, Need, evaluators, needed


@evaluators.register("table")
class TableAccuracy(Evaluator):
    """Looks accuracies up in an ``.npz`` with arrays ``arch`` (rows), ``columns`` (names) and ``accuracy`` (rows × columns, percent).

    Networks that the space takes for one (isomorphic cells) have the mean of their rows.

    Args:
        space: Reads the rows.
        path: The file.
        column: Which accuracy; may be left out where there is one.

    Raises:
        DataError: No such file, or not such a table.
        UsageError: No such column, or rows that the space cannot read.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"table"})
    scored: ClassVar[str] = "accuracy by the table"

    def __init__(self, space: SearchSpace, path: Path, column: str | None = None) -> None:
        rows, columns, accuracy = read_accuracies(path)
        if column is None and len(columns) != 1:
            raise UsageError(f"--column: the table has several. Expected one of {', '.join(columns)}.")
        if column is not None and column not in columns:
            raise UnknownNameError("column", column, columns, f"The table is {path.name}.")
        chosen = column or columns[0]
        values = accuracy[:, columns.index(chosen)]
        groups: dict[str, list[float]] = {}
        for row, value in zip(rows, values.tolist(), strict=True):
            groups.setdefault(space.identity(space.parse(row)), []).append(value)
        self._space, self._accuracy_pct = space, {identity: float(np.mean(group)) for identity, group in groups.items()}
        digest = hashlib.sha256(repr((space.name, space.version, chosen)).encode())
        digest.update("\n".join(map(str, rows)).encode() + values.tobytes())
        self._key = digest.hexdigest()[:16]

    @classmethod
    def make(cls, assignment: Assignment) -> TableAccuracy:
        """Return the evaluator of a table."""
        needed(assignment, "table", "table")
        assert assignment.table is not None
        return cls(assignment.space, assignment.table, assignment.column)

    @property
    def key(self) -> str:
        """Hash of space, rows and values."""
        return self._key

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Return the known accuracy.

        Raises:
            DataError: The table has no such network.
        """
        identity = self._space.identity(architecture)
        if identity not in self._accuracy_pct:
            raise DataError(f"table: has no row for architecture {architecture.key}.")
        return Metrics(self._accuracy_pct[identity], "table")
