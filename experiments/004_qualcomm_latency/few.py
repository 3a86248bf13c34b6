"""A board that no fit has seen, ten of its networks timed, at fp16: two protocols, and what was tried to do better. See the README beside this file.

python experiments/004_qualcomm_latency/few.py --data ../shared/data --part former      classifiers, the board's whole generation absent
python experiments/004_qualcomm_latency/few.py --data ../shared/data --part ideas       which ten, and how the board's answer is made of its timings
nas bench latency-models … --device sa8295p --protocol few:10                           all single-image networks, that board alone absent

A tested network is timed nowhere. ``ideas``: half of a board's networks (seeded, three draws) may be timed, the other half is tested, in three folds, so that
every choice of ten is judged on the same networks. An idea is chosen for each board on the others. Each part writes results/few_PART_qnn.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from protocols import enough
from run import GENERATIONS, RESULTS, SEED, SUMMARY, UNSEEN_BOARDS, about, networks_of, unseen_generation, write_json

from latency_predictors._pooled import fit_pooled
from latency_predictors._quantities import KIND_OF, KINDS
from latency_predictors._switches import columns_of, draw, priors_of
from latency_predictors.physical import MEMBERS, Physical, Timings, features_of, fit_pool, timings_of
from nas.bench.aihub import classifiers, read_table, samples_of, single_images
from nas.bench.latency_models import stub_profile
from nas.devices.predictor import Floats, Sample
from nas.devices.scores import score

COMMAND = "python experiments/004_qualcomm_latency/few.py --data ../shared/data --part"
TIMED, DRAWS, FOLDS = 10, 3, 3
FARTHER = 2.0
"""How much farther than others the new board may stray in one of the ideas."""


class Pool:
    """Timings of all boards and the ensemble that is fitted to them.

    Args:
        samples: At one precision.
        members: Settings in the ensemble.
    """

    def __init__(self, samples: Sequence[Sample], members: int) -> None:
        self.timings: Timings = timings_of(samples)
        self.graphs = {s.name: s.graph for s in samples}
        self.settings = draw(members, SEED)
        self.features: Floats = features_of(self.timings.totals, self.settings)
        self.members = members

    def predicted(self, log_ms: Floats, farther: Floats | None = None) -> Floats:
        """Return log latencies of all networks by a fit to `log_ms`, (devices, networks) like it."""
        priors = priors_of(self.settings)
        if farther is not None:
            priors = replace(priors, looseness=farther)
        fit = fit_pooled(self.features, log_ms, self.timings.trust, priors, leave_out=False)
        return np.asarray(np.log(np.einsum("mnk,mdk->mdn", self.features, np.exp(fit.device))).mean(axis=0))

    def twins(self, chosen: Sequence[int]) -> list[int]:
        """Return the networks that have the graph of one of some."""
        keys = {self.graphs[self.timings.networks[i]].key for i in chosen}
        return [i for i, name in enumerate(self.timings.networks) if self.graphs[name].key in keys]

    def kinds(self) -> Floats:
        """Return the share of each kind of work in the typical latency of each network, (networks, kinds)."""
        unit = np.exp(priors_of(self.settings).price_log.mean(axis=0))
        per_quantity = np.mean([columns_of(s) @ unit for s in self.settings], axis=0)
        parts = self.timings.totals * per_quantity
        shares = np.stack([np.bincount(KIND_OF, row, len(KINDS)) for row in parts])
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def most_different(rows: Floats, count: int) -> list[int]:
    """Return a greedy D-optimal choice of rows."""
    inverse, chosen = np.eye(rows.shape[1]) * 100.0, []
    for _ in range(count):
        gain = np.einsum("ij,jk,ik->i", rows, inverse, rows)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        towards = inverse @ rows[best]
        inverse = inverse - np.outer(towards, towards) / (1.0 + rows[best] @ towards)
    return chosen


def nearest(predicted: Floats, own: Floats, board: int, timed: Sequence[int]) -> Floats:
    """Return log latencies as the board has them whose predictions differ from the timings by the steadiest factor, times that factor."""
    apart = own[timed] - predicted[:, timed]
    spread = np.abs(apart - np.median(apart, axis=1, keepdims=True)).mean(axis=1)
    spread[board] = np.inf
    best = int(np.argmin(spread))
    return np.asarray(predicted[best] + np.median(apart[best]))


def ideas_of(pool: Pool, samples: Sequence[Sample], board: str, tested: set[str]) -> dict[str, dict[str, float]]:
    """Return |error| in percent by choice of the ten and way, of all draws, folds and networks, and by network."""
    t = pool.timings
    row = t.devices.index(board)
    names = [i for i, name in enumerate(t.networks) if np.isfinite(t.log_ms[row, i]) and name in tested]
    base = min(
        (d for d in t.devices if d != board), key=lambda d: (abs(int(GENERATIONS.get(d, "v0")[1:]) - int(GENERATIONS[board][1:])), d)
    )
    others = Physical(pool.members, SEED, {"fp16": fit_pool(timings_of([s for s in samples if s.device != board]), pool.members, SEED)})
    kinds, rng = pool.kinds(), np.random.default_rng(SEED)
    farther = np.where(np.arange(len(t.devices)) == row, FARTHER, 1.0)
    errors: dict[str, dict[str, list[float]]] = {}
    for _ in range(DRAWS):
        order = rng.permutation(names).tolist()
        may, rest = order[: len(order) // 2], order[len(order) // 2 :]
        graphs = {t.networks[i]: pool.graphs[t.networks[i]] for i in may}
        told = others.choose_informative(graphs, stub_profile(base, "fp16"), "fp16", TIMED)
        choices = {
            "drawn": may[:TIMED],
            "suggested": [t.networks.index(name) for name in told],
            "most different": [may[i] for i in most_different(kinds[may], TIMED)],
        }
        for choice, timed in choices.items():
            for fold in range(FOLDS):
                out = rest[fold::FOLDS]
                log_ms = t.log_ms.copy()
                log_ms[row] = np.nan
                log_ms[row, timed] = t.log_ms[row, timed]
                log_ms[:, pool.twins(out)] = np.nan
                kept = [i for i in timed if np.isfinite(log_ms[row, i])]
                plain, loose = pool.predicted(log_ms), pool.predicted(log_ms, farther)
                alike = nearest(plain, log_ms[row], row, kept)
                ways = {
                    "as committed": plain[row],
                    "may stray twice as far": loose[row],
                    "nearest board": alike,
                    "mean of both": (plain[row] + alike) / 2,
                }
                for way, log_latency in ways.items():
                    found = errors.setdefault(f"{choice}, {way}", {})
                    for i in out:
                        found.setdefault(t.networks[i], []).append(100 * abs(float(np.exp(log_latency[i] - t.log_ms[row, i])) - 1))
    return {idea: {name: float(np.mean(rows)) for name, rows in held.items()} for idea, held in errors.items()}


def ideas(samples: Sequence[Sample], tested: set[str], boards: Sequence[str], members: int, state: Path | None) -> dict[str, Any]:
    """Return mean errors of each idea on each board, and of that which the other boards choose."""
    held: dict[str, dict[str, dict[str, float]]] = json.loads(state.read_text()) if state and state.is_file() else {}
    pool: Pool | None = None
    for board in boards:
        if board not in held:
            pool = pool or Pool(samples, members)
            held[board] = ideas_of(pool, samples, board, tested)
            print(board, {idea: round(float(np.mean(list(rows.values()))), 1) for idea, rows in held[board].items()}, flush=True)
            if state:
                state.write_text(json.dumps(held))
    mean = {idea: {board: float(np.mean(list(held[board][idea].values()))) for board in boards} for idea in held[boards[0]]}
    chosen = {board: min(mean, key=lambda idea, out=board: np.mean([mean[idea][b] for b in boards if b != out])) for board in boards}
    classes = sorted(mean, key=lambda idea: float(np.mean(list(mean[idea].values()))))
    return {
        "timed": TIMED,
        "draws": DRAWS,
        "folds": FOLDS,
        "networks": {board: len(held[board][classes[0]]) for board in boards},
        "mean_error_pct": {idea: {"boards": float(np.mean(list(mean[idea].values()))), **mean[idea]} for idea in classes},
        "chosen_on_other_boards": chosen,
        "mean_error_pct_chosen": float(np.mean([mean[chosen[board]][board] for board in boards])),
    }


def former(samples: Sequence[Sample], tested: Sequence[str], members: int, lineages: Mapping[str, str]) -> dict[str, Any]:
    """Return the scores of classifiers where the board's whole generation is absent, as of the former table."""
    boards: dict[str, Any] = {}
    for board in UNSEEN_BOARDS:
        predictions = unseen_generation(samples, board, tested, members, TIMED)
        scores = score(predictions, groups=lineages).dump()
        boards[board] = {"generation": GENERATIONS[board]} | {k: scores[k] for k in (*SUMMARY, "lineages_tested")}
        print(board, boards[board]["mean_error_pct"], flush=True)
    return {"timed": TIMED, "mean_error_pct": float(np.mean([b["mean_error_pct"] for b in boards.values()])), "devices": boards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("former", "ideas"), required=True)
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument(
        "--boards", nargs="+", choices=UNSEEN_BOARDS, default=UNSEEN_BOARDS, help="of ideas; three minutes each at 12 members"
    )
    parser.add_argument("--state", type=Path, help="file that keeps the boards that are done, so that a run that was cut goes on (ideas)")
    options = parser.parse_args()
    models, graphs, families, lineages, _ = networks_of(options.data)
    table = read_table(options.data / "aihub_perf.csv.gz", graphs, "qnn")
    samples = [s for s in enough(samples_of(table, graphs, families)) if s.precision == "fp16"]
    if options.part == "former":
        found = former(samples, classifiers(models), options.members, lineages)
    else:
        found = ideas(samples, set(single_images(graphs)), options.boards, options.members, options.state)
    command = f"{COMMAND} {options.part}" + (f" --members {options.members}" if options.members != MEMBERS else "")
    command += f" --boards {' '.join(options.boards)}" if options.part == "ideas" and set(options.boards) != set(UNSEEN_BOARDS) else ""
    write_json(RESULTS / f"few_{options.part}_qnn.json", about(options) | {"command": command} | found)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
