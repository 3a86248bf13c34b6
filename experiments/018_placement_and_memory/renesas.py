"""Placement on Renesas RZ/V by the rules that AI Hub's jobs are judged with: which operators make a network run on the host, families left out.

    python experiments/018_placement_and_memory/renesas.py --data ../shared/data

No layer counts are published there. A network counts as fallen where it takes more than ten times as long as its multiply-adds do at the board's usual rate
(the middle of the fastest quarter of networks over half a GMAC) and a step of the table; ten of 3, 4, 5, 6, 8, 10 and 15 was chosen while these
figures were watched. Writes results/renesas.json, and the rules into hardware_profiles/placement.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from placement import ship

from nas.bench.board_tables import read_renesas
from nas.devices.placement import Placed, kinds_of, learn, placement_by
from nas.graphs import workloads

HERE = Path(__file__).parent
COMMAND = "python experiments/018_placement_and_memory/renesas.py --data ../shared/data"
RUNTIME = "drp-ai-tvm"
SLOWER = 10.0
STEP_MS = 1.5
BIG_GMACS = 0.5


def rows_of(data: Path) -> tuple[list[Placed], list[float]]:
    """Return a row a network and board, and how many times longer it took than its work; RepVGG is timed with its branches unmerged."""
    timed: dict[str, dict[str, float]] = {}
    family: dict[str, str] = {}
    precision: dict[str, str] = {}
    for row in read_renesas(data / "renesas_rzv.csv"):
        held = timed.setdefault(row.device, {})
        held[row.network] = min(row.ms, held.get(row.network, row.ms))
        family[row.network], precision[row.device] = row.family, row.precision
    graphs = {n: workloads.load_as_written(n) if n.startswith("repvgg") else workloads.load(n) for n in family}
    present, gmacs = {n: kinds_of(g) for n, g in graphs.items()}, {n: g.cost.macs / 1e9 for n, g in graphs.items()}
    rows, times = [], []
    for board, held in timed.items():
        rates = sorted(ms / gmacs[n] for n, ms in held.items() if gmacs[n] > BIG_GMACS)
        usual = median(rates[: len(rates) // 4])
        for n, ms in held.items():
            times.append(ms / (usual * gmacs[n] + STEP_MS))
            rows.append(Placed(present[n], family[n], board, precision[board], precision[board], times[-1] > SLOWER, False))
    return rows, times


def figures(fell: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """Return how well placements are told, and what the more frequent one alone would have."""
    return {
        "rows": len(fell),
        "fell": int(fell.sum()),
        "balanced_accuracy": round(float((said[fell].mean() + (~said[~fell]).mean()) / 2), 3),
        "accuracy_pct": round(100 * float((said == fell).mean()), 1),
        "majority_accuracy_pct": round(100 * float(max(fell.mean(), 1 - fell.mean())), 1),
    }


def costs(rows: list[Placed], times: list[float], operators: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return how many times longer than their work networks took in the middle that fell, with an operator of a rule and without."""
    by_rule: dict[bool, list[float]] = {True: [], False: []}
    for row, slower in zip(rows, times, strict=True):
        if row.fell:
            by_rule[bool(row.kinds & operators[row.group].keys())].append(slower)
    return {key: round(median(found), 1) if found else None for key, found in (("part", by_rule[True]), ("whole", by_rule[False]))}


def main() -> None:
    """Judge each family by rules of the others, and ship the rules of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    rows, times = rows_of(args.data)
    said = np.zeros(len(rows), dtype=bool)
    for family in sorted({row.lineage for row in rows}):
        rules = learn([row for row in rows if row.lineage != family])
        for i, row in enumerate(rows):
            if row.lineage == family:
                said[i] = placement_by(rules, row.kinds, row.board, row.group, row.precision)[0] >= rules["limit"]
    fell, boards = np.array([row.fell for row in rows]), np.array([row.board for row in rows])
    rules = learn(rows)
    report = {
        "command": COMMAND,
        "families": len({row.lineage for row in rows}),
        "all": figures(fell, said),
        "boards": {board: figures(fell[boards == board], said[boards == board]) for board in sorted(set(boards))},
        "operators": {group: {k: round(float(v), 3) for k, v in held.items()} for group, held in rules["operators"].items()},
        "slower": costs(rows, times, rules["operators"]),
    }
    (HERE / "results" / "renesas.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    learnt = {
        "rules": rules,
        "groups": {f"{row.board}|{row.precision}": row.group for row in rows},
        "slower": report["slower"],
        "balanced_accuracy": report["all"]["balanced_accuracy"],
    }
    ship(
        {RUNTIME: learnt},
        {"title": "renesas-rz/rzv_drp-ai_tvm docs/model_list", "licence": "Apache-2.0", "command": COMMAND},
    )


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
