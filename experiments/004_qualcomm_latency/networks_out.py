"""One network left out after the other, at fp16, of the present fit; see the README beside this file.

python experiments/004_qualcomm_latency/networks_out.py --data ../shared/data    ten minutes on one core; writes results/networks_out_qnn.json

All boards share one fit, and a network is left out on all of them, with its twins (the same graph under another name), by a fit of its own. What the
whole fit says of it at its last linearisation, at which intervals are calibrated, stands beside. What is done is kept in ``--state``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from protocols import enough
from run import RESULTS, SEED, about, networks_of, predicted, write_json

from latency_predictors._pooled import Fit, fit_pooled
from latency_predictors._switches import priors_of
from latency_predictors.physical import MEMBERS, Physical, features_of
from nas.bench.aihub import classifiers, read_table, samples_of, single_images
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score

COMMAND = "python experiments/004_qualcomm_latency/networks_out.py --data ../shared/data"
BOARD = "sa8295p"


def linearised(whole: Physical, samples: Sequence[Sample], near: Fit) -> dict[str, dict[str, Prediction]]:
    """Return each board's predictions of networks that were left out with their twins, intervals as the whole fit gives them."""
    pool = whole.pools["fp16"]
    t = pool.timings
    graphs = {s.name: s.graph.key for s in samples}
    settings = list(pool.settings)
    fit = fit_pooled(features_of(t.totals, settings), t.log_ms, t.trust, priors_of(settings), [graphs[n] for n in t.networks], near=near)
    residual, spread = fit.left_out.mean(axis=0), fit.left_out.std(axis=0)
    found: dict[str, dict[str, Prediction]] = {}
    for row, device in enumerate(t.devices):
        factor = pool.quantile(0.9) * pool.device_scale[row]
        for i, name in enumerate(t.networks):
            if np.isfinite(t.log_ms[row, i]):
                width = factor * np.sqrt(pool.base_sd**2 + spread[row, i] ** 2)
                middle = t.log_ms[row, i] - residual[row, i]
                ends = (float(np.exp(middle + sign * width)) for sign in (0, -1, 1))
                found.setdefault(device, {})[name] = Prediction(name, float(np.exp(t.log_ms[row, i])), *ends)
    return found


def refitted(whole: Physical, samples: Sequence[Sample], names: Sequence[str], state: Path | None) -> dict[str, Prediction]:
    """Return predictions on the board by fits to all networks but one and its twins."""
    graphs = {s.name: s.graph.key for s in samples}
    found: dict[str, Any] = json.loads(state.read_text()) if state and state.is_file() else {}
    for name in names:
        if name not in found:
            fit = whole.without({other for other, key in graphs.items() if key == graphs[name]})
            mine = [s for s in samples if s.name == name and s.device == BOARD]
            found[name] = next(asdict(p) for _, p in predicted(fit, mine))
            if state:
                state.write_text(json.dumps(found))
    return {name: Prediction(**found[name]) for name in names}


def figures(predictions: Mapping[str, Prediction], names: Sequence[str], lineages: Mapping[str, str]) -> dict[str, Any]:
    """Return the scores of some networks."""
    return score([predictions[n] for n in names if n in predictions], groups=lineages).dump()


def brief(predictions: Mapping[str, Prediction], names: Sequence[str], lineages: Mapping[str, str]) -> dict[str, Any]:
    """Return the scores without the networks'."""
    return {key: value for key, value in figures(predictions, names, lineages).items() if key != "networks"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--count", type=int, help="leave out a seeded draw of so many networks by fits of their own; default all")
    parser.add_argument("--state", type=Path, help="file that keeps what is done, so that a run that was cut goes on")
    options = parser.parse_args()
    models, graphs, families, lineages, _ = networks_of(options.data)
    table = read_table(options.data / "aihub_perf.csv.gz", graphs, "qnn")
    samples = [s for s in enough(samples_of(table, graphs, families)) if s.precision == "fp16"]
    tested, classes = list(single_images(graphs)), set(classifiers(models))
    whole = Physical(options.members, SEED).fit(samples)
    near = whole.pools["fp16"].fit
    assert near is not None
    held = linearised(whole, samples, near)
    own = held[BOARD]
    names, alone = [n for n in tested if n in own], [n for n in tested if n in own and n in classes]
    drawn = np.random.default_rng(SEED).permutation(names).tolist()[: options.count]
    fits = refitted(whole, samples, drawn, options.state)
    report: dict[str, Any] = about(options) | {
        "command": COMMAND,
        BOARD: figures(fits, drawn, lineages),
        "classifiers": brief(fits, alone, lineages),
        "linearised": {
            BOARD: brief(own, names, lineages),
            "the same networks": brief(own, drawn, lineages),
            "classifiers": brief(own, alone, lineages),
            "boards": {device: brief(found, tested, lineages) for device, found in sorted(held.items())},
            "correlation_of_log_errors": float(
                np.corrcoef([[np.log(p[n].latency_ms / p[n].measured_ms) for n in drawn] for p in (fits, own)])[0, 1]
            ),
        },
    }
    write_json(RESULTS / "networks_out_qnn.json", report)
    print(json.dumps({k: {a: b for a, b in v.items() if a != "networks"} for k, v in report.items() if isinstance(v, dict)}, indent=1))


if __name__ == "__main__":
    main()
