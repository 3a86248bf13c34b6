"""Which committed graph stands for which network of Qualcomm AI Hub's table, and of which lineage each network is.

Both tables stand beside the graphs, in ``hardware_profiles/workloads``: ``aihub.csv`` is written by ``experiments/001_workloads/aihub.py``,
``lineages.csv`` by hand.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from nas.errors import ArtifactError
from nas.graphs import workloads
from nas.graphs.operators import Shape


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A network of the table, or one component of it, that has a graph.

    Attributes:
        model: AI Hub's model name.
        component: As the newest releases spell it; empty where the model is one graph.
        workload: Name of the graph in `nas.graphs.workloads`, post-processing included where AI Hub compiles it.
        input: Shape as compiled, batch first.
        since: ISO date of the release from which it is this graph at this input; empty where that was always so.
        normalises: Whether AI Hub's graph starts with the subtraction and division of the image by channel, which no graph here has.
    """

    model: str
    component: str
    workload: str
    input: Shape
    since: str
    normalises: bool

    def covers(self, row: Mapping[str, str]) -> bool:
        """Return whether a row of the latency table timed this graph: its model, its component, and late enough."""
        named = not self.component or _spelt(self.component) in _spelt(row.get("component", ""))
        return row["model"] == self.model and named and row["date"] >= self.since


def _spelt(name: str) -> str:
    """Return a component's name without what changed over the releases: ``FaceDetector`` and ``face_detector`` are one."""
    return name.replace("_", "").replace("-", "").lower()


def _rows(name: str) -> list[dict[str, str]]:
    path = workloads.folder() / name
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"workloads: cannot read {path} ({error}).") from None


@cache
def rebuilt() -> tuple[Rebuilt, ...]:
    """Return every network that has a graph, by model and component.

    Raises:
        ArtifactError: The table is missing or damaged.
    """
    return tuple(
        Rebuilt(
            row["model"],
            row["component"],
            row["workload"],
            (1, *map(int, row["input"].split("x"))),
            row["since"],
            row["normalises"] == "1",
        )
        for row in _rows("aihub.csv")
    )


@cache
def lineages() -> Mapping[str, str]:
    """Return AI Hub's model name -> the oldest published architecture whose blocks it repeats.

    Raises:
        ArtifactError: The table is missing or damaged.
    """
    return {row["network"]: row["lineage"] for row in _rows("lineages.csv")}
