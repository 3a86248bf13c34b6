"""The contract of an exporter: a module in, a model file out that was reloaded and compared before it is returned.

Life of an exporter::

    exporters.get(name)     the class: `suffix` of its files
            │
    Exporter.make(order)    at which precision, from which calibration pictures
            │
    export(module, graph)   fuse, write beside the path, reload, compare, and only then give the file its name
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from nas.errors import UnknownNameError, UsageError
from nas.graphs.graph import Graph
from nas.quantisation.method import DEFAULT_RECIPE
from nas.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn


PEAKS = {"normalised": None, "unit": 1.0, "bytes": 255.0}
"""What a file may take: pictures less mean over deviation, or RGB up to a peak, which it then normalises by itself."""


Scores = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""A picture (1, 3, h, w), as the file takes it, to scores (1, classes)."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported file.

    Attributes:
        path: Where it is.
        format: Exporter's name.
        precision: One of `nas.units.Precision`.
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


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What is to be written.

    Attributes:
        precision: ``fp32``, ``fp16``, a quantised one, or ``mixed`` where `part_precisions` differ.
        pictures: Returns calibration pictures in batches (n, 3, h, w), as the network expects them; None where there are no data.
        recipe: Methods of quantisation, see `nas.quantisation.method`.
        part_precisions: By path of a part.
    """

    precision: str = "fp32"
    pictures: Callable[[], Sequence[Tensor]] | None = None
    recipe: tuple[str, ...] = DEFAULT_RECIPE
    part_precisions: Mapping[str, str] = field(default_factory=dict)


class Exporter(ABC):
    """Writes models in one format.

    Attributes:
        suffix: Of its files, with the dot.
    """

    suffix: ClassVar[str] = ".onnx"

    @classmethod
    def make(cls, order: ExportOrder) -> Exporter:
        """Return what fulfils an order. An exporter of fp32 files need not override this.

        Raises:
            UsageError: It cannot write that precision, or lacks calibration pictures.
        """
        if order.precision != "fp32":
            raise UsageError(f"export: {cls.__name__} writes fp32 only, got {order.precision!r}. Do this: --precision fp32.")
        return cls()

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

    @classmethod
    def reload(cls, path: Path) -> Scores | None:  # noqa: ARG003
        """Return what a written file answers to a picture, in the format's own runtime; None where it cannot be run here."""
        return None

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:  # noqa: ARG003
        """Write further facts into a file, where the format has room for them; return what is known of it then."""
        return artifact


exporters: Registry[type[Exporter]] = Registry("exporters", "nas.exporting.exporters")
"""Exporters by name."""


def exporter_for(path: Path) -> str:
    """Return the name of the exporter that writes files with the suffix of `path`; of several, the one that is called like the suffix.

    Raises:
        UsageError: The path has no suffix, or none writes it.
    """
    if not path.suffix:
        raise UsageError(f"--to {path}: says no format. Expected a file name that ends in .onnx.")
    named = path.suffix.removeprefix(".")
    if named in exporters.names():
        return named
    known = {name: kind.suffix for name, kind in exporters.items()}
    fits = sorted(name for name, suffix in known.items() if suffix == path.suffix)
    if not fits:
        raise UnknownNameError("format", path.suffix, set(known.values()), "A new exporter is one file in nas/exporting/exporters/.")
    return fits[0]
