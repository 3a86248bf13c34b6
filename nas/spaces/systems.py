"""The published systems that the search must know, each with what is built of it here.

The list is ``search_spaces/systems.csv``: a row a system, its parts as ``kind/name``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class System:
    """One published system.

    Attributes:
        number: Of the entry; the part before the point is the chapter.
        name: Of the system.
        kind: What it is about, such as ``attention``.
        priority: ``A`` first, ``C`` last; empty where an entry only points to others.
        parts: What is built of it, as ``mixer/window`` or ``reference/swin``; empty where nothing is.
        note: What is missing, and why.
    """

    number: str
    name: str
    kind: str
    priority: str
    parts: tuple[str, ...]
    note: str

    def names(self, kind: str) -> tuple[str, ...]:
        """Return its parts of one kind."""
        return tuple(part.partition("/")[2] for part in self.parts if part.partition("/")[0] == kind)


@cache
def systems() -> tuple[System, ...]:
    """Return every system in the order of the list."""
    spec = find_spec("search_spaces")
    (folder,) = (spec.submodule_search_locations if spec else None) or ("",)
    with (Path(folder) / "systems.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            System(row["number"], row["system"], row["kind"], row["priority"], tuple(row["parts"].split()), row["note"])
            for row in csv.DictReader(file)
        )
