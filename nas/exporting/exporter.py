"""The contract of an exporter: a module in, a model file out that was reloaded and compared before it is returned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nas.graphs.graph import Graph
from nas.registry import Registry

if TYPE_CHECKING:
    from torch import nn


PEAKS = {"normalised": None, "unit": 1.0, "bytes": 255.0}
"""What a file may take: pictures less mean over deviation, or RGB up to a peak, which it then normalises by itself."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported file.

    Attributes:
        path: Where it is.
        format: Exporter's name.
        precision: One of `nas.units.PRECISIONS`.
        sha256: Of the file's bytes.
        size_bytes: Of the file.
        max_difference: Largest absolute difference between module and reloaded file on the probe input.
        operators: Operator kinds in the file, with counts.
        metadata: What was written into the file.
    """

    path: Path
    format: str
    precision: str
    sha256: str
    size_bytes: int
    max_difference: float
    operators: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Exporter(ABC):
    """Writes models in one format."""

    @abstractmethod
    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """Fuse, write, reload and compare; the file appears under its name only when all of that has passed.

        Args:
            module: In evaluation mode or not; it is left as it is.
            graph: Says the input's shape.
            path: Must not exist.
            metadata: Written into the file.

        Raises:
            ArtifactError: The path exists or cannot be written, or the reloaded model disagrees.
        """


exporters: Registry[type[Exporter]] = Registry("exporters", "nas.exporting.exporters")
"""Exporters by name."""
