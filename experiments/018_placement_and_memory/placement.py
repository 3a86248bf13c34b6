"""Whether TFLite and ONNX Runtime run a network wholly on the NPU, lineages left out; see the README beside this file.

python experiments/018_placement_and_memory/placement.py --data ../shared/data    a minute on one core; writes results/placement.json and
                                                                                 into hardware_profiles/placement.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nas.bench.aihub import graphs_of, read_models
from nas.bench.aihub_jobs import Job, read_jobs
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.names import slug
from nas.devices.placement import Placed, kinds_of, learn, placement_by

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "hardware_profiles" / "placement.json"
RUNTIMES = ("tflite", "onnx")
SINCE = "2026-01"
"""Boards that were timed last before are a board of their own: software was another."""


def newest(jobs: list[Job]) -> list[Job]:
    """Return the newest job of each network, precision, board and runtime."""
    found = {}
    for job in sorted({job.job: job for job in jobs}.values(), key=lambda job: job.date):
        if job.runtime in RUNTIMES:
            found[job.network, job.precision, job.board, job.runtime] = job
    return list(found.values())


def board_of(job: Job) -> str:
    name = slug(job.board) + ("" if job.runtime == "qnn" else f"-{job.runtime}")
    return name if job.date >= SINCE else f"{name} before {SINCE}"


def group_of(job: Job, floating: set[tuple[str, str]]) -> str:
    """Return what a board lacks at a precision: whether it runs no float on its NPU, and whether the network is float, quantised or a mixture."""
    sort = "float" if job.precision == "fp16" else "mixed" if "mixed" in job.precision else "quantised"
    return sort if (job.runtime, job.board) in floating else f"{sort}, no float on the NPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    started = time.process_time()
    graphs, _, _ = graphs_of(read_models(options.data / "aihub_models.csv"))
    lineages = read_lineages()
    every = newest(read_jobs(options.data / "aihub_perf.csv.gz"))
    floating = {(job.runtime, job.board) for job in every if job.precision == "fp16" and job.wholly_on_npu}
    floating = {
        key
        for key in floating
        if np.mean([job.wholly_on_npu for job in every if (job.runtime, job.board) == key and job.precision == "fp16"]) > 0.5
    }
    result: dict[str, Any] = {"command": "python experiments/018_placement_and_memory/placement.py --data ../shared/data"}
    shipped: dict[str, Any] = {}
    for runtime in RUNTIMES:
        jobs = [job for job in every if job.runtime == runtime and job.network in graphs]
        rows = [
            Placed(
                kinds_of(graphs[job.network]),
                lineage_of(job.network, lineages),
                board_of(job),
                group_of(job, floating),
                job.precision,
                not job.wholly_on_npu,
                not job.layers_npu,
            )
            for job in jobs
        ]
        chance, named = np.zeros(len(rows)), [""] * len(rows)
        for lineage in sorted({row.lineage for row in rows}):
            rules = learn([row for row in rows if row.lineage != lineage])
            for i, row in enumerate(rows):
                if row.lineage == lineage:
                    chance[i], named[i] = placement_by(rules, row.kinds, row.board, row.group, row.precision)
                    chance[i] -= rules["limit"]
        fell = np.array([row.fell for row in rows])
        said = chance >= 0
        whole = learn(rows)
        final = [placement_by(whole, row.kinds, row.board, row.group, row.precision)[1] for row in rows]
        part = np.array([job.layers_npu > 0 for job in jobs])
        scored = [i for i in range(len(rows)) if fell[i] and part[i]]
        result[runtime] = {
            "rows": len(rows),
            "networks": len({job.network for job in jobs}),
            "lineages": len({row.lineage for row in rows}),
            "fell": int(fell.sum()),
            "fell_in_part": len(scored),
            "constant_accuracy_pct": round(100 * float(1 - fell.mean()), 1),
            "accuracy_pct": round(100 * float((said == fell).mean()), 1),
            "balanced_accuracy": round(float((said[fell].mean() + (~said[~fell]).mean()) / 2), 3),
            "found_of_the_fallen_pct": round(100 * float(said[fell].mean()), 1),
            "right_of_the_others_pct": round(100 * float((~said[~fell]).mean()), 1),
            "named_an_operator_pct": round(100 * float(np.mean([bool(named[i]) for i in scored])), 1) if scored else None,
            "same_operator_as_all_rows_name_pct": round(100 * float(np.mean([named[i] == final[i] != "" for i in scored])), 1)
            if scored
            else None,
            "missed_by_board": dict(
                Counter(f"{rows[i].board}|{rows[i].precision}" for i in range(len(rows)) if fell[i] and not said[i]).most_common(8)
            ),
        }
        shipped[runtime] = {
            "rules": {
                **whole,
                "boards": {k: v for k, v in whole["boards"].items() if " before " not in k},
            },
            "groups": {f"{row.board}|{row.precision}": row.group for row in rows if " before " not in row.board},
            "slower": slower(every, runtime),
            "balanced_accuracy": result[runtime]["balanced_accuracy"],
        }
        result[runtime]["operators"] = whole["operators"]
        result[runtime]["slower"] = shipped[runtime]["slower"]
    ship(shipped, {"title": "layer counts of Qualcomm AI Hub models, perf.yaml", "licence": "BSD-3-Clause", "command": result["command"]})
    result |= {"processor_s": round(time.process_time() - started, 1), "python": platform.python_version()}
    (HERE / "results" / "placement.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def ship(runtimes: dict[str, Any], origin: dict[str, str]) -> None:
    """Put what was learnt of some runtimes into the shipped file; that of others stays."""
    held = json.loads(SHIPPED.read_text()) if SHIPPED.exists() else {"runtimes": {}}
    known = held["runtimes"] | {name: learnt | {"origin": origin} for name, learnt in runtimes.items()}
    SHIPPED.write_text(json.dumps({"runtimes": known}, indent=1) + "\n")


def slower(jobs: list[Job], runtime: str) -> dict[str, float | None]:
    """Return how many times longer networks took that fell in part or whole, against the same network wholly on the NPU of other boards, boards made alike."""
    good: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for job in jobs:
        if job.runtime == runtime and job.wholly_on_npu:
            good[job.network, job.component, job.precision][job.board] = job.latency_ms
    speed: dict[str, list[float]] = defaultdict(list)
    for held in good.values():
        middle_ms = median(held.values())
        for board, ms in held.items():
            speed[board].append(ms / middle_ms)
    found: dict[str, list[float]] = {"part": [], "whole": []}
    for job in jobs:
        held = good.get((job.network, job.component, job.precision), {})
        if job.runtime == runtime and not job.wholly_on_npu and len(held) > 1 and len(speed[job.board]) > 5:
            expected = median(ms / median(speed[board]) for board, ms in held.items()) * median(speed[job.board])
            found["part" if job.layers_npu else "whole"].append(job.latency_ms / expected)
    return {key: round(median(values), 1) if values else None for key, values in found.items()}


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
