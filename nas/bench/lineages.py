"""The lineage of a network: the oldest published architecture whose blocks it repeats.

Networks of one lineage share their blocks, so a model that has seen one has seen the other: the protocol ``lineage`` leaves them out together.
The committed table ``hardware_profiles/workloads/lineages.csv`` names the lineage of AI Hub's networks with a reason each.
"""

from __future__ import annotations

import csv
from pathlib import Path

from nas.errors import DataError
from nas.graphs import workloads

LINEAGES_FILE = "lineages.csv"


def read_lineages(path: Path | None = None) -> dict[str, str]:
    """Return lineages by the table's network names.

    Args:
        path: A CSV with the columns ``network``, ``lineage`` and ``reason``; default: the committed one.

    Raises:
        DataError: No such table, a network twice, or a row without lineage or reason.
    """
    file = path or workloads.folder() / LINEAGES_FILE
    try:
        with file.open(newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"lineages {file}: cannot be read ({error}).") from None
    if not rows or not {"network", "lineage", "reason"} <= rows[0].keys():
        raise DataError(f"lineages {file}: no column 'network', 'lineage' or 'reason'.")
    lineages: dict[str, str] = {}
    for row in rows:
        if not all(row[column] for column in ("network", "lineage", "reason")):
            raise DataError(
                f"lineages {file}: a field is empty, got {row['network'] or row['reason']!r}. Expected network, lineage, reason."
            )
        if lineages.setdefault(row["network"], row["lineage"]) != row["lineage"]:
            raise DataError(f"lineages {file}: two lineages for one network, got {row['network']!r}.")
    return lineages


def lineage_of(network: str, lineages: dict[str, str]) -> str:
    """Return a network's lineage; a part of a model (``model/part``) has the model's, one that the table does not know is its own."""
    return lineages.get(network) or lineages.get(network.partition("/")[0], network)


__all__ = ["LINEAGES_FILE", "lineage_of", "read_lineages"]
