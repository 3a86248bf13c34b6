"""This machine's CPU under ONNX Runtime: calibrate on some networks, predict others, then measure those.

    python experiments/005_local_cpu/run.py                  (again and again until it says that it is done: it goes on where it stopped)

Calibration: 200 sampled `hybrid` architectures and up to three published networks of each family. Test: 40 other samples and 15 other published networks; their predictions
are written before the first of them is timed, and a run that finds predictions never makes them again. One thread, bound to a processor.
Networks are timed ten at a time in turn, five visits each, so that a drifting machine shows as spread among the visits of one network;
the latency is the median of the visits' medians. Everything timed so far is in results/timings.json, with the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors.additive import Additive
from nas.bench.latency_transfer import figures
from nas.devices.measure import measure_in_turn
from nas.devices.predictor import Sample
from nas.devices.profile import Profile
from nas.errors import GraphError
from nas.graphs import workloads
from nas.graphs.graph import Graph
from nas.graphs.onnx_writer import write_onnx
from nas.spaces.naming import get_space

HERE = Path(__file__).parent / "results"
REFERENCES = {
    1: (
        *("resnet34", "mobilenetv2_140", "mobilenetv3_large_100", "efficientnet_lite0", "regnetx_004", "convnext_femto", "googlenet"),
        *("vit_tiny_patch16_224", "xcit_nano_12_p16_224", "mobilenetv4_conv_small", "squeezenet1_1", "mnasnet1_0", "hardcorenas_a"),
        *("repvit_m0_9", "tf_efficientnet_lite1"),
    ),
    2: (
        *("semnasnet_100", "fbnetc_100", "spnasnet_100", "lcnet_100", "tinynet_a", "resnet26", "rexnet_100", "resnet50d", "regnety_006"),
        *("convnext_pico", "deit_small_patch16_224", "ghostnet_130", "efficientnet_b1", "mobilenetv2_110d", "mixnet_s"),
    ),
}
ANCHORS = ("hybrid-s/5e1fb9835a2928d4", "hybrid-m/6bdd4b60c1952e30", "efficientvit_b0", "fasternet_t1", "deit_tiny_distilled_patch16_224")
"""Calibrated networks that are timed again in every group of a test: how much slower the machine is than it was then."""
TOGETHER, ROUNDS = 10, 5
MOST_MACS = 4e9
LATER = ("semnasnet_100", "fbnetc_100", "spnasnet_100", "lcnet_100", "tinynet_a", "resnet26", "rexnet_100")
STUB = Profile.model_validate(
    {
        "name": "local-cpu",
        "title": "this machine",
        "kind": "cpu",
        "runtime": "onnxruntime-cpu",
        "threads": 1,
        "default_precision": "fp32",
        "precisions": {"fp32": {}},
        "origin": {"title": "experiments/005_local_cpu"},
    }
)


def sampled(count: int, seed: int) -> dict[str, Graph]:
    """Return architectures of the general presets, at their own resolutions."""
    found = {}
    for i in range(count):
        space = get_space(("hybrid-s", "hybrid-m")[i % 2])
        architecture = space.sample(np.random.default_rng([seed, i]))
        found[f"{space.name}/{architecture.key}"] = space.lower(architecture)
    return found


def published(names: Iterable[str]) -> dict[str, Graph]:
    return {name: workloads.load(name) for name in names}


def three_of_each_family() -> list[str]:
    """Return the cheapest, the middle and the most expensive network of each family, up to `MOST_MACS`, without the references."""
    families: dict[str, list[tuple[int, str]]] = {}
    for name in workloads.names():
        about = workloads.describe(name)
        if about.library in ("timm", "torchvision") and name not in REFERENCES[1] and name not in LATER and about.macs < MOST_MACS:
            families.setdefault(about.family, []).append((about.macs, name))
    chosen = [sorted(found) for found in families.values()]
    return sorted({found[i][1] for found in chosen for i in (0, len(found) // 2, len(found) - 1)})


def time_in_turn(
    networks: Mapping[str, Graph], timed: dict[str, Any], save: Any, end: float, anchors: Mapping[str, tuple[Graph, float]] | None = None
) -> bool:
    """Time what `timed` lacks until the clock says `end`; return whether all is timed.

    Args:
        networks: What to time.
        timed: Receives a row a network.
        save: Called after each group.
        end: On the monotonic clock.
        anchors: Networks timed with each group, and their latencies in ms when the machine was calibrated.
    """
    left = [name for name in networks if name not in timed]
    for start in range(0, len(left), TOGETHER):
        if time.monotonic() > end:
            return False
        group = {name: networks[name] for name in left[start : start + TOGETHER]}
        with tempfile.TemporaryDirectory(prefix="nas-local-cpu-") as folder:
            paths: dict[str, Path] = {}
            for i, (name, graph) in enumerate({**group, **{name: graph for name, (graph, _) in (anchors or {}).items()}}.items()):
                path = Path(folder) / f"{i}.onnx"
                try:
                    write_onnx(graph, path, np.random.default_rng(0))
                    paths[name] = path
                except GraphError as error:
                    timed[name] = {"refused": str(error)}
            found = dict(zip(paths, measure_in_turn(list(paths.values()), rounds=ROUNDS), strict=True))
        ms = {name: statistics.median(visits) for name, (_, visits) in found.items()}
        slower = statistics.median([ms[name] / then for name, (_, then) in anchors.items()]) if anchors else 1.0
        for name in group.keys() & found.keys():
            measurement, visits = found[name]
            timed[name] = {
                "ms": round(ms[name], 5),
                "visits_ms": [round(v, 4) for v in visits],
                "least_ms": round(min(measurement.samples_ms), 5),
                "samples": len(measurement.samples_ms),
                "load": round(os.getloadavg()[0], 2),
                "machine_slower_by": round(slower, 4),
            }
            print(name[:60], timed[name]["ms"], timed[name]["visits_ms"], timed[name]["machine_slower_by"], flush=True)
        save()
    return True


def spread(row: Mapping[str, Any]) -> float:
    """Return the spread of a network's visits: half the range of the middle three of five, over the median."""
    visits = sorted(row["visits_ms"])
    return float((visits[-2] - visits[1]) / 2 / row["ms"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=int, default=200)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--round", type=int, default=2, choices=sorted(REFERENCES), help="which fresh networks are predicted and timed")
    parser.add_argument("--most-s", type=float, default=500.0, help="start no further group of networks after so many seconds")
    parser.add_argument("--only-report", action="store_true")
    args = parser.parse_args()
    end = time.monotonic() + args.most_s
    held = HERE / "timings.json"
    timings: dict[str, Any] = json.loads(held.read_text()) if held.exists() else {"calibration": {}, "rounds": {}}
    if args.only_report:
        return report(timings)

    def save() -> None:
        held.write_text(json.dumps(timings, indent=1) + "\n")

    calibration = sampled(args.calibrate, 1) | published(three_of_each_family())
    if timings["rounds"]:  # once anything is predicted the calibration is closed, whatever networks the repository gains
        calibration = {name: graph for name, graph in calibration.items() if name in timings["calibration"]}
    test = sampled(args.test, 1 + args.round) | published(REFERENCES[args.round])
    assert not set(timings["calibration"] | calibration) & set(test)
    if not time_in_turn(calibration, timings["calibration"], save, end):
        return print("not done: run it again")
    this = timings["rounds"].setdefault(str(args.round), {"predicted": {}, "timed": {}})
    if not this["predicted"]:
        rows = [(name, timings["calibration"][name]) for name in calibration if "ms" in timings["calibration"][name]]
        model = Additive().fit([Sample(calibration[name], "fp32", row["ms"], name, "local-cpu", name) for name, row in rows])
        left_out = np.abs(np.expm1(model.devices["local-cpu", "fp32"].scores))
        this["left_out"] = {"mean_error_pct": 100 * float(left_out.mean()), "median_error_pct": 100 * float(np.median(left_out))}
        for name, graph in test.items():
            e = model.estimate(graph, STUB, "fp32")
            this["predicted"][name] = {
                "ms": e.latency_ms,
                "lower_ms": e.lower_ms,
                "upper_ms": e.upper_ms,
                "extrapolated": list(e.extrapolated),
            }
        save()  # before the first of them is timed
    anchors = {name: (calibration[name], timings["calibration"][name]["ms"]) for name in ANCHORS}
    if not time_in_turn(test, this["timed"], save, end, anchors):
        return print("not done: run it again")
    return report(timings)


def report(timings: Mapping[str, Any]) -> None:
    """Write results.json: every round as it was timed, and with the machine's state at the time taken out by the anchors."""
    rounds = {}
    for number, this in timings["rounds"].items():
        names = [name for name, row in this["timed"].items() if "ms" in row and name in this["predicted"]]
        rows, guess = [this["timed"][name] for name in names], [this["predicted"][name] for name in names]
        central, truth = np.array([g["ms"] for g in guess]), np.array([row["ms"] for row in rows])
        slower = np.array([row.get("machine_slower_by", 1.0) for row in rows])
        hybrid = np.array(["/" in name for name in names])
        parts = {"all": np.ones(len(names), dtype=bool), "hybrid": hybrid, "references": ~hybrid}
        held = [g["lower_ms"] <= ms <= g["upper_ms"] for g, ms in zip(guess, truth / slower, strict=True)]
        rounds[number] = {
            "calibration_left_out": this["left_out"],
            "as_timed": {part: figures(central[mask], truth[mask]) | {"networks": int(mask.sum())} for part, mask in parts.items()},
            "machine_state_taken_out": {part: figures(central[mask], (truth / slower)[mask]) for part, mask in parts.items()},
            "machine_slower_by": [float(slower.min()), float(np.median(slower)), float(slower.max())],
            "anchored": "machine_slower_by" in rows[0],
            "median_log_bias": float(np.median(np.log(central / truth))),
            "coverage_pct": 100 * float(np.mean(held)),
            "visits_spread_pct": round(100 * float(np.median([spread(row) for row in rows])), 2),
            "load": [min(row["load"] for row in rows), max(row["load"] for row in rows)],
            "test": {n: {"predicted_ms": g["ms"], "measured_ms": float(ms)} for n, g, ms in zip(names, guess, truth, strict=True)},
        }
    timed = [row for row in timings["calibration"].values() if "ms" in row]
    result = {
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {p: version(p) for p in ("onnxruntime", "numpy")},
        "calibration_networks": len(timed),
        "calibration_load": [min(row["load"] for row in timed), max(row["load"] for row in timed)],
        "calibration_visits_spread_pct": round(100 * float(np.median([spread(row) for row in timed])), 2),
        "refused": {n: row["refused"] for n, row in timings["calibration"].items() if "refused" in row},
        "rounds": rounds,
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    for number, found in rounds.items():
        print(
            number,
            json.dumps({k: found[k] for k in ("as_timed", "machine_state_taken_out", "machine_slower_by", "coverage_pct")}, indent=1),
        )


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
