"""What it costs to take the faster of two networks that a paired test cannot tell apart, where a budget is given.

    python experiments/032_choice_among_equals/run.py --latencies latency_nasbench201.npz --accuracies nasbench201_accuracy.npz

Searches are replayed on NAS-Bench-201: 120 random architectures, a budget at a quantile of their latencies, and scores on validation pictures that are drawn from
the published accuracies: a picture is named rightly with a chance that falls with its difficulty, the same for all networks, so that networks err on the same
pictures. Where shared weights score, a network's accuracy is first moved by a normal error. The choice of each rule is judged by its published accuracy.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np

from nas.errors import run_script
from nas.runs.choice import LEVEL, mcnemar_p
from nas.searching.pareto import front
from nas.training.accuracy_table import read_accuracies

HERE = Path(__file__).parent
CANDIDATES, REPEATS = 120, 60
QUANTILES = (0.3, 0.6, 1.0)
SPREAD = 4.0
"""Standard deviation of the difficulties, in logits: networks of 90 % then agree on some 95 % of the pictures."""


def main() -> None:
    """Replay, and write ``results/COLUMN-DEVICE-PICTURES.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latencies", type=Path, required=True)
    parser.add_argument("--accuracies", type=Path, required=True)
    parser.add_argument("--device", default="pixel3")
    parser.add_argument("--column", default="cifar10_test")
    parser.add_argument("--pictures", type=int, default=1000, help="of validation")
    given = parser.parse_args()
    _, columns, accuracies = read_accuracies(given.accuracies)  # in the order of the latencies
    accuracy = accuracies[:, list(columns).index(given.column)]
    with np.load(given.latencies) as latencies:
        ms = latencies[f"ms/{given.device}"]
    usable = np.flatnonzero(np.isfinite(ms) & (accuracy > 50))
    rows = []
    for error in (0.0, 2.0):
        for quantile in QUANTILES:
            rows.append(_row(ms[usable], accuracy[usable], given.pictures, error, quantile))
            print(rows[-1], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    settings = {
        "candidates": CANDIDATES,
        "repeats": REPEATS,
        "spread": SPREAD,
        "level": LEVEL,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    (HERE / "results" / f"{given.column}-{given.device}-{given.pictures}.json").write_text(
        json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n"
    )


def _row(ms: np.ndarray, accuracy: np.ndarray, pictures: int, error: float, quantile: float) -> dict[str, float]:
    rng = np.random.default_rng([pictures, int(10 * error), int(10 * quantile)])
    lost, spent = {"faster": [], "accurate": []}, {"faster": [], "accurate": []}
    for _ in range(REPEATS):
        drawn = rng.permutation(len(ms))[:CANDIDATES]
        budget = float(np.quantile(ms[drawn], quantile))
        inside = drawn[ms[drawn] <= budget]
        seen = np.clip(accuracy[inside] + error * rng.normal(size=len(inside)), 1, 99.5)
        right = _right(seen, pictures, rng)
        score = right.mean(1)
        best = front([(-score[i], ms[inside[i]]) for i in range(len(inside))])
        top = max(best, key=lambda i: (score[i], -ms[inside[i]]))
        alike = [i for i in best if i == top or mcnemar_p(right[top], right[i]) >= LEVEL]
        chosen = {"faster": min(alike, key=lambda i: ms[inside[i]]), "accurate": top}
        for rule, i in chosen.items():
            lost[rule].append(accuracy[inside].max() - accuracy[inside[i]])
            spent[rule].append(ms[inside[i]] / budget)
    found: dict[str, float] = {"pictures": pictures, "error_of_scores": error, "budget_quantile": quantile}
    for rule in lost:
        found |= {
            f"{rule}_lost_points": round(float(np.mean(lost[rule])), 2),
            f"{rule}_share_of_budget": round(float(np.mean(spent[rule])), 2),
        }
        found |= {f"{rule}_within_1_point_pct": round(100 * float(np.mean(np.array(lost[rule]) <= 1)), 0)}
    return found


def _right(accuracy: np.ndarray, pictures: int, rng: np.random.Generator) -> np.ndarray:
    """Return which pictures each network names: (networks, pictures); difficulties are the pictures' own."""
    abilities, grid = np.linspace(-15, 25, 400), np.random.default_rng(0).normal(0, SPREAD, 4000)
    reached = (1 / (1 + np.exp(grid - abilities[:, None]))).mean(1)  # the accuracy of each ability
    ability = np.interp(accuracy / 100, reached, abilities)
    difficulty = rng.normal(0, SPREAD, pictures)
    return rng.random((len(accuracy), pictures)) < 1 / (1 + np.exp(difficulty - ability[:, None]))


if __name__ == "__main__":
    run_script(main)
