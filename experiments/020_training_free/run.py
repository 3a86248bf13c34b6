"""How well training-free scores order NAS-Bench-201, beside counting.

    python experiments/020_training_free/run.py measure --accuracies nasbench201_accuracy.npz --out scores.npz
    python experiments/020_training_free/run.py compare --accuracies nasbench201_accuracy.npz --scores scores.npz

`measure` scores architectures drawn once (seed 0) and keeps what is done in `--out`; it can be stopped and goes on. `compare` writes
``results/ranking.json``. The accuracies are NAS-Bench-201's final test accuracies (arXiv 2001.00326). The vote of `nas.training.score` is taken among
the drawn networks themselves, that of AZ-NAS over its four with multiply-adds as complexity.
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
from scipy.stats import kendalltau, spearmanr

import nas
from nas.spaces.naming import get_space
from nas.training.accuracy_table import read_accuracies
from nas.training.evaluators.zero_cost import VOTERS, ZeroCost
from nas.training.memory import keep_freed_memory
from nas.training.score import scores, vote

HERE = Path(__file__).parent
SEED, DRAWN = 0, 1000
EVERY = 20
AZ_NAS = ("expressivity", "progressivity", "trainability")
THREE = ("naswot", "synflow", "expressivity")
"""The voters until 30 November 2026."""
RESAMPLES = 1000
Array = npt.NDArray[np.float64]


def drawn(path: Path) -> tuple[list[str], Array, list[str]]:
    """Return the drawn rows of the table, their accuracies and the names of the columns."""
    rows, columns, accuracy = read_accuracies(path)
    chosen = np.random.default_rng(SEED).permutation(len(rows))[:DRAWN]
    return [str(rows[i]) for i in chosen], accuracy[chosen], list(columns)


def measure(accuracies: Path, out: Path, names: tuple[str, ...], count: int, cells: str = "nasbench201") -> None:
    """Score the first `count` drawn networks by `names`, as members of a space of the benchmark's cells; processor seconds are kept beside the scores."""
    keep_freed_memory()
    rows, _, _ = drawn(accuracies)
    space = get_space(cells)
    judge = ZeroCost(space, SEED, voters=names)
    kept = dict(np.load(out)) if out.exists() else {}
    for name in names:
        kept.setdefault(name, np.full(DRAWN, np.nan))
        kept.setdefault(f"{name} s", np.full(DRAWN, np.nan))
    for i, row in enumerate(rows[:count]):
        todo = [name for name in names if np.isnan(kept[f"{name} s"][i])]
        if todo:
            probe = judge.probe(space.parse(row))
            for name in todo:
                began_s = time.process_time()
                kept[name][i] = scores.get(name)().measure(probe)
                kept[f"{name} s"][i] = time.process_time() - began_s
        if (i + 1) % EVERY == 0 or i + 1 == count:
            part = out.with_suffix(".part.npz")
            np.savez(part, **kept)  # type: ignore[arg-type]
            os.replace(part, out)
            print(f"{i + 1} of {count}", flush=True)


def agreement(found: Array, accuracy: Array) -> dict[str, object]:
    """Return how two orders agree, with bootstrap intervals over networks."""
    rng = np.random.default_rng(SEED)
    top = accuracy >= np.quantile(accuracy, 0.9)
    draws = [rng.integers(len(found), size=len(found)) for _ in range(RESAMPLES)]
    interval = np.quantile([float(spearmanr(found[rows], accuracy[rows]).statistic) for rows in draws], [0.05, 0.95])
    return {
        "spearman": round(float(spearmanr(found, accuracy).statistic), 4),
        "spearman_90": [round(float(v), 4) for v in interval],
        "kendall": round(float(kendalltau(found, accuracy).statistic), 4),
        "top_tenth_kendall": round(float(kendalltau(found[top], accuracy[top]).statistic), 4),
        "chosen_regret_points": round(float(accuracy.max() - accuracy[int(np.argmax(found))]), 3),
    }


def above(one: Array, other: Array, accuracy: Array) -> float:
    """Return in how many of the resamples one order has the higher Spearman correlation, in percent."""
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(len(one), size=len(one)) for _ in range(RESAMPLES)]
    ahead = [spearmanr(one[rows], accuracy[rows]).statistic > spearmanr(other[rows], accuracy[rows]).statistic for rows in draws]
    return 100 * float(np.mean(ahead))


def compare(accuracies: Path, path: Path) -> None:
    """Write how the scores, the votes and counting order the networks."""
    rows, accuracy, columns = drawn(accuracies)
    space, kept = get_space("nasbench201"), dict(np.load(path))
    costs = [space.lower(space.parse(row)).cost for row in rows]
    values: dict[str, Array] = {"params": np.array([float(c.params) for c in costs]), "macs": np.array([float(c.macs) for c in costs])}
    names = [name for name in scores.names() if name in kept]
    values |= {name: kept[name] for name in names}
    lowest = {name: float(np.nanmin(np.where(np.isfinite(v), v, np.nan))) for name, v in values.items()}
    values = {name: np.where(v == -np.inf, lowest[name] - 1.0, v) for name, v in values.items()}
    groups = {"vote": VOTERS, "three": THREE, "az-nas": (*AZ_NAS, "macs"), "vote and macs": (*VOTERS, "macs")}
    results: dict[str, object] = {}
    for column, label in enumerate(columns):
        table: dict[str, object] = {}
        for name, found in values.items():
            known = ~np.isnan(found)
            table[name] = {"n": int(known.sum())} | agreement(found[known], accuracy[known, column])
        votes: dict[str, Array] = {}
        for name, parts in groups.items():
            if all(part in values for part in parts):
                stacked = np.stack([values[part] for part in parts], axis=1)
                known = ~np.isnan(stacked).any(axis=1)
                table[name] = {"n": int(known.sum())} | agreement(vote(stacked[known]), accuracy[known, column])
                if known.all():
                    votes[name] = vote(stacked)
        if {"vote", "three"} <= set(votes):
            table["vote above three, % of resamples"] = above(votes["vote"], votes["three"], accuracy[:, column])
        results[label] = table
    seconds = {name: round(float(np.nanmedian(kept[f"{name} s"])), 3) for name in names}
    facts = {
        "version": nas.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "seed": SEED,
        "processor_seconds_a_network": seconds,
        "voters": VOTERS,
        "results": results,
    }
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / "ranking.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for label, table in results.items():
        print(label)
        for name, row in table.items():  # type: ignore[attr-defined]
            print(f"  {name:15} {row}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "compare"))
    parser.add_argument("--accuracies", type=Path, required=True)
    parser.add_argument("--out", "--scores", type=Path, default=Path("scores.npz"))
    parser.add_argument("--names", default=",".join(VOTERS))
    parser.add_argument("--space", default="nasbench201", help="nasbench201-c8n2 for networks of 8 channels and 2 cells a stage")
    parser.add_argument("--count", type=int, default=DRAWN)
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.accuracies, given.out, tuple(given.names.split(",")), given.count, given.space)
    else:
        compare(given.accuracies, given.out)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
