"""Quantise the network that a finished run chose, and members of its supernet: simulated against measured in ONNX Runtime.

    python experiments/013_quantisation/run.py --run runs/digits --data digits --members 20

Test images are read once, by this report. Calibration pictures are 256 of *train*.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import scipy.stats
import torch
from torch import nn

from nas.arch import Architecture
from nas.dataset import load_dataset
from nas.design import MEMBER_FILE
from nas.exporters.onnx import OnnxExporter
from nas.exporters.onnx_quantised import QuantisedOnnxExporter
from nas.frontends.torch_module import trace_module
from nas.mixer import fuse
from nas.quantisation.sensitivity import sensitivity_db
from nas.quantisation.simulate import simulate
from nas.quantiser import DEFAULT_RECIPE
from nas.space import get_space
from nas.supernet.batches import Batches
from nas.supernet.finetune import load_member
from nas.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.supernet.train import load_supernet

RECIPES = {"naive": ("minmax",), "ours": DEFAULT_RECIPE, "smoothed": ("smoothing", *DEFAULT_RECIPE)}


def accuracy_pct(found: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers in percent."""
    return round(100 * float((found == labels).mean()), 3)


def in_runtime(path: Path, batches: Batches) -> np.ndarray:
    """Return the classes that a file names, one picture at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([int(session.run(None, {name: x.numpy()})[0].argmax()) for x, _ in batches.plain(1)])


def exported(
    module: nn.Module, shape: tuple[int, ...], exporter: OnnxExporter | QuantisedOnnxExporter, scored: Batches
) -> tuple[np.ndarray, int]:
    """Write a file, read its answers, and return them with its size in bytes."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        artifact = exporter.export(module, trace_module(fuse(module), shape), path)
        return in_runtime(path, scored), artifact.size_bytes


def main() -> None:
    """Write ``results/<data>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    space, dataset = get_space(args.space), load_dataset(args.data)
    _, module, size = load_member(args.run / MEMBER_FILE, space)
    device = torch.device("cpu")
    train, test = Batches(dataset, "train", size, device), Batches(dataset, "test", size, device)
    shown = list(pictures(train.plain(32, calibration_indices(train, 256))))
    labels, shape = dataset.labels("test"), (1, 3, *size)
    report: dict[str, object] = {
        "seed": args.seed,
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "machine": platform.machine(),
        "resolution": size,
        "test_images": len(labels),
    }
    found, size_bytes = exported(module, shape, OnnxExporter(), test)
    table = [{"precision": "fp32", "recipe": "", "measured_pct": accuracy_pct(found, labels), "size_bytes": size_bytes}]
    print(table[-1], flush=True)
    for precision in ("w8a16", "w8a8"):
        for name, recipe in RECIPES.items():
            simulated = predictions(simulate(fuse(module), shown, precision, recipe), test)
            found, size_bytes = exported(module, shape, QuantisedOnnxExporter(precision, shown, recipe), test)
            table.append(
                {
                    "precision": precision,
                    "recipe": name,
                    "measured_pct": accuracy_pct(found, labels),
                    "simulated_pct": accuracy_pct(simulated, labels),
                    "size_bytes": size_bytes,
                }
            )
            print(table[-1], flush=True)
    report["chosen"] = table
    deployed = fuse(module)
    blocks = [name for name, _ in deployed.named_children()]
    report["sensitivity_db"] = {k: round(v, 2) for k, v in sensitivity_db(deployed, blocks, shown[:3]).items()}
    path = Path(__file__).parent / "results" / f"{args.data}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")

    supernet, rng, rows, start = (
        load_supernet(args.run / "supernet.safetensors", space),
        np.random.default_rng(args.seed),
        [],
        time.perf_counter(),
    )
    members: list[Architecture] = [space.sample(rng) for _ in range(args.members)]
    for architecture in members:
        size = space.proxy(architecture, supernet.resolution)
        train, scored = Batches(dataset, "train", size, device), Batches(dataset, "test", size, device)
        member = supernet.extract(architecture, size)
        recalibrate(member, pictures(train.plain(256, calibration_indices(train))))
        shown = list(pictures(train.plain(32, calibration_indices(train, 256))))
        row = {
            "architecture": architecture.key,
            "float_pct": accuracy_pct(predictions(member.eval(), scored), labels),
            "simulated_pct": accuracy_pct(predictions(simulate(fuse(member), shown, "w8a8", RECIPES["naive"]), scored), labels),
            "measured_pct": accuracy_pct(
                exported(member, (1, 3, *size), QuantisedOnnxExporter("w8a8", shown, RECIPES["naive"]), scored)[0], labels
            ),
        }
        rows.append(row)
        print(row, flush=True)
        report |= {"members": rows, "rank": rank(rows, args.seed), "members_s": round(time.perf_counter() - start)}
        report["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
        path.write_text(json.dumps(report, indent=1) + "\n")


def rank(rows: list[dict[str, object]], seed: int) -> dict[str, object]:
    """Kendall's tau-b of simulated and of float accuracy with measured accuracy, with 90 % bootstrap intervals."""
    columns = {key: np.array([row[key] for row in rows], dtype=float) for key in ("float_pct", "simulated_pct", "measured_pct")}
    rng, result = np.random.default_rng(seed), {}
    for key in ("simulated_pct", "float_pct"):
        draws = [rng.integers(0, len(rows), len(rows)) for _ in range(1000)]
        taus = [scipy.stats.kendalltau(columns[key][i], columns["measured_pct"][i]).statistic for i in draws]
        whole = scipy.stats.kendalltau(columns[key], columns["measured_pct"]).statistic
        low, high = np.nanpercentile(taus, [5, 95]) if np.isfinite(taus).any() else (np.nan, np.nan)
        result[key] = {
            "kendall": None if np.isnan(whole) else round(float(whole), 3),
            "interval": [round(float(low), 3), round(float(high), 3)],
        }
    gap = np.abs(columns["simulated_pct"] - columns["measured_pct"])
    return result | {"n": len(rows), "largest_gap_points": float(gap.max()), "mean_gap_points": float(gap.mean())}


if __name__ == "__main__":
    main()
