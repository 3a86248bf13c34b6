"""The format of fitted coefficients: an npz of arrays and of one JSON text, the header, which says whose they are and of which version.

Anyone may have written such a file: it is bounded before memory is taken, checked whole, and what is wrong is one line.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import MALFORMED, ArtifactError, one_line
from nas.graphs.arrays import LARGEST_BYTES, read_arrays

_HEAD = "head"
_FORMER_HEAD = "meta"
"""Where the files of 0.1.0 that `physical` wrote have it, as bytes; those of `lookup` are the JSON text alone."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """What a file holds.

    Attributes:
        header: Plain data.
        arrays: By name; none holds objects.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]


def write_artifact(path: Path, predictor: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a file; its bytes depend on the content alone.

    Args:
        path: The file.
        predictor: Name of who fitted.
        version: Raised when what the header or an array means changes; files of other versions are refused.
        header: Plain data.
        arrays: By name.
    """
    head = {"predictor": predictor, "version": version, **header}
    contents: dict[str, Any] = {_HEAD: np.array(json.dumps(head, sort_keys=True)), **arrays}
    with path.open("wb") as file:
        np.savez_compressed(file, **contents)


@contextmanager
def read_artifact(path: Path, predictor: str, version: int) -> Iterator[Artifact]:
    """Open a file; whatever its content makes the block raise is a damaged file.

    Raises:
        ArtifactError: Missing, damaged, or of another predictor or version.
    """
    with reading(path, predictor):
        artifact = _read(path)
        actual = (artifact.header.get("predictor", predictor), artifact.header["version"])
        if actual != (predictor, version):
            raise other_version(path, predictor, f"{actual[0]} {actual[1]}", version)
        yield artifact


@contextmanager
def reading(path: Path, predictor: str) -> Iterator[None]:
    """Turn whatever the content of a file makes a block raise into one line.

    Raises:
        ArtifactError: Missing, or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{predictor}: no such file, got {str(path)!r}.") from None
    except MALFORMED as error:
        raise ArtifactError(f"{predictor}: damaged file {str(path)!r} ({one_line(error) or type(error).__name__}).") from None


def other_version(path: Path, predictor: str, actual: str, version: int) -> ArtifactError:
    """Return the error of a file that another version wrote."""
    return ArtifactError(f"{predictor}: {path} is of another version, got {one_line(actual)!r}. Expected {version}. Do this: fit it again.")


def _read(path: Path) -> Artifact:
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"{path.stat().st_size / 1e6:.0f} MB of text")
        return Artifact(_object(path.read_text(encoding="utf-8")), {})
    arrays = read_arrays(path)
    head = str(arrays.pop(_HEAD)) if _HEAD in arrays else arrays.pop(_FORMER_HEAD).tobytes().decode()
    return Artifact(_object(head), arrays)


def _object(text: str) -> dict[str, Any]:
    head = json.loads(text)
    if not isinstance(head, dict):
        raise ValueError("its header is no object")
    return head


def check_shapes(arrays: Mapping[str, tuple[npt.NDArray[Any], tuple[int, ...]]], *, may_lack: frozenset[str] = frozenset()) -> None:
    """Check that arrays have their shapes and hold numbers.

    Args:
        arrays: By name, each with its shape.
        may_lack: Names of those that hold NaN where nothing was measured.

    Raises:
        ValueError: One does not.
    """
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}, expected {shape}")
        good = np.isfinite(array) | np.isnan(array) if name in may_lack else np.isfinite(array)
        if not good.all():
            raise ValueError(f"{name} holds what is no number")


LARGEST_LOG_ERROR = 20.0
"""Of a prediction against its timing: a factor of 5e8, which no fit leaves. An interval made from more would be no number. Set by hand."""


def check_log_errors(errors: npt.NDArray[Any]) -> None:
    """Check that the log errors from which intervals are made are of a size that a fit can leave.

    Raises:
        ValueError: One is not.
    """
    if not (np.abs(errors) <= LARGEST_LOG_ERROR).all():
        raise ValueError("an error of a left-out network is of no possible size")
