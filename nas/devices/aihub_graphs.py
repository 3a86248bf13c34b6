"""Which committed graph stands for which network of AI Hub's table (``hardware_profiles/workloads/aihub.csv``)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nas.errors import DataError
from nas.graphs import workloads
from nas.graphs.operators import Shape

GRAPHS_FILE = "aihub.csv"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A network of AI Hub's table that is rebuilt.

    Attributes:
        network: AI Hub's model name; ``model/part`` where a model is several networks.
        workload: Name of the committed graph.
        input: Compiled size, batch first.
        since: ISO date of the first release that compiled this graph; empty where all did.
        normalises: Whether the compiled graph subtracts from and divides its image by channel.
    """

    network: str
    workload: str
    input: Shape
    since: str
    normalises: bool


@cache
def rebuilt() -> Mapping[str, Rebuilt]:
    """Return the rebuilt networks by AI Hub's name.

    Raises:
        DataError: The committed table is damaged, or names a graph that is not committed.
    """
    file = workloads.folder() / GRAPHS_FILE
    known = set(workloads.names())
    rows: dict[str, Rebuilt] = {}
    with file.open(newline="") as text:
        for row in csv.DictReader(text):
            try:
                name = row["model"] + (f"/{part_of(row['model'], row['component'])}" if row["component"] else "")
                shape = (1, *map(int, row["input"].split("x")))
                rows[name] = Rebuilt(name, row["workload"], shape, row["since"], row["normalises"] == "1")
            except (KeyError, ValueError) as error:
                raise DataError(f"graphs {file}: damaged ({error}).") from None
            if row["workload"] not in known:
                raise DataError(f"graphs {file}: no such workload, got {row['workload']!r} for {name}.")
    return rows


@cache
def part_of(model: str, component: str) -> str:
    """Return the name of a component without what it says of its precision and without the model's."""
    plain = re.sub(r"[^a-z0-9]|quantized|quantizable", "", component.lower())
    return plain.removeprefix(model.split("_")[0]) or plain
