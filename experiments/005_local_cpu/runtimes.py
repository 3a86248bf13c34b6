"""This machine's CPU under three runtimes: ONNX Runtime, OpenVINO and LiteRT, 40 networks predicted before they are timed.

    python experiments/005_local_cpu/runtimes.py --write FOLDER             .onnx files with random weights
    python experiments/005_local_cpu/litert_files.py FOLDER                 .tflite files of them; needs onnx2tf (an environment of its own)
    nice -n -10 python experiments/005_local_cpu/runtimes.py --files FOLDER --runtime onnxruntime|openvino|litert
    python experiments/005_local_cpu/runtimes.py                            the report alone

A run goes on where it stopped: again until it says that it is done. OpenVINO needs openvino, LiteRT ai-edge-litert. fp32, batch 1, one thread.
A time is processor time of the process, so that a machine shared with others stretches it by its caches and its hypervisor alone: the lower quartile of
the runs of a visit, and of all visits the least. Files stay loaded between visits: ONNX Runtime took 6.3 GB. Predictions are written before the first test network is timed, and are never made again. With the
test networks five calibrated ones are timed once more: the drift, which stands beside the errors and is not taken out of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors.additive import Additive
from nas.devices.predictor import Sample
from nas.devices.profile import Profile
from nas.errors import ArtifactError, GraphError, one_line
from nas.graphs import workloads
from nas.graphs.onnx_session import onnx_session
from nas.graphs.onnx_writer import write_onnx

OUT = Path(__file__).parent / "results" / "runtimes.json"
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai-edge-litert"}
FEWEST_MACS, MOST_MACS, TESTED_MACS = 3e7, 2.0e9, 3.0e9
"""Of networks: those tested may be half as large again as the largest that calibrates."""
FAMILIES, EACH, TESTED = 20, 2, 40
"""Families of which five networks calibrate, at most how many of one are tested, and all that are."""
VISITS = 15
"""Times that a network is visited, all others between: its time is the least of these, the least disturbed. Of three visits to one network the slowest took 1.48 times
as long as the fastest, in the median of 119 networks, with nothing else at work on this (virtual) machine."""
ANCHORS = 5
WARM, RUNS, SECONDS = 1, 3, 0.05
"""Runs that are not counted, and the fewest runs and processor seconds of a visit."""


def sets() -> tuple[list[str], list[str]]:
    """Return the networks to calibrate with, up to five of a family, and the others of the largest families, which are predicted."""
    families: dict[str, list[tuple[int, str]]] = {}
    for name in workloads.names():
        about = workloads.describe(name)
        if (
            about.library == "timm"
            and "@" not in name
            and not name.startswith("test_")
            and "halo" not in name  # its unfolding has no ONNX operator
            and FEWEST_MACS <= about.macs <= TESTED_MACS
            and about.input[-1] <= 256
        ):
            families.setdefault(about.family, []).append((about.macs, name))
    small = {family: [name for macs, name in sorted(rows) if macs <= MOST_MACS] for family, rows in families.items()}
    order = sorted((family for family in families if small[family]), key=lambda family: (-len(small[family]), family))
    calibration: list[str] = []
    for place, family in enumerate(order):
        names = small[family]
        middle = [names[len(names) // 3], names[2 * len(names) // 3]] if place < FAMILIES and len(names) > 2 else []
        rest = [name for name in names if name not in middle]
        calibration += [*middle, *(rest[i] for i in (sorted({0, len(rest) // 2, len(rest) - 1}) if middle else (len(rest) // 2,)))]
    left = [[name for _, name in sorted(families[family]) if name not in calibration] for family in order]
    test = [names[(i + 1) * len(names) // (EACH + 1)] for i in range(EACH) for names in left if names]
    return calibration, list(dict.fromkeys(test))[:TESTED]


def run_of(runtime: str, name: str, files: Path) -> Callable[[], object]:
    """Return what runs a network's file once.

    Raises:
        ArtifactError: There is none, or the runtime cannot run it.
    """
    shape = workloads.load(name).inputs[0].shape
    picture = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = files / f"{name}.{'tflite' if runtime == 'litert' else 'onnx'}"
    if not path.is_file():
        raise ArtifactError(f"{runtime}: no file of {name}")
    if runtime == "onnxruntime":
        session = onnx_session(path, threads=1)
        entry = session.get_inputs()[0].name
        return lambda: session.run(None, {entry: picture})
    if runtime == "openvino":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
        return lambda: request.infer([picture])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    try:
        interpreter.allocate_tensors()
        entry = interpreter.get_input_details()[0]
        interpreter.set_tensor(entry["index"], picture if tuple(entry["shape"]) == shape else picture.transpose(0, 2, 3, 1))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"litert: {name} does not run ({one_line(error)})") from None
    return interpreter.invoke


def timed(run: Callable[[], object]) -> dict[str, Any]:
    """Return the lower quartile of a visit's processor times in ms, the wall clock's beside it, and the load."""
    for _ in range(WARM):
        run()
    samples, walls = [], []
    while len(samples) < RUNS or sum(samples) < 1e3 * SECONDS:
        wall, start = time.perf_counter(), time.process_time()
        run()
        samples.append(1e3 * (time.process_time() - start))
        walls.append(1e3 * (time.perf_counter() - wall))
    low, middle, high = np.percentile(samples, [25, 50, 75])
    return {
        "ms": round(float(low), 4),
        "median_ms": round(float(middle), 4),
        "iqr_pct": round(100 * float(high - low) / float(middle), 1),
        "wall_ms": round(float(np.percentile(walls, 25)), 4),
        "load": round(os.getloadavg()[0], 1),
    }


def time_missing(runtime: str, files: Path, names: list[str], found: dict[str, Any], save: Callable[[], None], end: float) -> bool:
    """Visit each network until it was seen `VISITS` times, or until the clock says `end`; return whether nothing is missing."""
    runs: dict[str, Callable[[], object]] = {}
    for visit in range(VISITS):
        for name in names:
            held = found.get(name, {})
            if len(held.get("visits_ms", ())) > visit or "refused" in held:
                continue
            if time.monotonic() > end:
                save()
                return False
            try:
                if name not in runs:
                    runs[name] = run_of(runtime, name, files)
                seen = timed(runs[name])
                visits = [*held.get("visits_ms", ()), seen["ms"]]
                found[name] = seen | {"ms": min(visits), "visits_ms": visits}
            except ArtifactError as error:
                found[name] = {"refused": str(error)}
        print(runtime, "visit", visit + 1, "of", VISITS, flush=True)
        save()
    return True


def predicted(runtime: str, calibration: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return what a fit to the calibration says of networks."""
    rows = {name: row["ms"] for name, row in calibration.items() if "ms" in row}
    device = f"local-cpu-{runtime}"
    samples = [Sample(workloads.load(n), "fp32", ms, n, device, workloads.describe(n).family) for n, ms in rows.items()]
    model = Additive().fit(samples)
    profile = Profile.model_validate(
        {
            "name": device,
            "title": "this machine",
            "kind": "cpu",
            "runtime": runtime,
            "threads": 1,
            "default_precision": "fp32",
            "precisions": {"fp32": {}},
            "origin": {"title": "experiments/005_local_cpu"},
        }
    )
    estimates = {name: model.estimate(workloads.load(name), profile, "fp32") for name in names}
    return {name: {"ms": e.latency_ms, "lower_ms": e.lower_ms, "upper_ms": e.upper_ms} for name, e in estimates.items()}


def report(table: dict[str, Any]) -> None:
    """Add the figures of each runtime that is done, and print them."""
    for runtime, row in table["runtimes"].items():
        pairs = [(row["predicted"][n], t["ms"], n) for n, t in row["timed"].items() if "ms" in t]
        if not pairs:
            continue
        error = np.array([abs(guess["ms"] / ms - 1) for guess, ms, _ in pairs])
        drift = [row["again"][n]["ms"] / row["calibration"][n]["ms"] for n in row["again"]]
        loads = [t["load"] for part in ("calibration", "timed") for t in row[part].values() if "load" in t]
        row["figures"] = {
            "calibration_networks": sum("ms" in t for t in row["calibration"].values()),
            "networks": len(pairs),
            "families": len({workloads.describe(n).family for *_, n in pairs}),
            "mean_error_pct": round(100 * float(error.mean()), 2),
            "median_error_pct": round(100 * float(np.median(error)), 2),
            "median_log_bias": round(float(np.median([np.log(guess["ms"] / ms) for guess, ms, _ in pairs])), 3),
            "spearman": round(float(_spearman([g["ms"] for g, *_ in pairs], [ms for _, ms, _ in pairs])), 3),
            "coverage_pct": round(100 * float(np.mean([g["lower_ms"] <= ms <= g["upper_ms"] for g, ms, _ in pairs])), 1),
            "drift": [round(min(drift), 3), round(statistics.median(drift), 3), round(max(drift), 3)] if drift else [],
            "load": [min(loads), max(loads)],
        }
        print(runtime, json.dumps(row["figures"]))


def _spearman(a: list[float], b: list[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def main() -> None:
    """Calibrate, predict, time, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=PACKAGES, help="default: the report alone")
    parser.add_argument("--files", type=Path, default=Path("runtimes"), help="folder of the networks' files")
    parser.add_argument("--write", type=Path, help="write the .onnx files into this folder, and nothing else")
    parser.add_argument("--most-s", type=float, default=500.0, help="start no further network after so many seconds")
    args = parser.parse_args()
    calibration, test = sets()
    if args.write:
        args.write.mkdir(exist_ok=True)
        for name in (*calibration, *test):
            if not (args.write / f"{name}.onnx").exists():
                try:
                    write_onnx(workloads.load(name), args.write / f"{name}.onnx", np.random.default_rng(0))
                except GraphError as error:
                    print(error)
        return None
    table: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"runtimes": {}}
    table |= {
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "clock": "processor time of the process, one thread, lower quartile",
        "nice": os.nice(0),
    }

    def save() -> None:
        OUT.write_text(json.dumps(table, indent=1) + "\n")

    if args.runtime:
        end = time.monotonic() + args.most_s
        empty: dict[str, Any] = {"calibration": {}, "predicted": {}, "timed": {}, "again": {}}
        row = table["runtimes"].setdefault(args.runtime, empty)
        row["version"] = version(PACKAGES[args.runtime])
        if not time_missing(args.runtime, args.files, calibration, row["calibration"], save, end):
            return print("not done: run it again")
        if not row["predicted"]:
            row["predicted"] = predicted(args.runtime, row["calibration"], test)
            save()  # before the first of them is timed
        known = [name for name, t in row["calibration"].items() if "ms" in t]
        again = known[:: max(1, len(known) // ANCHORS)][:ANCHORS]
        parts = ((again, row["again"]), (test, row["timed"]))
        if not all(time_missing(args.runtime, args.files, names, found, save, end) for names, found in parts):
            return print("not done: run it again")
    report(table)
    save()
    return None


if __name__ == "__main__":
    main()
