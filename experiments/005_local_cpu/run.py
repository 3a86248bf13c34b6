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
from nas import workloads
from nas.errors import GraphError
from nas.frontends.onnx_writer import write_onnx
from nas.graph import Graph
from nas.hardware import Profile
from nas.latency_transfer import figures
from nas.measure import measure_in_turn
from nas.predictor import Sample
from nas.space import get_space

HERE = Path(__file__).parent / "results"
REFERENCES = {
    1: (
        *("resnet34", "mobilenetv2_140", "mobilenetv3_large_100", "efficientnet_lite0", "regnetx_004", "convnext_femto", "googlenet"),
        *("vit_tiny_patch16_224", "xcit_nano_12_p16_224", "mobilenetv4_conv_small", "squeezenet1_1", "mnasnet1_0", "hardcorenas_a"),
        *("repvit_m0_9", "tf_efficientnet_lite1"),
    ),
    2: (
        *("semnasnet_100", "fbnetc_100", "spnasnet_100", "lcnet_100", "tinynet_a", "resnet26", "rexnet_100", "resnet50d", "regnety_006"),
        *("convnext_pico", "deit_small_patch16_224", "ghostnet_130", "efficientnet_b1", "mobilenetv2_110d", "pvt_v2_b1"),
    ),
}
ANCHORS = ("{hybrid0}", "{hybrid1}", "regnetx_002", "shufflenet_v2_x1_5", "levit_256d")
TOGETHER, ROUNDS = 10, 5
MOST_MACS = 4e9
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
        if name not in REFERENCES and about.macs < MOST_MACS:
            families.setdefault(about.family, []).append((about.macs, name))
    chosen = [sorted(found) for found in families.values()]
    return sorted({found[i][1] for found in chosen for i in (0, len(found) // 2, len(found) - 1)})


def time_in_turn(networks: Mapping[str, Graph], timed: dict[str, Any], save: Any, end: float) -> bool:
    """Time what `timed` lacks until the clock says `end`; return whether all is timed."""
    left = [name for name in networks if name not in timed]
    for start in range(0, len(left), TOGETHER):
        if time.monotonic() > end:
            return False
        with tempfile.TemporaryDirectory(prefix="nas-local-cpu-") as folder:
            paths: dict[str, Path] = {}
            for i, name in enumerate(left[start : start + TOGETHER]):
                path = Path(folder) / f"{i}.onnx"
                try:
                    write_onnx(networks[name], path, np.random.default_rng(0))
                    paths[name] = path
                except GraphError as error:
                    timed[name] = {"refused": str(error)}
            for name, (found, visits) in zip(paths, measure_in_turn(list(paths.values()), rounds=ROUNDS), strict=True):
                timed[name] = {
                    "ms": round(statistics.median(visits), 5),
                    "visits_ms": [round(v, 4) for v in visits],
                    "least_ms": round(min(found.samples_ms), 5),
                    "samples": len(found.samples_ms),
                    "load": round(os.getloadavg()[0], 2),
                }
                print(name[:60], timed[name]["ms"], timed[name]["visits_ms"], flush=True)
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
    parser.add_argument("--most-s", type=float, default=500.0, help="start no further group of networks after so many seconds")
    parser.add_argument("--only-calibrate", action="store_true")
    args = parser.parse_args()
    end = time.monotonic() + args.most_s
    held = HERE / "timings.json"
    timings: dict[str, Any] = json.loads(held.read_text()) if held.exists() else {"calibration": {}, "predicted": {}, "test": {}}

    def save() -> None:
        held.write_text(json.dumps(timings, indent=1) + "\n")

    calibration = sampled(args.calibrate, 1) | published(three_of_each_family())
    test = sampled(args.test, 2) | published(REFERENCES[:15])
    assert not set(calibration) & set(test)
    if not time_in_turn(calibration, timings["calibration"], save, end):
        return print("not done: run it again")
    if args.only_calibrate:
        return None
    if not timings["predicted"]:
        rows = [(name, timings["calibration"][name]) for name in calibration if "ms" in timings["calibration"][name]]
        model = Additive().fit([Sample(calibration[name], "fp32", row["ms"], name, "local-cpu", name) for name, row in rows])
        left_out = np.abs(np.expm1(model.devices["local-cpu", "fp32"].scores))
        timings["left_out"] = {"mean_error_pct": 100 * float(left_out.mean()), "median_error_pct": 100 * float(np.median(left_out))}
        for name, graph in test.items():
            e = model.estimate(graph, STUB, "fp32")
            timings["predicted"][name] = {
                "ms": e.latency_ms,
                "lower_ms": e.lower_ms,
                "upper_ms": e.upper_ms,
                "extrapolated": list(e.extrapolated),
            }
        save()  # before the first of them is timed
    if not time_in_turn(test, timings["test"], save, end):
        return print("not done: run it again")
    report(timings)
    return None


def report(timings: Mapping[str, Any]) -> None:
    names = [name for name, row in timings["test"].items() if "ms" in row]
    guess = [timings["predicted"][name] for name in names]
    central, truth = np.array([g["ms"] for g in guess]), np.array([timings["test"][name]["ms"] for name in names])
    held = [g["lower_ms"] <= ms <= g["upper_ms"] for g, ms in zip(guess, truth, strict=True)]
    hybrid = np.array(["/" in name for name in names])
    parts = {"all": np.ones(len(names), dtype=bool), "hybrid": hybrid, "references": ~hybrid}
    result = {
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {p: version(p) for p in ("onnxruntime", "numpy")},
        "calibration_networks": sum("ms" in row for row in timings["calibration"].values()),
        "calibration_left_out": timings["left_out"],
        "refused": {n: row["refused"] for part in ("calibration", "test") for n, row in timings[part].items() if "refused" in row},
        "load": sorted({row["load"] for part in ("calibration", "test") for row in timings[part].values() if "load" in row}),
        "visits_spread_pct": {
            part: round(100 * float(np.median([spread(row) for row in timings[part].values() if "ms" in row])), 2)
            for part in ("calibration", "test")
        },
        "coverage_pct": 100 * float(np.mean(held)),
        "summary": {part: figures(central[mask], truth[mask]) | {"networks": int(mask.sum())} for part, mask in parts.items()},
        "test": {n: {"predicted_ms": g["ms"], "measured_ms": float(ms)} for n, g, ms in zip(names, guess, truth, strict=True)},
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1), result["coverage_pct"])


if __name__ == "__main__":
    main()
