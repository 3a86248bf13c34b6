"""A graph from an ``.onnx`` file: fp32, fp16 or quantised, of any operator set, with its inputs' sizes fixed by the file or the user.

Weights are read as shapes and types alone, and what follows from constants (a shape that a file computes) is folded. Bodies are written
out. Where the size of a value depends on numbers the graph ends, with a notice; an operator outside the vocabulary keeps its name and is
reported as unknown.
"""

from __future__ import annotations

from pathlib import Path

from nas.graphs.frontends.onnx_reader import contrib, control, products, tensors
from nas.graphs.frontends.onnx_reader.preparation import prepare
from nas.graphs.frontends.onnx_reader.reader import Reader
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.graph import Graph

HANDLER_FILES = (products, tensors, contrib, control)
"""What fills the table of handlers."""


def read_onnx(path: str | Path, sizes: Sizes | None = None) -> Graph:
    """Read a file; numbers of weights, inside or in external files, are not looked at.

    Args:
        path: The file.
        sizes: What the user said of sizes that the file leaves open, or that are to be replaced.

    Raises:
        UsageError: `sizes` name what the file does not have.
        GraphError: The file is missing, empty, truncated, not ONNX, dynamic, or malformed; one line says what to do.
    """
    path = Path(path)
    model, stated = prepare(path, sizes or Sizes())
    return Reader(model, stated, path).read()
