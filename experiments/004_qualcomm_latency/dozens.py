"""What each further dozen of networks is worth: the two headline protocols by fits to a draw of so many, at fp16. See the README beside this file.

python experiments/004_qualcomm_latency/dozens.py --data ../shared/data

Of the networks that a protocol may fit, 12, 24, … are drawn (seeded), and the same networks are tested by each fit: those first timed from a month on, and
lineages left out, dealt to four folds. Writes results/dozens_qnn.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from protocols import MONTH, enough
from run import RESULTS, SEED, about, networks_of, predicted, write_json

from latency_predictors.physical import Physical
from nas.bench.aihub import read_table, samples_of, single_images
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score

COMMAND = "python experiments/004_qualcomm_latency/dozens.py --data ../shared/data"
DOZEN, FOLDS = 12, 4
BOARD = "sa8295p"


def folds_of(samples: Sequence[Sample], lineages: Mapping[str, str]) -> list[set[str]]:
    """Deal lineages to folds, the largest first to the smallest fold."""
    count: dict[str, int] = {}
    for name in {s.name for s in samples}:
        count[lineages[name]] = count.get(lineages[name], 0) + 1
    folds: list[set[str]] = [set() for _ in range(FOLDS)]
    for lineage in sorted(count, key=lambda name: (-count[name], name)):
        min(folds, key=lambda fold: sum(count[name] for name in fold)).add(lineage)
    return folds


def curve(
    splits: Sequence[tuple[Sequence[Sample], Sequence[Sample]]], lineages: Mapping[str, str], draws: int, members: int
) -> dict[str, Any]:
    """Return errors by how many networks were drawn for the fit, over all splits (what may be fitted, what is tested)."""
    rng = np.random.default_rng(SEED)
    held: dict[int, list[list[Prediction]]] = {}
    boards: dict[int, list[float]] = {}
    for fitted, tested in splits:
        names = sorted({s.name for s in fitted})
        for draw in range(draws):
            order = rng.permutation(names).tolist()
            for size in [*range(DOZEN, len(names), DOZEN), len(names)]:
                if size == len(names) and draw:
                    continue
                chosen = set(order[:size])
                found = list(predicted(Physical(members, SEED).fit([s for s in fitted if s.name in chosen]), tested))
                key = size if size % DOZEN == 0 else 0
                held.setdefault(key, []).append([p for s, p in found if s.device == BOARD])
                boards.setdefault(key, []).append(float(np.mean([abs(p.latency_ms / p.measured_ms - 1) for _, p in found])) * 100)
    result: dict[str, Any] = {}
    for size in sorted(held, key=lambda n: n or 10**6):
        scores = score([p for part in held[size] for p in part], groups=lineages)
        result[str(size or "all")] = {
            key: getattr(scores, key)
            for key in (
                "networks_tested",
                "lineages_tested",
                "mean_error_pct",
                "mean_error_interval_pct",
                "median_error_pct",
                "coverage_pct",
            )
        } | {"fits": len(held[size]), "all_boards_mean_error_pct": float(np.mean(boards[size]))}
        print(size or "all", result[str(size or "all")], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--members", type=int, default=12)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    _, graphs, families, lineages, _ = networks_of(options.data)
    images = set(single_images(graphs))

    def timed(before: str | None = None) -> list[Sample]:
        table = read_table(options.data / "aihub_perf.csv.gz", graphs, "qnn", before=before)
        return [s for s in enough(samples_of(table, graphs, families)) if s.precision == "fp16"]

    known, samples = timed(MONTH), timed()
    names, keys = {s.name for s in known}, {s.graph.key for s in known}
    later = [s for s in samples if s.name in images and not (s.name in names or s.graph.key in keys)]
    splits = []
    for fold in folds_of(samples, lineages):
        out = {s.graph.key for s in samples if lineages[s.name] in fold}
        splits.append(
            ([s for s in samples if s.graph.key not in out], [s for s in samples if lineages[s.name] in fold and s.name in images])
        )
    write_json(
        RESULTS / "dozens_qnn.json",
        about(options)
        | {
            "command": COMMAND,
            "draws": options.draws,
            "may_be_fitted": {f"release:{MONTH}": len(names), "lineage": [len({s.name for s in fitted}) for fitted, _ in splits]},
            f"release:{MONTH}": curve([(known, later)], lineages, options.draws, options.members),
            "lineage": curve(splits, lineages, options.draws, options.members),
        },
    )


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
