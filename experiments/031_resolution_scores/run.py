"""Does a supernet say of the resolution what fine-tuned members say: the same networks at four sizes, shared weights against their own.

    python experiments/021_own_pictures/subset.py --data cifar10_jpeg.tar.xz --each 1000 --out /tmp/cifar-1000
    python experiments/031_resolution_scores/run.py --data /tmp/cifar-1000 --work /tmp/resolution
    python experiments/031_resolution_scores/run.py --data /tmp/cifar-1000 --work /tmp/resolution --score-only

A supernet of ``hybrid-s`` trains on *train*; architectures are drawn by the seed, each is a member at four deployment sizes. A member is scored with shared weights at
its proxy size, that score is weighed by its cost as a search under a time limit does (`nas.training.evaluators.supernet_in_time`), and it is fine-tuned from them at its deployment size for equal processor seconds. Both are compared on *validation*. Whatever is done is in ``--work``:
a run that was cut loses half a minute of the supernet, or one fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from nas.events import Event, EventBus, PhaseAdvanced
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.evaluators.supernet_in_time import SupernetInTime, points_by_time
from nas.training.note import noted
from nas.training.supernet.finetune import FINETUNING, finetune
from nas.training.supernet.train import member_recipe, train

HERE = Path(__file__).parent
SIZES = (128, 160, 224, 288)
RESAMPLES = 2000
MOST_EPOCHS = 300
Row = dict[str, Any]


def main() -> None:
    """Train, score, fine-tune, and write ``results/PROXY-SEED.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--proxy", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8, help="of the supernet")
    parser.add_argument("--architectures", type=int, default=4)
    parser.add_argument(
        "--most-macs", type=float, default=0.12e9, help="of an architecture at 224 px, so that a fine-tuning gets somewhere"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="of the processor that each fine-tuning has")
    parser.add_argument("--validation", type=int, default=1000, help="pictures on which members are compared, at most")
    parser.add_argument("--score-only", action="store_true", help="leave the fine-tunings out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = load_dataset(options.data, seed=options.seed)
    dataset = dataset.thinned("validation", min(options.validation, dataset.count("validation")))
    space = get_elastic_space(options.space, num_classes=dataset.num_classes)
    recipe = replace(member_recipe(dataset), epochs=options.epochs)
    path, proxy = options.work / "supernet.safetensors", (options.proxy, options.proxy)
    trained = train(space, dataset, path, recipe, resolution=proxy, seed=options.seed, bus=EventBus([_print]), device="cpu")
    evaluator, rows = SupernetEvaluator(trained.supernet, dataset), list[Row]()
    in_time = SupernetInTime(evaluator, space, points_by_time(trained.supernet.history), options.seed)
    for i, architecture in enumerate(_drawn(space, options.architectures, options.most_macs, options.seed)):
        for size in SIZES:
            member = _at(space, architecture, size)
            row: Row = {"architecture": i, "size": size, "macs": space.lower(member).cost.macs}
            row |= noted(options.work / f"scores-{i}-{size}.json", lambda member=member: _score(evaluator, member))
            row |= noted(
                options.work / f"in-time-{i}-{size}.json",
                lambda member=member: {"in_time_pct": round(in_time.evaluate(member).accuracy_pct, 2)},
            )
            if not options.score_only:
                note = options.work / f"tuned-{i}-{size}.json"
                row |= noted(note, lambda member=member: _tune(evaluator, dataset, member, options))
            rows.append(row)
            print(row, flush=True)
    if not options.score_only:
        _write(options, dataset, rows, in_time.points)


def _drawn(space: ElasticSpace, count: int, most_macs: float, seed: int) -> list[Architecture]:
    rng, drawn = np.random.default_rng(seed), list[Architecture]()
    while len(drawn) < count:
        candidate = _at(space, space.sample(rng), 224)
        if space.lower(candidate).cost.macs <= most_macs:
            drawn.append(candidate)
    return drawn


def _at(space: ElasticSpace, architecture: Architecture, size: int) -> Architecture:
    return space.architecture((f"{size}x{size}", *architecture.genes[1:]))


def _score(evaluator: SupernetEvaluator, member: Architecture) -> Row:
    proxy = evaluator.supernet.space.proxy(member, evaluator.supernet.resolution)
    found = evaluator.scores(member)
    return {"proxy": proxy[0], "shared_pct": round(found.accuracy_pct, 2), "explained_pct": round(100 * found.explained, 2)}


def _tune(evaluator: SupernetEvaluator, dataset: Dataset, member: Architecture, options: argparse.Namespace) -> Row:
    """Fine-tune a member from its shared weights for so many processor seconds; the last look at validation comes on top."""
    height, width = evaluator.supernet.space.lower(member).inputs[0].shape[2:]
    module, began_s = evaluator.module(member, (height, width)), time.process_time()
    path = options.work / "tuning.safetensors"
    path.unlink(missing_ok=True)

    def left_s() -> float:
        return float(options.seconds) - (time.process_time() - began_s)

    recipe = replace(FINETUNING, batch=32, epochs=MOST_EPOCHS)
    done = finetune(module, member, dataset, path, recipe, resolution=(height, width), seed=options.seed, left_s=left_s)
    path.unlink()
    dataset.release()
    took_s = round(time.process_time() - began_s, 1)
    return {"tuned_pct": round(done.validation_accuracy_pct, 2), "epochs": len(done.history), "took_s": took_s}


def _write(options: argparse.Namespace, dataset: Dataset, rows: list[Row], points: float) -> None:
    report: Row = {"rows": rows, "agreement": {name: _agreement(rows, name) for name in ("shared_pct", "explained_pct", "in_time_pct")}}
    report["agreement"] |= {"fewest_macs": _agreement([row | {"fewest_macs": -row["macs"]} for row in rows], "fewest_macs")}
    report |= {"points_for_an_e_fold_of_training": round(points, 2)}
    report |= {
        "settings": {k: str(v) for k, v in vars(options).items() if k not in ("data", "work")},
        "data": f"{dataset.name} {dataset.key}",
    }
    report |= {"validation_pictures": dataset.count("validation"), "machine": platform.processor() or platform.machine()}
    report |= {"torch": torch.__version__, "load": os.getloadavg(), "date": datetime.now(UTC).date().isoformat()}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{options.proxy}-{options.seed}.json").write_text(json.dumps(report, indent=1) + "\n")


def _agreement(rows: list[Row], name: str) -> dict[str, object]:
    """Return Kendall's τ over all rows with its bootstrap interval, and the resolution's sign for each architecture.

    A sign is that of the slope of accuracy in the logarithm of the size, by least squares.
    """
    shared, tuned = (np.array([row[column] for row in rows]) for column in (name, "tuned_pct"))
    rng = np.random.default_rng(0)
    resampled = [kendalltau(shared[i], tuned[i]).statistic for i in rng.integers(0, len(rows), (RESAMPLES, len(rows)))]
    slopes = {}
    for architecture in sorted({int(row["architecture"]) for row in rows}):
        own = [i for i, row in enumerate(rows) if row["architecture"] == architecture]
        sizes = np.log([rows[i]["size"] for i in own])
        slopes[architecture] = [round(float(np.polyfit(sizes, values[own], 1)[0]), 2) for values in (shared, tuned)]
    return {
        "kendall": round(float(kendalltau(shared, tuned).statistic), 3),
        "interval_90": [round(float(v), 3) for v in np.nanquantile(resampled, (0.05, 0.95))],
        "points_by_log_size_score_and_tuned": slopes,
        "same_sign": sum(a * b > 0 for a, b in slopes.values()),
    }


def _print(event: Event) -> None:
    if isinstance(event, PhaseAdvanced) and event.part == 0:
        print(event.phase, event.done, event.numbers, f"{time.process_time():.0f} s", flush=True)


if __name__ == "__main__":
    main()
