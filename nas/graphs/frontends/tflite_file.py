"""A graph from a ``.tflite`` file: float, or quantised to eight or sixteen bits. Sizes are those that the file states.

The format has pictures channels-last. Here a value that convolutions, pools and resizes read stands channels-first, as everywhere in this
system; where a file's own order of axes matters (a reshape, a transpose, a product) a `Reshape` that costs nothing gives it back.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from nas.errors import GraphError
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.frontends.text import plain
from nas.graphs.frontends.tflite_reader import operators
from nas.graphs.frontends.tflite_reader.reader import MALFORMED, Reader
from nas.graphs.graph import Graph

HANDLER_FILES = (operators,)
"""What fills the table of handlers."""


def read_tflite(path: str | Path, sizes: Sizes | None = None) -> Graph:
    """Read a file; numbers of weights are not looked at.

    Raises:
        UsageError: `sizes` ask for other shapes than the file's.
        GraphError: The file is missing, empty, truncated, not TensorFlow Lite, or malformed; one line says what to do.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise GraphError(f"{path}: not a TensorFlow Lite file, or a truncated one. Do this: convert or copy the model again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return Reader(data, path, sizes or Sizes()).read()
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file.") from None
    except (OSError, BufferError, *MALFORMED) as error:
        reason = plain(" ".join(str(error).split()) or type(error).__name__)
        raise GraphError(f"{path}: a damaged TensorFlow Lite file, got: {reason}. Do this: convert or copy the model again.") from None
