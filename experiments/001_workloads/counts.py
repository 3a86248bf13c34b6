"""Write hardware_profiles/workloads/counts.npz: what a walk over all published networks asks for, counted from their graphs.

    python experiments/001_workloads/counts.py

It is to be run after `run.py`, `aihub.py` or `boards.py` has changed a graph, and after `latency_predictors/_quantities.py` or a fusion has
changed; two minutes of one core. Networks with operators outside the vocabulary are left out: whoever asks for them reads their graphs.
"""

import argparse
import gc
import sys
from dataclasses import astuple

import numpy as np

from latency_predictors._quantities import QUANTITIES, quantities_of
from nas.graphs import known, workloads
from nas.graphs.images import with_normalisation
from nas.graphs.passes import normalise


def main() -> None:
    """Count every network of the index."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    gc.disable()  # graphs are trees: a search for circles among them takes as long as counting
    names, costs, totals, kinds = list[str](), list[tuple[float, ...]](), list[np.ndarray](), list[set[str]]()
    for name in workloads.names():
        graph = workloads.load.__wrapped__(name)  # not to be remembered
        counted = quantities_of(with_normalisation(graph), normalise)
        if counted.unknown:
            continue
        names.append(name)
        costs.append(astuple(graph.cost))
        totals.append(counted.total)
        kinds.append(set(counted.ops))
    columns = sorted(set[str]().union(*kinds))
    out = workloads.folder() / known.COUNTS
    with out.open("wb") as file:
        np.savez_compressed(
            file,
            names=np.array(names),
            costs=np.array(costs, dtype=float),
            kinds=np.array(columns),
            runs=np.array([[column in row for column in columns] for row in kinds]),
            quantities=np.array(QUANTITIES),
            totals=np.stack(totals),
        )
    sys.stdout.write(f"{len(names)} networks -> {out.name}, {out.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
