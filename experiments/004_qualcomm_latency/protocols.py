"""The two headline protocols on every board: networks first timed after a month, and lineages left out.

python experiments/004_qualcomm_latency/protocols.py --data ../shared/data

Tested are all rebuilt networks that read one image; video networks only calibrate. A tested network is in no part of fit or calibration, on no board
and at no precision. Timings of a graph that differs by its layers from what the network is compiled to by now are neither fitted nor tested.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from run import MIN_TIMED, RESULTS, SEED, Held, about, predicted, write_json

from latency_predictors.physical import MEMBERS, Physical
from nas.bench.aihub import classifiers, graphs_of, read_models, read_table, samples_of, single_images
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score

COMMAND = "python experiments/004_qualcomm_latency/protocols.py --data ../shared/data"
MONTH = "2026-02"
MIN_LINEAGES = 12
log = logging.getLogger("protocols")


def enough(samples: Sequence[Sample]) -> list[Sample]:
    """Leave out devices of which too few networks are timed at a precision."""
    count: dict[tuple[str, str], int] = {}
    for s in samples:
        count[s.device, s.precision] = count.get((s.device, s.precision), 0) + 1
    return [s for s in samples if count[s.device, s.precision] >= MIN_TIMED]


def lineages_out(samples: Sequence[Sample], lineages: Mapping[str, str], tested: Sequence[str], members: int) -> Held:
    """Leave each lineage out of one fit of all devices and precisions; predict it everywhere."""
    held: Held = {}
    for lineage in sorted({lineages[n] for n in tested}):
        mine = [s for s in samples if lineages[s.name] == lineage and s.name in set(tested)]
        keys = {s.graph.key for s in samples if lineages[s.name] == lineage}
        began = time.perf_counter()
        fit = Physical(members, SEED).fit([s for s in samples if s.graph.key not in keys])
        for s, p in predicted(fit, mine):
            held.setdefault(s.precision, {}).setdefault(s.device, []).append(p)
        log.info("%s left out, %.0f s", lineage, time.perf_counter() - began)
    return held


def later(before: Sequence[Sample], samples: Sequence[Sample], tested: Sequence[str], members: int) -> Held:
    """Fit what was known before `MONTH`; predict the networks that were first timed from then on."""
    names, keys = {s.name for s in before}, {s.graph.key for s in before}
    fit = Physical(members, SEED).fit(before)
    held: Held = {}
    for s, p in predicted(fit, [s for s in samples if s.name in set(tested) and s.name not in names and s.graph.key not in keys]):
        held.setdefault(s.precision, {}).setdefault(s.device, []).append(p)
    return held


def figures(held: Held, lineages: Mapping[str, str], classes: set[str]) -> dict[str, Any]:
    """Return each board's scores with intervals over lineages, those of classifiers alone, and the mean over boards with enough lineages."""
    found: dict[str, Any] = {}
    for precision, devices in held.items():
        boards: dict[str, Any] = {}
        for device, predictions in sorted(devices.items()):
            boards[device] = score(predictions, groups=lineages).dump()
            alone = [p for p in predictions if p.name in classes]
            if alone:
                boards[device]["classifiers"] = score(alone, groups=lineages).model_copy(update={"networks": ()}).dump()
        wide = [b for b in boards.values() if b["lineages_tested"] >= MIN_LINEAGES]
        every: list[Prediction] = [p for predictions in devices.values() for p in predictions]
        found[precision] = {
            "boards": boards,
            "boards_with_enough_lineages": len(wide),
            "mean_of_mean_error_pct": float(np.mean([b["mean_error_pct"] for b in wide])) if wide else None,
            "mean_of_median_error_pct": float(np.mean([b["median_error_pct"] for b in wide])) if wide else None,
            "pooled": score(every, groups=lineages).model_copy(update={"networks": ()}).dump(),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--runtime", choices=("qnn", "tflite"), default="qnn")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    models = read_models(options.data / "aihub_models.csv")
    graphs, families, _ = graphs_of(models)
    listed = read_lineages()
    lineages = {n: lineage_of(n, listed) for n in graphs}
    tested = list(single_images(graphs))

    def timed(before: str | None = None) -> list[Sample]:
        table = read_table(options.data / "aihub_perf.csv.gz", graphs, options.runtime, before=before)
        return enough(samples_of(table, graphs, families))

    samples = timed()
    head = about(options) | {"command": COMMAND, "networks": len({s.name for s in samples}), "lineages": lineages}
    classes = set(classifiers(models))
    held = later(timed(MONTH), samples, tested, options.members)
    write_json(RESULTS / f"release_{options.runtime}.json", head | {"from": MONTH, "precisions": figures(held, lineages, classes)})
    held = lineages_out(samples, lineages, tested, options.members)
    write_json(RESULTS / f"lineage_{options.runtime}.json", head | {"precisions": figures(held, lineages, classes)})


if __name__ == "__main__":
    main()
