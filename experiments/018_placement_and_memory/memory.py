"""Peak memory of processes on Qualcomm's boards, fitted and judged with lineages left out; see the README beside this file.

python experiments/018_placement_and_memory/memory.py --data ../shared/data      a minute on one core; writes results/memory.json and
                                                                                hardware_profiles/peak_memory.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from nas.bench.aihub import graphs_of, read_models
from nas.bench.aihub_jobs import Job, read_jobs
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.names import slug
from nas.devices.peak_memory import COLUMNS, columns_of

HERE = Path(__file__).parent
RUNTIMES = {"qnn": "qnn", "qnn_dlc": "qnn", "tflite": "tflite", "onnx": "onnx"}
PRECISIONS = ("fp16", "w8a8", "w8a16")
FIRMNESS, ROUNDS, GRAIN = 0.05, 6, 0.1
FEWEST_NETWORKS, FEWEST_LINEAGES = 30, 8
SEEN_MB = 10.0
"""A board whose processes show less in the middle counts the network elsewhere: it has a row in the results, and no prediction."""
Floats = npt.NDArray[np.float64]


def fit(x: Floats, y: Floats) -> Floats:
    """Return coefficients, none negative, shape (columns,)."""
    relative = x / y[:, None]
    scale = 1 / (np.sqrt((relative**2).mean(axis=0)) + 1e-12)
    rows, weight = relative * scale, np.ones(len(y))
    found = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        design = np.concatenate([rows * weight[:, None], FIRMNESS * math.sqrt(len(y)) * np.eye(x.shape[1])])
        found = nnls(design, np.concatenate([weight, np.zeros(x.shape[1])]), maxiter=5000)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(rows @ found - 1), GRAIN) / GRAIN)
    return np.asarray(found * scale)


def left_out(x: Floats, y: Floats, lineages: list[str]) -> Floats:
    """Return predictions, each by a fit without the network's lineage, shape (n,)."""
    guess = np.zeros(len(y))
    for lineage in set(lineages):
        out = np.array([name == lineage for name in lineages])
        guess[out] = x[out] @ fit(x[~out], y[~out])
    return np.maximum(guess, 0.1)


def spread_of(errors: Floats) -> float:
    """Return the factor within which 90 % of new networks lie."""
    return float(np.exp(np.quantile(np.abs(errors), min(1.0, 0.9 * (1 + 1 / len(errors))))))


def newest(jobs: list[Job]) -> dict[tuple[str, str, str], dict[str, Job]]:
    """Return the newest job that ran wholly on the NPU by (board, runtime, precision) and network."""
    found: dict[tuple[str, str, str], dict[str, Job]] = defaultdict(dict)
    for job in sorted({job.job: job for job in jobs}.values(), key=lambda job: (job.date, job.job)):
        if job.runtime in RUNTIMES and job.precision in PRECISIONS and job.wholly_on_npu and job.peak_memory_mb:
            found[slug(job.board), RUNTIMES[job.runtime], job.precision][job.network] = job
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    started = time.process_time()
    graphs, _, _ = graphs_of(read_models(options.data / "aihub_models.csv"))
    lineages = read_lineages()
    rows: list[dict[str, Any]] = []
    devices: dict[str, dict[str, Any]] = defaultdict(dict)
    pooled: dict[str, list[Floats]] = defaultdict(list)
    for (board, runtime, precision), jobs in sorted(newest(read_jobs(options.data / "aihub_perf.csv.gz")).items()):
        names = sorted(set(jobs) & set(graphs))
        groups = [lineage_of(name, lineages) for name in names]
        if len(names) < FEWEST_NETWORKS or len(set(groups)) < FEWEST_LINEAGES:
            continue
        x = np.array([columns_of(graphs[name], precision) for name in names])
        y = np.array([float(jobs[name].peak_memory_mb or 0) for name in names])
        errors = np.log(y / left_out(x, y, groups))
        inside = [abs(errors[i]) <= math.log(spread_of(errors[np.array(groups) != groups[i]])) for i in range(len(y))]
        relative = np.abs(np.expm1(-errors))
        row = {
            "board": board,
            "runtime": runtime,
            "precision": precision,
            "networks": len(y),
            "lineages": len(set(groups)),
            "median_mb": median(y.tolist()),
            "median_error_pct": round(100 * float(np.median(relative)), 1),
            "mean_error_pct": round(100 * float(relative.mean()), 1),
            "constant_median_error_pct": round(100 * float(np.median(np.abs(np.median(y) / y - 1))), 1),
            "spread": round(spread_of(errors), 3),
            "covered_pct": round(100 * float(np.mean(inside)), 1),
        }
        rows.append(row)
        seen = row["median_mb"] >= SEEN_MB
        pooled[runtime].append(relative)
        pooled["all"].append(relative)
        pooled["all, boards that show it" if seen else "all, boards that do not"].append(relative)
        name = board if runtime == "qnn" else f"{board}-{runtime}"
        if seen and runtime in ("qnn", "tflite"):
            prices = dict(zip(COLUMNS, fit(x, y).tolist(), strict=True))
            devices[name][precision] = {
                "mb": {column: float(f"{price:.5g}") for column, price in prices.items() if price > 0},
                **{key: row[key] for key in ("spread", "networks", "lineages", "median_error_pct", "covered_pct")},
            }
    command = "python experiments/018_placement_and_memory/memory.py --data ../shared/data"
    about = {
        "title": "upper end of the range of a process's memory, Qualcomm AI Hub models, perf.yaml",
        "reference": "https://github.com/quic/ai-hub-models",
        "licence": "BSD-3-Clause",
        "command": command,
    }
    (HERE.parents[1] / "hardware_profiles" / "peak_memory.json").write_text(
        json.dumps({"origin": about, "devices": devices}, indent=1) + "\n"
    )
    summary = {
        "command": command,
        "pooled_median_error_pct": {key: round(100 * float(np.median(np.concatenate(parts))), 1) for key, parts in pooled.items()},
        "mean_of_medians_pct": {key: round(100 * float(np.mean([np.median(part) for part in parts])), 1) for key, parts in pooled.items()},
        "covered_pct": round(float(np.average([row["covered_pct"] for row in rows], weights=[row["networks"] for row in rows])), 1),
        "predictions": sum(row["networks"] for row in rows),
        "processor_s": round(time.process_time() - started, 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    (HERE / "results" / "memory.json").write_text(json.dumps(summary | {"rows": rows}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
