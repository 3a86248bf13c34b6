"""How much of a table can be ranked at all: five-fold held-out Spearman of plain fits to the whole table, for the targets that fall short.

    python experiments/006_transfer/ceilings.py --data ../shared/data

``counts``: ridge on how often each choice stands anywhere; ``positions``: ridge on the choice at each position; ``pairs``: ridge on pairs of those too;
``sisters``: ridge on positions and on all other devices' timings of the same architecture. What ``sisters`` does not explain, no effect
of the architecture does that another device shares.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from nas.bench.latency_transfer import TransferProtocol, split
from nas.devices.latency_table import LatencyTable, read_latency_table

TARGETS = {
    "nasbench201": "pixel2 gold_6226 titan_rtx_256 1080ti_1 2080ti_1 titan_rtx_1 titanxp_1 2080ti_32 titanxp_32",
    "fbnet": "pixel2 essential_ph_1 samsung_s7 samsung_a50 gold_6226 1080ti_1",
}


def held_out(features: Any, latency_ms: Any, make: Any, fold: Any) -> Any:
    """Return predictions of each row by a fit to the other four fifths; the slowest and fastest 0.5 % are clipped in the fit."""
    clipped = np.clip(latency_ms, *np.quantile(latency_ms, (0.005, 0.995)))
    guess = np.zeros(len(latency_ms))
    for k in range(5):
        guess[fold == k] = make().fit(features[fold != k], clipped[fold != k]).predict(features[fold == k])
    return guess


def ceilings(table: LatencyTable, device: str) -> dict[str, float]:
    """Return Spearman by kind of features, over the whole table and over HELP's trimmed query."""
    y = table.column(device)
    codes = np.array([table.space.encode(a) for a in table.architectures])
    one_hot = np.eye(codes.max() + 1)[codes]
    counts, positions = one_hot.sum(1), one_hot.reshape(len(codes), -1)
    fold = np.random.default_rng(0).integers(0, 5, len(y))
    columns = {"counts": (counts, lambda: Ridge(0.1)), "positions": (positions, lambda: Ridge(1.0))}
    if positions.shape[1] < 50:
        first, second = np.triu_indices(positions.shape[1], 1)
        pairs = positions[:, first] * positions[:, second]
        columns["pairs"] = (np.concatenate([positions, pairs[:, pairs.any(0)]], axis=1), lambda: Ridge(10.0))
    others = np.stack([np.log(table.ms[other]) for other in table.ms if other != device], axis=1)
    columns["sisters"] = (np.concatenate([positions, (others - others.mean(0)) / others.std(0)], axis=1), lambda: Ridge(1.0))
    _, query = split(y, TransferProtocol(train_samples=900, query=1000, trim=0.1))
    found = {}
    for name, (features, make) in columns.items():
        guess = held_out(features, y, make, fold)
        found[name] = float(spearmanr(guess, y).statistic)
        found[f"{name}_help"] = float(spearmanr(guess[query], y[query]).statistic)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ceilings.json")
    args = parser.parse_args()
    result: dict[str, dict[str, dict[str, float]]] = {}
    for space, devices in TARGETS.items():
        table = read_latency_table(args.data / f"latency_{space}.npz")
        for device in devices.split():
            result.setdefault(space, {})[device] = found = ceilings(table, device)
            print(space, device, {name: round(value, 4) for name, value in found.items()}, flush=True)
    args.out.write_text(json.dumps({"seed": 0, "tables": result}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
