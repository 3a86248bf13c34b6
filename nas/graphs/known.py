"""What is known of the reference networks before their graphs are read: what was counted of them, and graphs read on demand.

Apart from `nas.graphs.workloads`, whose names a command looks up before anything as heavy as NumPy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError
from nas.graphs.arrays import read_arrays
from nas.graphs.deferred import DeferredGraph
from nas.graphs.graph import Cost, Graph, Value
from nas.graphs.images import with_normalisation
from nas.graphs.workloads import describe, folder, load


@dataclass(frozen=True, eq=False)
class Counts:
    """What was counted of the networks once and for all (``experiments/001_workloads/counts.py``).

    Attributes:
        rows: Place of each network in the other arrays.
        costs: (networks, fields of `Cost`) of the graphs that `load` returns.
        kinds: Kinds of operators after the runtime's fusions.
        runs: (networks, kinds) whether a network that normalises its images runs such an operator.
        quantities: Names of quantities of work.
        totals: (networks, quantities) of a network that normalises its images; a latency model knows what they mean.
    """

    rows: Mapping[str, int]
    costs: npt.NDArray[np.float64]
    kinds: tuple[str, ...]
    runs: npt.NDArray[np.bool_]
    quantities: tuple[str, ...]
    totals: npt.NDArray[np.float64]


COUNTS = "counts.npz"


@cache
def counts() -> Counts:
    """Return what was counted of the networks.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    path = folder() / COUNTS
    try:
        arrays = read_arrays(path)
        rows = {str(name): row for row, name in enumerate(arrays["names"])}
        kinds, quantities = (tuple(map(str, arrays[name])) for name in ("kinds", "quantities"))
        return Counts(rows, arrays["costs"], kinds, arrays["runs"], quantities, arrays["totals"])
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"workloads: cannot read {path} ({error}).") from None


@cache
def deferred(name: str) -> Graph:
    """Return the graph that `load` returns, read when more is asked for than its name, input, precisions and cost.

    Raises:
        UnknownNameError: No such network.
    """
    row = counts().rows.get(name)
    if row is None:
        return load(name)
    macs, params, elements, moved, operators = counts().costs[row].tolist()
    cost = Cost(int(macs), int(params), int(elements), moved, int(operators))
    return DeferredGraph(
        partial(load, name), name=name, inputs=(Value("input", describe(name).input),), precisions=frozenset({None}), cost=cost
    )


@cache
def deferred_with_normalisation(name: str) -> Graph:
    """Return the graph of a network that normalises its images itself, read when its operators are asked for."""
    return DeferredGraph(partial(_with_normalisation, name), name=name, precisions=frozenset({None}))


def _with_normalisation(name: str) -> Graph:
    return with_normalisation(load(name))
