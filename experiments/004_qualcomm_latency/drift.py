"""The next SDK from five networks timed again, on AI Hub's history; see the README beside this file.

python experiments/004_qualcomm_latency/drift.py --data ../shared/data        a minute on one core; writes results/drift.json

Tested are all networks and parts that a board ran wholly on its NPU under QNN before an SDK and with it; of each side the newest timing counts. Five are
drawn from the fifths of the former latency, one each, and give the factor and the constant start; the others are predicted. Intervals are calibrated on
the releases up to 2.45, and tested on 2.50.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from nas.bench.aihub_jobs import Job, read_jobs
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.drift import HALFWIDTH_PCT, UNKNOWN_PCT, fit_drift, halfwidth_pct_of
from nas.devices.names import version_of

RESULTS = Path(__file__).parent / "results"
BOARD, NEW = "SA8295P ADP", "2.50.0"
DRAWS, PAST_DRAWS, BOOTSTRAP = 200, 10, 2000
FEWEST = 40
PRECISIONS = ("fp16", "w8a8", "w8a16")
Floats = npt.NDArray[np.float64]
Pairs = dict[str, tuple[float, float]]


def newest(jobs: list[Job]) -> float:
    day = max(job.date for job in jobs)
    return median(job.latency_ms for job in jobs if job.date == day)


def transitions(jobs: list[Job]) -> dict[tuple[str, str, str], Pairs]:
    """Return latencies before and with each SDK by (board, precision, SDK) and network."""
    held: dict[tuple[str, str], dict[str, dict[str, list[Job]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for job in {job.job: job for job in jobs}.values():
        if job.runtime in ("qnn", "qnn_dlc") and job.wholly_on_npu and job.precision in PRECISIONS and job.sdk:
            held[job.board, job.precision][f"{job.network}|{job.component}|{job.input}"][job.sdk].append(job)
    found: dict[tuple[str, str, str], Pairs] = defaultdict(dict)
    for (board, precision), networks in held.items():
        for network, by_sdk in networks.items():
            sdks = sorted(by_sdk, key=version_of)
            for before, after in itertools.pairwise(sdks):
                found[board, precision, after][network] = newest(by_sdk[before]), newest(by_sdk[after])
    return found


def predicted(pairs: Pairs, draws: int, rng: np.random.Generator, how: str) -> tuple[list[str], Floats, Floats]:
    """Return networks, log measured − log predicted and the half width of its interval in the logarithm of all draws, shape (n,) each."""
    names = sorted(pairs)
    before, after = np.array([pairs[name] for name in names]).T
    order = np.argsort(before)
    said: list[str] = []
    errors, halves = [], []
    for _ in range(draws if how == "five" else 1):
        five = np.array([rng.choice(part) for part in np.array_split(order, 5)])
        rest = np.setdiff1d(np.arange(len(names)), five) if how == "five" else np.arange(len(names))
        factor, start = fit_drift(before[five], after[five]) if how == "five" else (1.0, 0.0)
        errors.append(np.log(after[rest] / np.maximum(factor * before[rest] + start, 0.3 * factor * before[rest])))
        halves.append(np.full(len(rest), np.log1p(width_of(before[five], after[five], factor, start, how) / 100)))
        said += [names[i] for i in rest]
    return said, np.concatenate(errors), np.concatenate(halves)


def width_of(before: Floats, after: Floats, factor: float, start_ms: float, how: str) -> float:
    """Return the half width in per cent; that of contradictory networks, which an update refuses, as 100."""
    if how != "five":
        return UNKNOWN_PCT
    try:
        return halfwidth_pct_of(before.tolist(), after.tolist(), factor, start_ms)
    except ValueError:
        return 100.0


def within(errors: Floats, share: float) -> float:
    """Return the share of predictions within a share of the measured latency, in per cent."""
    return float(100 * np.mean(np.abs(np.exp(-errors) - 1) <= share))


def summary(names: list[str], errors: Floats, halves: Floats, lineages: dict[str, str], rng: np.random.Generator) -> dict[str, object]:
    groups = defaultdict(list)
    for name, error in zip(names, errors, strict=True):
        groups[lineage_of(name.partition("|")[0], lineages)].append(error)
    parts = [np.array(group) for group in groups.values()]
    drawn = [np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))]) for _ in range(BOOTSTRAP // 10)]
    interval = {f"within_{at}_pct": np.percentile([within(d, at / 100) for d in drawn], [5, 95]).round(1).tolist() for at in (5, 10)}
    return {
        "networks": len(set(names)),
        "lineages": len(parts),
        "within_5_pct": round(within(errors, 0.05), 1),
        "within_10_pct": round(within(errors, 0.10), 1),
        "interval_90_over_lineages": interval,
        "covered_pct": round(float(100 * np.mean(np.abs(errors) <= halves)), 1),
        "quantile_90_pct": round(float(100 * np.expm1(np.quantile(np.abs(errors), 0.9))), 1),
        "median_halfwidth_pct": round(float(100 * np.expm1(np.median(halves))), 1),
        "wider_than_least_pct": round(float(100 * np.mean(halves > np.log1p(HALFWIDTH_PCT / 100) + 1e-9)), 1),
        "above_upper_pct": round(float(100 * np.mean(errors > halves)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    started = time.process_time()
    rng = np.random.default_rng(0)
    found = transitions(read_jobs(options.data / "aihub_perf.csv.gz"))
    lineages = read_lineages()
    past = [pairs for (_, _, sdk), pairs in sorted(found.items()) if version_of(sdk) < version_of(NEW) and len(pairs) >= FEWEST]
    errors = np.concatenate([predicted(pairs, PAST_DRAWS, rng, "five")[1] for pairs in past])
    unmoved = np.concatenate([predicted(pairs, 1, rng, "no change")[1] for pairs in past])
    result: dict[str, object] = {
        "command": "python experiments/004_qualcomm_latency/drift.py --data ../shared/data",
        "board": BOARD,
        "sdk": NEW,
        "runtime": "qnn",
        "draws": DRAWS,
        "halfwidth_pct": HALFWIDTH_PCT,
        "past_transitions": len(past),
        "past_quantile_90_pct": round(float(100 * np.expm1(np.quantile(np.abs(errors), 0.9))), 1),
        "past_unmoved_quantile_90_pct": round(float(100 * np.expm1(np.quantile(np.abs(unmoved), 0.9))), 1),
    }
    for precision in PRECISIONS:
        pairs = found[BOARD, precision, NEW]
        result[precision] = {how: summary(*predicted(pairs, DRAWS, rng, how), lineages, rng) for how in ("no change", "five")}
    result |= {"processor_s": round(time.process_time() - started, 1), "python": platform.python_version(), "numpy": np.__version__}
    (RESULTS / "drift.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
