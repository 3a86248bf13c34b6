"""Which recipe of supernet training orders NAS-Bench-201 best for its minutes, and what ten true accuracies add.

    python experiments/029_supernet_ranking/run.py train --recipe fair --passes 24 --data cifar10_jpeg.tar.xz --out fair.safetensors
    python experiments/029_supernet_ranking/run.py score --weights fair.safetensors --data cifar10_jpeg.tar.xz --accuracies nasbench201_accuracy.npz --out fair.npz
    python experiments/029_supernet_ranking/run.py compare --accuracies nasbench201_accuracy.npz --scores fair.npz --free scores.npz --column cifar10_test
    python experiments/029_supernet_ranking/run.py compare --accuracies nasbench201_accuracy.npz --free scores.npz

`train` gives every recipe as many passes of a member over the pictures, so that their minutes are alike. `score` takes the thousand architectures that
experiments/020_training_free draws (seed 0) and 500 of the best tenth of all; both go on where they were stopped. `compare` takes what there is: a
supernet's scores, the training-free ones of that study, or both; known accuracies are drawn anew a hundred times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

import nas
from nas.spaces.naming import get_elastic_space, get_space
from nas.training.accuracy_table import read_accuracies
from nas.training.calibration import calibrate
from nas.training.rank import agreements, kendall
from nas.training.score import vote

HERE = Path(__file__).parent
SPACE = "nasbench201-c8n2"
SEED, DRAWN, BEST = 0, 1000, 500
KNOWN, REPEATS, EVERY = 10, 100, 20
VOTERS = ("naswot", "synflow", "expressivity")
MEMBERS = {"single-path": 1, "shared-batch": 1, "fair": 5, "sandwich": 4, "progressive-shrinking": 4, "pareto": 10}
"""Passes of a member over the pictures that an epoch takes; of a rival that only looks, a third of one."""

Array = npt.NDArray[np.float64]


def chosen(accuracy: Array) -> npt.NDArray[np.int64]:
    """Return the rows that are scored: those drawn from all, then those drawn from the best tenth by the first column."""
    drawn = np.random.default_rng(SEED).permutation(len(accuracy))[:DRAWN]
    best = np.flatnonzero(accuracy[:, 0] >= np.quantile(accuracy[:, 0], 0.9))
    return np.concatenate([drawn, np.random.default_rng(SEED + 1).permutation(best)[:BEST]])


def train(given: argparse.Namespace) -> None:
    """Train the supernet by a recipe, or go on."""
    names = tuple(given.recipe.split(","))
    epochs = max(1, round(given.passes / next((MEMBERS[name] for name in names if name in MEMBERS), MEMBERS["sandwich"])))
    began_s = time.process_time()
    trained = nas.train(data=given.data, space=SPACE, resolution=32, seed=given.seed, out=given.out, epochs=epochs, methods=names)
    print(f"{given.recipe}: {epochs} epochs, {(time.process_time() - began_s) / 60:.1f} processor minutes of this call; {trained.file}")


def score(given: argparse.Namespace) -> None:
    """Score the chosen rows with shared weights; what `--out` has already is not scored again."""
    from nas.training.dataset import load_dataset
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import load_supernet

    rows, _, accuracy = read_accuracies(given.accuracies)
    dataset = load_dataset(given.data, seed=given.seed)
    space = get_elastic_space(SPACE, num_classes=dataset.num_classes)
    evaluator = SupernetEvaluator(load_supernet(given.weights, space), dataset)
    wanted = chosen(accuracy)
    found = np.load(given.out)["supernet"] if given.out.exists() else np.full(len(wanted), np.nan)
    began_s = time.process_time()
    for i, row in enumerate(wanted):
        if np.isnan(found[i]):
            found[i] = evaluator.evaluate(space.parse(rows[row])).accuracy_pct
        if (i + 1) % EVERY == 0 or i + 1 == len(wanted):
            part = given.out.with_suffix(".part.npz")
            np.savez(part, supernet=found)
            os.replace(part, given.out)
            print(f"{i + 1} of {len(wanted)}, {time.process_time() - began_s:.0f} processor seconds", flush=True)


def compare(given: argparse.Namespace) -> None:
    """Write how supernet, vote, counting and calibrated scores order the networks."""
    rows, columns, accuracy = read_accuracies(given.accuracies)
    wanted = chosen(accuracy)
    parts: dict[str, Array] = {}
    if given.scores:
        parts["supernet"] = np.load(given.scores)["supernet"]
    if given.free:
        free = np.load(given.free)
        parts |= {name: np.append(free[name], np.full(len(wanted) - DRAWN, np.nan)) for name in VOTERS}
    known = np.flatnonzero(~np.isnan(np.stack(list(parts.values()))).any(axis=0))
    known = known[known < DRAWN] if given.free else known
    space = get_space("nasbench201")
    costs = [space.lower(space.parse(rows[i])).cost for i in wanted[known]]
    report: dict[str, object] = {}
    for at, column in enumerate(columns):
        if given.column and column != given.column:
            continue
        truth = accuracy[wanted[known], at]
        baselines = {"params": np.array([float(cost.params) for cost in costs])}
        if given.free:
            baselines["vote"] = vote(np.stack([parts[name][known] for name in VOTERS], axis=1))
        scores = {"supernet": parts["supernet"][known]} if given.scores else {}
        judged, compared = agreements(truth, scores, baselines, SEED)
        table: dict[str, object] = {name: entry.dump() for name, entry in (judged | compared).items()}
        table[f"calibrated by {KNOWN}"] = calibrated(np.stack([part[known] for part in parts.values()], axis=1), truth)
        report[column] = table
    facts = {
        "version": nas.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
        "seed": SEED,
        "networks": len(known),
        "scores": list(parts),
        "results": report,
    }
    (HERE / "results").mkdir(exist_ok=True)
    name = given.scores.stem if given.scores else "without_supernet"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


def calibrated(scores: Array, truth: Array) -> dict[str, float]:
    """Return what `KNOWN` true accuracies make of the scores, means over random choices of the known; the others are compared."""
    figures: dict[str, list[float]] = {
        name: [] for name in ("kendall", "top_tenth_kendall", "regret_points", "covered", "top_tenth_covered", "width")
    }
    rng = np.random.default_rng(SEED)
    for _ in range(REPEATS):
        known = rng.permutation(len(truth))[:KNOWN]
        rest = np.setdiff1d(np.arange(len(truth)), known)
        found = calibrate(scores, known, truth[known])
        own, predicted = truth[rest], found.accuracy_pct[rest]
        held = (own >= found.lower_pct[rest]) & (own <= found.upper_pct[rest])
        top = own >= np.quantile(own, 0.9)
        figures["kendall"].append(kendall(own, predicted) or 0.0)
        figures["top_tenth_kendall"].append(kendall(own[top], predicted[top]) or 0.0)
        figures["regret_points"].append(float(own.max() - own[int(np.argmax(predicted))]))
        figures["covered"].append(float(held.mean()))
        figures["top_tenth_covered"].append(float(held[top].mean()))
        figures["width"].append(float(np.median((found.upper_pct - found.lower_pct)[rest])))
    means = {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
    return means | {"kendall_sd": round(float(np.std(figures["kendall"])), 4)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "score", "compare"))
    parser.add_argument("--accuracies", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="sandwich", help="names joined by commas")
    parser.add_argument("--passes", type=float, default=24.0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--free", type=Path, help="of experiments/020_training_free")
    parser.add_argument("--column")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    {"train": train, "score": score, "compare": compare}[given.what](given)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
