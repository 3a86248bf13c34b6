"""This machine's CPU under ONNX Runtime: calibrate on some networks, predict others, then measure those.

    python experiments/005_local_cpu/run.py

Calibration: sampled `hybrid` architectures and published networks. Test: 40 other samples and 15 published networks of other families;
their predictions are written to the result before the first of them is timed. One thread, bound to a processor; a timing whose spread is
wide is taken again, once, and the one of least relative spread is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from latency_predictors.additive import Additive
from nas import workloads
from nas.errors import MeasurementError, NasError
from nas.graph import Graph
from nas.hardware import Profile
from nas.latency_transfer import figures
from nas.measure import Measurement, measure_graph, measure_onnx
from nas.predictor import Sample
from nas.space import get_space

OUT = Path(__file__).parent / "results" / "results.json"
CALIBRATION = (
    *("resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "regnetx_008", "regnety_004", "convnext_atto"),
    *("deit_tiny_patch16_224", "edgenext_x_small", "ghostnet_100", "levit_128", "mobilevit_xs", "shufflenet_v2_x1_0", "poolformer_s12"),
    *("repvgg_a0", "mobileone_s0", "pvt_v2_b0", "efficientformer_l1", "fastvit_t8"),
)
REFERENCES = (
    *(
        "resnet34",
        "mobilenetv2_140",
        "mobilenetv3_large_100",
        "efficientnet_lite0",
        "regnetx_004",
        "convnext_femto",
        "vit_tiny_patch16_224",
    ),
    *("xcit_nano_12_p16_224", "mobilenetv4_conv_small", "squeezenet1_1", "googlenet", "mnasnet1_0", "hardcorenas_a", "repvit_m0_9"),
    *("tf_efficientnet_lite1", "semnasnet_100", "fbnetc_100", "spnasnet_100", "lcnet_100", "tinynet_a", "resnet26", "rexnet_100"),
)
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


def timed(graph: Graph) -> Measurement | None:
    """Return the steadier of up to two measurements; None where both were refused."""
    best: Measurement | None = None
    for _ in range(2):
        try:
            found = measure_graph(graph, lambda path: measure_onnx(path, most_s=1.5))
        except MeasurementError:
            continue
        if best is None or found.iqr_ms / found.median_ms < best.iqr_ms / best.median_ms:
            best = found
        if best.iqr_ms < 0.2 * best.median_ms:
            break
    return best


def sampled(count: int, seed: int) -> dict[str, Graph]:
    """Return architectures of the general presets, at their own resolutions."""
    found = {}
    for i in range(count):
        space = get_space(("hybrid-s", "hybrid-m")[i % 2])
        architecture = space.sample(np.random.default_rng([seed, i]))
        found[f"{space.name}/{architecture.key}"] = space.lower(architecture)
    return found


def published(names: tuple[str, ...], most: int) -> dict[str, Graph]:
    return {name: workloads.load(name) for name in [n for n in names if n in workloads.names()][:most]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", type=int, default=50)
    parser.add_argument("--test", type=int, default=40)
    args = parser.parse_args()
    calibration = sampled(args.calibrate, 1) | published(CALIBRATION, 12)
    test = sampled(args.test, 2) | published(REFERENCES, 15)
    assert not set(calibration) & set(test)
    samples, spreads, refused = [], [], []
    for name, graph in calibration.items():
        try:
            found = timed(graph)
        except NasError as error:
            refused.append(f"{name}: {error}")
            continue
        if found is None:
            refused.append(f"{name}: spread")
            continue
        spreads.append(found.iqr_ms / found.median_ms)
        samples.append(Sample(graph, "fp32", found.median_ms, name, "local-cpu", name))
        print(len(samples), name, f"{found.median_ms:.2f}", flush=True)
    model = Additive().fit(samples)
    predicted = {name: model.estimate(graph, STUB, "fp32") for name, graph in test.items()}
    rows = {
        name: {"predicted_ms": e.latency_ms, "lower_ms": e.lower_ms, "upper_ms": e.upper_ms, "extrapolated": list(e.extrapolated)}
        for name, e in predicted.items()
    }
    about = {
        "machine": platform.platform(),
        "processors": __import__("os").cpu_count(),
        "versions": {p: version(p) for p in ("onnxruntime", "numpy")},
        "calibration": {s.name: round(s.latency_ms, 4) for s in samples},
        "calibration_median_iqr_pct": 100 * float(np.median(spreads)),
        "left_out_median_error_pct": 100 * float(np.median(np.abs(np.exp(model.devices["local-cpu", "fp32"].scores) - 1))),
        "refused": refused,
    }
    OUT.write_text(json.dumps(about | {"test": rows}, indent=1) + "\n")  # before the first of them is measured
    for name, graph in test.items():
        try:
            found = timed(graph)
        except NasError as error:
            found = None
            refused.append(f"{name}: {error}")
        if found is None:
            refused.append(f"{name}: not measured")
            continue
        rows[name] |= {"measured_ms": found.median_ms, "iqr_ms": found.iqr_ms}  # type: ignore[dict-item]
        print(name, f"{rows[name]['predicted_ms']:.2f} -> {found.median_ms:.2f}", flush=True)
    seen = [row for row in rows.values() if "measured_ms" in row]
    central, truth = np.array([r["predicted_ms"] for r in seen]), np.array([r["measured_ms"] for r in seen])
    held = np.mean([r["lower_ms"] <= r["measured_ms"] <= r["upper_ms"] for r in seen])
    spread = float(np.median([r["iqr_ms"] / r["measured_ms"] for r in seen]))
    by = {part: figures(*(a[mask] for a in (central, truth))) for part, mask in _parts(rows)}
    summary = figures(central, truth) | {"networks": len(seen), "coverage_pct": 100 * float(held), "median_iqr_pct": 100 * spread}
    assert all(math.isfinite(v) for v in summary.values())
    OUT.write_text(json.dumps(about | {"summary": summary, "by_part": by, "test": rows}, indent=1) + "\n")
    print(summary, by)


def _parts(rows: dict[str, dict[str, object]]) -> list[tuple[str, np.ndarray]]:
    names = [name for name, row in rows.items() if "measured_ms" in row]
    hybrid = np.array(["/" in name for name in names])
    return [("hybrid", hybrid), ("references", ~hybrid)]


if __name__ == "__main__":
    main()
