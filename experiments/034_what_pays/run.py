"""What a score pays: searches by each kind of score against a member drawn at random, each with the same minutes until its file is tested.

    python experiments/021_own_pictures/subset.py --data cifar10_jpeg.tar.xz --each 1000 --out /tmp/cifar-1000
    python experiments/034_what_pays/run.py --data /tmp/cifar-1000 --work /tmp/what-pays --seeds 3

Each row is a `nas search` from nothing under a time limit: by shared weights (`supernet-in-time` and `supernet`, with the sizes of picture that the space offers, and the former at the size of the pictures, 32), by a vote of
training-free scores whose choice is trained alone (`alone`), and by nothing (`random`: the first member that is drawn within the same bounds, trained alone). Test accuracy is of the exported file. What is done is in ``--work``; the same
command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nas
from nas.runs.lifecycle import show
from nas.training.note import noted

HERE = Path(__file__).parent
KINDS: dict[str, dict[str, Any]] = {
    "random": {"evaluator": "alone", "searcher": "random", "evals": 1},
    "alone": {"evaluator": "alone"},
    "supernet-in-time": {"evaluator": "supernet-in-time"},
    "supernet-in-time at the pictures' size": {"evaluator": "supernet-in-time", "resolution": "32"},
    "supernet": {"evaluator": "supernet"},
}


def searched(given: argparse.Namespace, kind: str, seed: int) -> dict[str, object]:
    """Run a search; what a run that was killed has left is begun anew, since the time that it was away would count."""
    folder = given.work / f"{slug(kind)}-{seed}"
    if (folder / "results.json").is_file():
        return shown(show(folder))
    shutil.rmtree(folder, ignore_errors=True)
    limit = f"{given.minutes:g}min"
    found = nas.search(
        given.device, given.budget, space=given.space, data=given.data, time_limit=limit, seed=seed, out=folder, **KINDS[kind]
    )
    return shown(found)


def slug(kind: str) -> str:
    """Return a kind as a part of a file's name."""
    return kind.replace("'", "").replace(" ", "-")


def shown(found: nas.Result) -> dict[str, object]:
    """Return what is kept of a search."""
    assert found.chosen is not None
    assert found.ledger is not None
    facts = {"test_pct": found.chosen.accuracy_pct, "resolution": found.chosen.resolution, "macs": found.chosen.macs}
    return facts | {"latency_ms": found.chosen.latency_ms, "evaluations": found.evaluations, "ledger": found.ledger.dump()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--budget", default="5ms")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--name", help="of the file in results/; else the space and the minutes")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for kind in given.kinds:
            note = given.work / f"{slug(kind)}-{seed}.json"
            rows.append({"kind": kind, "seed": seed} | noted(note, partial(searched, given, kind, seed)))
            print(rows[-1], flush=True)
    by_kind = {kind: [float(row["test_pct"]) for row in rows if row["kind"] == kind] for kind in given.kinds}
    report = {
        "space": given.space,
        "data": Path(given.data).name,
        "device": given.device,
        "budget": given.budget,
        "minutes": given.minutes,
        "mean_pct": {kind: round(float(np.mean(values)), 2) for kind, values in by_kind.items()},
        "rows": rows,
        "version": nas.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
        "date": datetime.now(UTC).date().isoformat(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{given.name or f'{given.space}-{given.minutes:g}min'}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["mean_pct"]))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
