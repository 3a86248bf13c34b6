"""What each idea of `kernels` is worth on timm's tables: five folds over families with one idea taken away.

    python experiments/007_public_profiles/ablation.py --data ../shared/data

Writes results/ablation.json: mean and median error in percent by table and variant.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from run import tables

from latency_predictors import kernels
from latency_predictors._kernels import COLUMNS, State, _contiguous, _Walk
from nas.devices.predictor import Floats
from nas.graphs import workloads
from nas.graphs.graph import Graph, Operator


class OneSize(_Walk):
    """Every number takes what products take: nothing is cast."""

    def row(self, op: Operator) -> Floats:
        found = super().row(op)
        self.states |= {v.name: State(self.work, self.states[v.name].strides) for v in op.outputs}
        return found


class NoOrder(_Walk):
    """Every tensor lies as its operator would make it anew: nothing is copied."""

    def row(self, op: Operator) -> Floats:
        found = super().row(op)
        order = _contiguous if op.category == "matmul" else self.image_order
        self.states |= {v.name: State(self.states[v.name].number_bytes, order(v.shape)) for v in op.outputs}
        return found


def fit_to_nothing(x: Floats, latency_ms: Floats, families: Sequence[str], autocast: bool) -> Floats:
    """Return prices like `kernels.fit_prices`, drawn to zero."""
    common = kernels.common_prices(x, latency_ms, autocast)
    size = np.array([families.count(family) for family in families], dtype=float)
    found = [
        kernels._factors(x / latency_ms[:, None] * common, np.zeros(len(COLUMNS)), strength, size ** (-sharing / 2))
        for strength in kernels.STRENGTHS[autocast]
        for sharing in kernels.SHARING[not autocast]
    ]
    return np.asarray(np.mean(found, axis=0) * common)


VARIANTS: dict[str, tuple[Callable[[str], Graph], type[_Walk]]] = {
    "kernels": (workloads.load_as_written, _Walk),
    "deploy forms": (workloads.load, _Walk),
    "numbers of one size": (workloads.load_as_written, OneSize),
    "no memory order": (workloads.load_as_written, NoOrder),
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    timed: dict[str, dict[str, float]] = {}
    for row in tables(args.data)["timm"][1]:
        found = timed.setdefault(row.device, {})
        found[row.network] = min(row.ms, found.get(row.network, row.ms))
    names = sorted({name for found in timed.values() for name in found})
    results: dict[str, dict[str, object]] = {device: {} for device in timed}

    def note(device: str, variant: str, guess: Floats) -> None:
        error = np.abs(guess / np.array(list(timed[device].values())) - 1)
        found = {"mean_error_pct": 100 * float(np.minimum(error, 10).mean()), "median_error_pct": 100 * float(np.median(error))}
        results[device][variant] = {key: round(value, 2) for key, value in found.items()}
        print(device, variant, results[device][variant], flush=True)

    for variant, (load, walk) in VARIANTS.items():
        totals: dict[tuple[str, bool], Floats] = {}
        for name in names:
            graph = load(name)
            for autocast in (True, False):
                walked = walk(graph, autocast, None)
                totals[name, autocast] = np.sum([walked.row(op) for op in graph.operators], axis=0)
        for device, found in timed.items():
            autocast = device.startswith("rtx")
            x, y = np.array([totals[name, autocast] for name in found]), np.array(list(found.values()))
            families = [workloads.describe(name).family for name in found]
            note(device, variant, kernels.left_out(x, y, families, autocast))
            if variant == "kernels":
                note(device, "prices drawn to nothing", kernels.left_out(x, y, families, autocast, fit=fit_to_nothing))
    out = Path(__file__).parent / "results" / "ablation.json"
    out.write_text(json.dumps({"machine": platform.platform(), "numpy": np.__version__, "devices": results}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
