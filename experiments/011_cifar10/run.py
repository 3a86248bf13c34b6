"""The main job on CIFAR-10: how long it takes, what front it gives, and whether the front's ends differ in accuracy.

    python experiments/011_cifar10/run.py --data ../shared/data/cifar10_jpeg.tar.xz [--device D] [--supernet FILE]

With ``--supernet`` (of an earlier run) the training is left out, and the file says so; without ``--data`` the latencies that
the space offers are printed and nothing else is done. The budget is the 30 % quantile of the latency of 2,000 random members.
The ends of the front are compared on the test pictures with the supernet's weights, picture by picture (paired). The pictures
are JPEG re-encoded, which changes pixels.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
SPACE, SEED, QUANTILE = "hybrid-s", 0, 0.3


def latencies(device: str) -> tuple[float, dict[str, float]]:
    """Return the budget, the quantile of the latencies of random members, and what the space offers on the device."""
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import load_profile
    from nas.spaces.naming import get_space

    space, profile = get_space(SPACE, num_classes=10), load_profile(device)
    rng = np.random.default_rng(SEED)
    members = [space.segments(space.sample(rng)) for _ in range(2000)]
    members.append(space.segments(space.extreme(largest=False)))
    estimates = load_predictor(profile).estimate_batch(members, profile, profile.default_precision)
    *drawn, smallest = (float(ms) for ms in estimates.latency_ms)
    offered = {
        "smallest_ms": round(smallest, 3),
        "least_ms": round(min(drawn), 3),
        "median_ms": round(float(np.median(drawn)), 3),
        "most_ms": round(max(drawn), 3),
        "upper_over_estimate": round(float(np.median(estimates.upper_ms / estimates.latency_ms)), 3),
    }
    return round(float(np.quantile(drawn, QUANTILE)), 3), offered


def compare_ends(weights: Path, front: list[dict], data: str) -> dict[str, object]:
    """Return accuracies of the most accurate and the fastest point on the test pictures, and their paired difference."""
    from nas.spaces.architecture import Architecture
    from nas.spaces.naming import get_space
    from nas.training.dataset import load_dataset
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import load_supernet

    dataset = load_dataset(data, seed=SEED)
    supernet = load_supernet(weights, get_space(SPACE, num_classes=10))
    evaluator = SupernetEvaluator(supernet, dataset, "test")
    best = max(front, key=lambda p: p["supernet_accuracy_pct"])
    fastest = min(front, key=lambda p: p["latency_ms"])
    right = [evaluator.right(Architecture.from_json(json.dumps(p["architecture"]))).astype(float) for p in (best, fastest)]
    difference = right[0] - right[1]
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return {
        "pictures": len(difference),
        "best_test_pct": round(100 * right[0].mean(), 2),
        "fastest_test_pct": round(100 * right[1].mean(), 2),
        "difference_points": round(100 * difference.mean(), 2),
        "standard_error_points": round(100 * error, 2),
        "standard_errors": round(difference.mean() / error, 1),
        "latency_ratio": round(best["latency_ms"] / fastest["latency_ms"], 2),
    }


def main() -> None:
    """Run the search and write ``results/DEVICE.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--supernet", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    arguments = parser.parse_args()
    budget, offered = latencies(arguments.device)
    if arguments.data is None:
        print(json.dumps({"device": arguments.device, "budget_ms": budget, "space_ms": offered}))
        return
    command = ["search", "--device", arguments.device, "--budget", f"{budget}ms", "--space", SPACE, "--data", arguments.data]
    command += ["--proxy-resolution", "32", "--seed", str(SEED), "--out", str(arguments.out), "--format", "json"]
    if arguments.supernet:
        command += ["--supernet", str(arguments.supernet)]
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(ROOT / "cli.py"), *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.monotonic() - began
    result = json.loads(done.stdout)
    front = sorted(result["front"], key=lambda p: p["latency_ms"])
    (HERE / "results").mkdir(exist_ok=True)
    kept = ("latency_ms", "lower_ms", "upper_ms", "supernet_accuracy_pct", "accuracy_pct", "macs", "params", "resolution")
    written = {
        "command": f"python experiments/011_cifar10/run.py --data {Path(arguments.data).name} --device {arguments.device}",
        "supernet": "of the run on sa8295p, not trained again" if arguments.supernet else "trained here",
        "made": datetime.now(UTC).date().isoformat(),
        "seed": SEED,
        "versions": {package: version(package) for package in ("torch", "numpy", "onnxruntime", "optuna")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "data": "CIFAR-10, JPEG re-encoded (pixels differ from the original)",
        "budget_ms": budget,
        "space_ms": offered,
        "seconds": round(seconds, 1),
        "phases_s": result["seconds"],
        "evaluations": result["evaluations"],
        "front": [{key: p[key] for key in kept} for p in front],
        "latency_span": round(front[-1]["latency_ms"] / front[0]["latency_ms"], 2),
        "largest_upper_ms": max(p["upper_ms"] for p in front),
        "chosen": {key: result["chosen"][key] for key in kept},
        "ends_on_test": compare_ends(arguments.supernet or arguments.out / "supernet.safetensors", front, arguments.data),
    }
    (HERE / "results" / f"{arguments.device}.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
