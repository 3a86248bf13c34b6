"""The two headline protocols on every board: networks first timed after a month, and lineages left out.

python experiments/004_qualcomm_latency/protocols.py --data ../shared/data

Tested are all rebuilt networks that read one image; video networks only calibrate. A tested network is in no part of fit or calibration, on no board
and at no precision. What is done is kept in ``--state``, so that a run that was cut goes on. Timings of a graph that differs by its layers from what the network is compiled to by now are neither fitted nor tested.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from run import MIN_TIMED, RESULTS, SEED, Held, about, networks_of, predicted, write_json

from latency_predictors.physical import MEMBERS, Physical
from nas.bench.aihub import classifiers, read_table, samples_of, single_images
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


class State:
    """Predictions by the part of a protocol that made them, in a JSON file.

    Args:
        path: Of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.parts: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path and path.is_file() else {}

    def keep(self, part: str, predictions: Iterable[tuple[Sample, Prediction]]) -> None:
        """Add a part that is done."""
        self.parts[part] = [{"device": s.device, "precision": s.precision, **asdict(p)} for s, p in predictions]
        if self.path:
            self.path.write_text(json.dumps(self.parts))

    def held(self, prefix: str) -> Held:
        """Return the predictions of the parts whose names begin with `prefix`."""
        held: Held = {}
        for part, rows in sorted(self.parts.items()):
            for row in rows if part.startswith(prefix) else ():
                prediction = Prediction(**{field.name: row[field.name] for field in fields(Prediction)})
                held.setdefault(row["precision"], {}).setdefault(row["device"], []).append(prediction)
        return held


def lineages_out(samples: Sequence[Sample], lineages: Mapping[str, str], tested: Sequence[str], members: int, state: State) -> None:
    """Leave each lineage out of one fit of all devices and precisions; predict it everywhere."""
    open_parts = [lineage for lineage in sorted({lineages[n] for n in tested}) if f"lineage {lineage}" not in state.parts]
    whole = Physical(members, SEED).fit(samples) if open_parts else Physical()
    for lineage in open_parts:
        mine = [s for s in samples if lineages[s.name] == lineage and s.name in set(tested)]
        keys = {s.graph.key for s in samples if lineages[s.name] == lineage}
        began = time.perf_counter()
        fit = whole.without({s.name for s in samples if s.graph.key in keys})
        state.keep(f"lineage {lineage}", predicted(fit, mine))
        log.info("%s left out, %.0f s", lineage, time.perf_counter() - began)


def later(before: Sequence[Sample], samples: Sequence[Sample], tested: Sequence[str], members: int, state: State) -> None:
    """Fit what was known before `MONTH`; predict the networks that were first timed from then on."""
    names, keys = {s.name for s in before}, {s.graph.key for s in before}
    if "release" not in state.parts:
        fit = Physical(members, SEED).fit(before)
        state.keep(
            "release", predicted(fit, [s for s in samples if s.name in set(tested) and not (s.name in names or s.graph.key in keys)])
        )


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
    parser.add_argument("--state", type=Path, help="file that keeps what is done, so that a run that was cut goes on")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    models, graphs, families, lineages, _ = networks_of(options.data)
    tested = list(single_images(graphs))

    def timed(before: str | None = None) -> list[Sample]:
        table = read_table(options.data / "aihub_perf.csv.gz", graphs, options.runtime, before=before)
        return enough(samples_of(table, graphs, families))

    samples = timed()
    head = about(options) | {"command": COMMAND, "networks": len({s.name for s in samples}), "lineages": lineages}
    classes = set(classifiers(models))
    state = State(options.state)
    later(timed(MONTH), samples, tested, options.members, state)
    held = state.held("release")
    write_json(RESULTS / f"release_{options.runtime}.json", head | {"from": MONTH, "precisions": figures(held, lineages, classes)})
    lineages_out(samples, lineages, tested, options.members, state)
    held = state.held("lineage ")
    write_json(RESULTS / f"lineage_{options.runtime}.json", head | {"precisions": figures(held, lineages, classes)})


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
