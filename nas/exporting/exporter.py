"""The contract of an exporter: a module in, a model file out that was reloaded and compared before it is returned.

Life of an exporter::

    exporters.get(name)     the class: `suffix` of its files
            │
    Exporter.make(order)    at which precision, from which calibration pictures
            │
    export(module, graph)   fuse, write beside the path, reload, compare, and only then give the file its name
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError, UnknownNameError, UsageError
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
        path: Path of the file.
        format: Name of the exporter.
        precision: One of `nas.units.Precision`.
        sha256: SHA-256 of the file.
        size_bytes: Size of the file.
        max_difference: Largest absolute difference between module and reloaded file on the probe input.
        operators: Number of operators by kind in the file.
        metadata: Metadata in the file.
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
    """A request for a file.

    Attributes:
        precision: ``fp32``, ``fp16``, a quantised one, or ``mixed`` where `part_precisions` differ.
        pictures: Function that returns calibration pictures in batches (n, 3, h, w), as the network expects them; None without data.
        recipe: Names of quantisation methods, see `nas.quantisation.method`.
        part_precisions: Precision by path of a part.
    """

    precision: str = "fp32"
    pictures: Callable[[], Sequence[Tensor]] | None = None
    recipe: tuple[str, ...] = DEFAULT_RECIPE
    part_precisions: Mapping[str, str] = field(default_factory=dict)


class Exporter(ABC):
    """An exporter writes models in one format.

    Attributes:
        suffix: Ending of its files, with the dot.
        input_ranges: Inputs that a file of this format can be made to expect: keys of `PEAKS`.
        concurrent: Whether several threads may call what `reload` returns at the same time. Each call then uses one core.
        own_quantisation: Whether the format's own tool quantises; methods of `nas.quantisation.method` have no effect then.
    """

    suffix: ClassVar[str] = ".onnx"
    input_ranges: ClassVar[frozenset[str]] = frozenset({"normalised"})
    concurrent: ClassVar[bool] = False
    own_quantisation: ClassVar[bool] = False

    @classmethod
    def make(cls, order: ExportOrder) -> Exporter:
        """Return the exporter for a request. An exporter of fp32 files need not override this.

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
        """Return a function that runs a written file on pictures, in the format's own runtime; None where it cannot be run here."""
        return None

    @classmethod
    def runs_here(cls) -> bool:
        """Return whether written files can be run here: whether `reload` is overridden."""
        return cls.reload.__func__ is not Exporter.reload.__func__  # type: ignore[attr-defined]

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """Return the files that make up an exported one: `path` and what lies beside it."""
        return (path,)

    @classmethod
    def read_metadata(cls, path: Path) -> dict[str, str] | None:  # noqa: ARG003
        """Return the metadata of a file, without the format's runtime where that is possible; None where it has none.

        Raises:
            ArtifactError: It cannot be read.
        """
        return None

    @classmethod
    def normalising(cls, artifact: Artifact, peak: float, mean: Sequence[float], std: Sequence[float]) -> Artifact:  # noqa: ARG003
        """Return a file, rewritten to take RGB in 0…`peak` and to normalise by itself.

        Raises:
            UsageError: The format has no such form; see `input_ranges`.
        """
        raise UsageError(f"--input: a file of {artifact.format} takes normalised pictures. Do this: leave --input out, or --exporter onnx.")

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:  # noqa: ARG003
        """Add metadata to a file, where the format supports that; return the updated artifact."""
        return artifact


def artifact_of(
    kind: type[Exporter],
    path: Path,
    form: str,
    precision: str,
    difference: float,
    operators: Mapping[str, int],
    metadata: Mapping[str, str],
) -> Artifact:
    """Return what is known of the files of a format that lie under their names."""
    data = [file.read_bytes() for file in kind.files(path)]
    sha256 = hashlib.sha256(b"".join(data)).hexdigest()
    return Artifact(path, form, precision, sha256, sum(map(len, data)), difference, dict(sorted(operators.items())), dict(metadata))


def checked_difference(path: Path, actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], tolerance: float | None) -> float:
    """Return the largest difference of a score.

    Args:
        path: Of the file, for the message.
        actual: What the reloaded file answers.
        expected: What the module answers.
        tolerance: Relative to the largest score where that is above one; None where the file is meant to differ.

    Raises:
        ArtifactError: Other shapes, no finite scores, or too large a difference.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        raise ArtifactError(f"export {path}: the reloaded model gives no finite scores of shape {expected.shape}, got {actual.shape}.")
    difference = float(np.abs(actual - expected).max())
    if tolerance is not None and difference > tolerance * max(1.0, float(np.abs(expected).max())):
        raise ArtifactError(f"export {path}: the reloaded model disagrees, got a difference of {difference:.2g}. Expected {tolerance:g}.")
    return difference


def refuse_existing(*files: Path) -> None:
    """Overwrite nothing.

    Raises:
        ArtifactError: One of the files is there.
    """
    for file in files:
        if file.exists():
            raise ArtifactError(f"export: the file exists, got {str(file)!r}. Do this: name another or remove it.")


def refuse_precision(exporter: str, precision: str, offered: Iterable[str]) -> None:
    """Take no precision that an exporter does not write.

    Raises:
        UsageError: It is none of those offered.
    """
    if precision not in (known := tuple(offered)):
        raise UsageError(f"export: {exporter} writes {', '.join(known)}, got {precision!r}. Do this: --precision with one of them.")


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
        raise UnknownNameError(
            "format",
            path.suffix,
            set(known.values()),
            "A new exporter is one file in nas/exporting/exporters/, or an entry point nas.exporters.",
        )
    return fits[0]
