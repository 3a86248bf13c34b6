"""Timing K finalists, replayed on real tables: how often a budget breaks and how many points of accuracy are lost, with and without.

    python experiments/025_finalists/run.py --data ../shared/data

Two tables in which every candidate's latency was measured and its accuracy is known:

- AI Hub's classifiers on each board at each precision, by predictions of the Qualcomm model from which the network's whole lineage was left out
  (``experiments/004_qualcomm_latency/results/lineage_qnn.json``), with timm's ImageNet top-1;
- NAS-Bench-201's 15,625 architectures on the devices of HELP, by the predictor ``transfer`` from ten timings of the device, with CIFAR-100 accuracies.

A draw is a device and a budget, log-uniform between the 10th and the 90th percentile of its latencies. Without timings the most accurate candidate whose upper
end is within the budget is taken. With them, K are timed one after the other as `nas search --verify K` does (`nas.runs.delivery.next_finalist`), all estimates
are corrected (`nas.searching.correction`), and the choice is made again. Lost are the points of accuracy to the most accurate network that is truly within the
budget; broken is a budget that the chosen network's own timing exceeds; a draw in which nothing was admitted is counted by itself.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.searching.correction import Timed, correction_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LINEAGES = HERE.parent / "004_qualcomm_latency" / "results" / "lineage_qnn.json"
COMMAND = "python experiments/025_finalists/run.py --data ../shared/data"
COUNTS = (1, 3, 5, 10)
BUDGETS = 60
CONFIDENCE = 0.9
FEWEST = 12
TEN = 10
HELP = (
    "1080ti_1",
    "1080ti_32",
    "1080ti_256",
    "1080ti_64",
    "silver_4114",
    "silver_4210r",
    "samsung_a50",
    "pixel3",
    "essential_ph_1",
    "samsung_s7",
)
TARGETS = ("titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss")
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Candidates:
    """Networks on one device.

    Args:
        accuracy_pct: (n,).
        measured_ms: (n,) the device's word.
        interval: (3, n) lower end, central value, upper end of the estimates, ms.
    """

    def __init__(self, accuracy_pct: Floats, measured_ms: Floats, interval: Floats) -> None:
        self.accuracy_pct, self.measured_ms, self.interval = accuracy_pct, measured_ms, interval
        self.order = np.argsort(-accuracy_pct, kind="stable")

    def believed(self, timed: Sequence[int]) -> Floats:
        """Return the interval of each as the timings have it, (3, n)."""
        if not timed:
            return self.interval
        lower, central, upper = self.interval
        rows = {str(i): Timed(central[i], lower[i], upper[i], self.measured_ms[i]) for i in timed}
        found = correction_of(rows, CONFIDENCE)
        centre = central * found.factor
        ends = [centre * (end / central) ** found.width_factor for end in (lower, upper)]
        believed = np.stack([ends[0], centre, ends[1]])
        for i in timed:
            ms, spread = found.timed[str(i)]
            believed[:, i] = ms / spread, ms, ms * spread
        return believed

    def chosen(self, budget_ms: float, believed: Floats) -> int | None:
        """Return the most accurate whose upper end is within the budget."""
        return next((int(i) for i in self.order if believed[2, i] <= budget_ms), None)

    def finalist(self, budget_ms: float, believed: Floats, timed: Sequence[int]) -> int | None:
        """Return the one to be timed next, as `nas.runs.delivery.next_finalist` does."""
        held = max((self.accuracy_pct[i] for i in timed if believed[2, i] <= budget_ms), default=-1.0)
        better = [int(i) for i in self.order if i not in timed and self.accuracy_pct[i] > held]
        likely = [i for i in better if believed[1, i] <= budget_ms]
        possible = sorted((i for i in better if believed[0, i] <= budget_ms), key=lambda i: believed[1, i])
        rest = [int(i) for i in self.order if i not in timed and believed[2, i] <= budget_ms]
        return next(iter([*likely, *possible, *rest]), None)

    def replayed(self, budget_ms: float, count: int) -> int | None:
        """Return the choice after `count` timings."""
        timed: list[int] = []
        for _ in range(count):
            found = self.finalist(budget_ms, self.believed(timed), timed)
            if found is None:
                break
            timed.append(found)
        return self.chosen(budget_ms, self.believed(timed))


def replay(devices: Mapping[str, Candidates], seed: int = 0) -> dict[str, Any]:
    """Draw budgets on every device; return figures by number of timings, 0 for none."""
    rows: dict[int, list[tuple[str, float | None, bool]]] = {count: [] for count in (0, *COUNTS)}
    rng = np.random.default_rng(seed)
    for name, candidates in devices.items():
        low, high = np.log(np.quantile(candidates.measured_ms, (0.1, 0.9)))
        for budget_ms in np.exp(rng.uniform(low, high, BUDGETS)):
            fits = candidates.measured_ms <= budget_ms
            if not fits.any():
                continue
            best = candidates.accuracy_pct[fits].max()
            for count in rows:
                found = candidates.replayed(budget_ms, count)
                lost = None if found is None else max(0.0, float(best - candidates.accuracy_pct[found]))
                rows[count].append((name, lost, found is not None and not fits[found]))
    return {f"{count} timings": _figures(found) for count, found in rows.items()}


def _figures(rows: Sequence[tuple[str, float | None, bool]]) -> dict[str, float]:
    chosen = [(lost, broken) for _, lost, broken in rows if lost is not None]
    return {
        "draws": len(rows),
        "nothing_admitted_pct": 100 * (1 - len(chosen) / len(rows)),
        "mean_lost_points": float(np.mean([lost for lost, broken in chosen if not broken])),
        "lost_over_0.3_pct": 100 * float(np.mean([lost > 0.3 for lost, broken in chosen if not broken])),
        "broken_pct": 100 * float(np.mean([broken for _, broken in chosen])),
    }


def boards(data: Path) -> dict[str, dict[str, Candidates]]:
    """Return AI Hub's classifiers by precision and board."""
    with (data / "timm" / "results-imagenet.csv").open(encoding="utf-8") as file:
        published: dict[str, float] = {}
        for row in csv.DictReader(file):
            published.setdefault(row["model"].partition(".")[0], float(row["top1"]))
    with (data / "aihub_models.csv").open(encoding="utf-8") as file:
        top1 = {row["aihub_model"]: published[row["timm_name"]] for row in csv.DictReader(file) if row["timm_name"] in published}
    found: dict[str, dict[str, Candidates]] = {}
    for precision, part in json.loads(LINEAGES.read_text())["precisions"].items():
        for board, scores in part["boards"].items():
            rows = [n for n in scores["networks"] if n["name"] in top1]
            if len(rows) >= FEWEST:
                found.setdefault(precision, {})[board] = Candidates(
                    np.array([top1[n["name"]] for n in rows]),
                    np.array([n["measured_ms"] for n in rows]),
                    np.array([[n[end] for n in rows] for end in ("lower_ms", "latency_ms", "upper_ms")]),
                )
    return found


def cells(data: Path) -> Iterator[tuple[str, Candidates]]:
    """Yield NAS-Bench-201 on each target, predicted from ten timings."""
    from nas.devices.latency_table import read_latency_table
    from nas.devices.predictor import predictors

    table = read_latency_table(data / "latency_nasbench201.npz")
    accuracy = np.load(data / "nasbench201_accuracy.npz")
    top1 = accuracy["accuracy"][:, list(accuracy["columns"]).index("cifar100_test")]
    few_shot = predictors.get("transfer").few_shot()
    pool = list(range(900))
    rows = list(range(0, len(table.architectures), 5))  # a fifth of the table: 3,125 candidates
    graphs = [table.space.segments(table.architectures[i]) for i in (*pool, *rows)]
    prepared = few_shot.prepare(graphs, pool, {name: (pool, table.ms[name][pool]) for name in HELP if name in table.ms})
    asked = list(range(len(pool), len(graphs)))
    for device in (name for name in TARGETS if name in table.ms):
        latency_ms = table.ms[device]
        timed = few_shot.choose(prepared, pool, TEN, np.random.default_rng(0))
        mean, half, _ = few_shot.predict(prepared, timed, latency_ms[[pool[i] for i in timed]], asked, CONFIDENCE)
        ends = np.stack([np.maximum(mean - half, 1e-3 * mean), mean, mean + half])
        yield device, Candidates(np.asarray(top1)[rows], latency_ms[rows], ends)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    found = {f"AI Hub, {precision}": replay(devices) for precision, devices in boards(options.data).items()}
    found["NAS-Bench-201"] = replay(dict(cells(options.data)))
    about = {
        "command": COMMAND,
        "seed": 0,
        "confidence": CONFIDENCE,
        "budgets": BUDGETS,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(about | {"tables": found}, indent=1) + "\n")
    for name, part in found.items():
        for count, figures in part.items():
            print(name, count, {key: round(value, 2) for key, value in figures.items()})


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
