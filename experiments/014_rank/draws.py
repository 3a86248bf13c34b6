"""What ten known accuracies make of scores, over many draws of the ten: the calibration of `nas rank --known`, from more and fewer kinds of scores.

    python experiments/014_rank/draws.py --data /tmp/cifar-1000 --ranking experiments/014_rank/results/hybrid-s-sandwich.json

Accuracies, shared scores, multiply-adds and latencies are those of the ranking; training-free scores of its networks are measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.training.calibration import calibrate
from nas.training.dataset import load_dataset
from nas.training.evaluators.zero_cost import ZeroCost
from nas.training.rank import kendall

HERE = Path(__file__).parent
KNOWN, DRAWS = 10, 200
SETS = {
    "features, training-free (before)": ("features", "free"),
    "features, training-free, multiply-adds": ("features", "free", "macs"),
    "features, training-free, multiply-adds, latencies (nas rank)": (
        "features",
        "free",
        "macs",
        "latency_ms/sa8295p",
        "latency_ms/hailo-8",
    ),
    "shared accuracy too": ("supernet", "features", "free", "macs", "latency_ms/sa8295p", "latency_ms/hailo-8"),
}


def main() -> None:
    """Write ``results/draws-NAME.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ranking", type=Path, required=True)
    given = parser.parse_args()
    ranking = json.loads(given.ranking.read_text())["result"]
    dataset = load_dataset(given.data, seed=0)
    space = get_space(ranking["space"], num_classes=dataset.num_classes)
    judge = ZeroCost(space, 0, dataset)
    networks = ranking["networks"]
    columns = {name: np.array([network["scores"][name] for network in networks])[:, None] for name in networks[0]["scores"]}
    columns["free"] = np.array([judge.measure(Architecture.from_json(network["architecture"])) for network in networks])
    accuracy = np.array([network["accuracy_pct"] for network in networks])
    rng = np.random.default_rng(0)
    draws = [rng.permutation(len(networks))[:KNOWN] for _ in range(DRAWS)]
    found = {}
    for name, names in SETS.items():
        scores = np.hstack([columns[one] for one in names])
        rows = []
        for known in draws:
            rest = np.setdiff1d(np.arange(len(networks)), known)
            one = calibrate(scores, known, accuracy[known])
            held = (accuracy >= one.lower_pct) & (accuracy <= one.upper_pct)
            width = np.median((one.upper_pct - one.lower_pct)[rest])
            rows.append((kendall(accuracy[rest], one.accuracy_pct[rest]) or 0.0, held[rest].mean(), width))
        found[name] = {
            key: round(float(value), 3) for key, value in zip(("kendall", "covered", "width_points"), np.mean(rows, axis=0), strict=True)
        }
    report = {"ranking": given.ranking.name, "known": KNOWN, "draws": DRAWS, "seed": 0, "found": found}
    (HERE / "results" / f"draws-{given.ranking.name}").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
