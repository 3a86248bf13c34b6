"""What networks lose from float to int8: a fit to published pairs of accuracies, families left out, beside depth and parameters alone.

    python experiments/024_int8_drop/run.py --data ../shared/data

Pairs of Horizon (RDK X5, X3), ST (STM32N6), Hailo (8, 8L, 15L; their mean), Axelera and Qualcomm AI Hub (newest release, w8a8). Writes
``hardware_profiles/int8_drop.json`` and results/results.json.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nas.bench.board_tables import network_of, stm32_network
from nas.bench.public_tables import hailo_network, named, read_rows
from nas.graphs import workloads
from nas.quantisation.risk import FEATURES, OFFSET_PCT, features

HERE = Path(__file__).parent
RIDGE = 40.0
TOOL_RIDGE = 0.3
Pairs = dict[tuple[str, str], float]


def size(text: str) -> int:
    """Return the side of ``3x224x224``."""
    return int(text.split("x")[-1])


def pairs(data: Path) -> Pairs:
    """Return (tool, network) -> points lost, repeats averaged; only 1000-class accuracies."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(tool: str, network: str | None, before: str, after: str) -> None:
        if network and before and after:
            found[tool, network].append(float(before) - float(after))

    for row in read_rows(data / "rdk.csv"):
        if row["task"] == "classification" and row["float_top1"] and row["int8_top1"]:
            add("rdk", network_of(row, size(row["input_size"])), row["float_top1"], row["int8_top1"])
    for row in read_rows(data / "stm32.csv"):
        if row["board"].startswith("STM32N6") and row["dataset"] == "ImageNet":
            add("stm32", stm32_network(row), row["float_top1"], row["int8_top1"])
    for row in read_rows(data / "hailo_fps.csv"):
        model, side = hailo_network(row)
        if row["task"] == "classification" and model:
            add("hailo", named(model, side), row["float_accuracy"], row["int8_accuracy"])
    for row in read_rows(data / "axelera.csv"):
        if row["task"] == "Image Classification":
            add("axelera", network_of(row, size(row["input_size"])), row["float_accuracy"], row["int8_accuracy"])
    models = {}
    for row in read_rows(data / "aihub_models.csv"):
        side = size(row["input_size"])
        models[row["aihub_model"]] = named(row["timm_name"], side) or named(row["torchvision_name"].rpartition(".")[2], side)
    newest: dict[str, tuple[str, str, str]] = {}
    for row in read_rows(data / "aihub_accuracy.csv"):
        if row["precision"] == "w8a8" and row["metric"].startswith("Top-1") and models.get(row["model"]):
            newest[row["model"]] = max(
                newest.get(row["model"], ("", "", "")), (row["release"], row["torch_same_samples"], row["on_device"])
            )
    for model, (_, before, after) in newest.items():
        add("aihub", models[model], before, after)
    return {key: float(np.mean(values)) for key, values in found.items()}


def family(network: str) -> str:
    """Return what is left out together on all tools: the beginning of a network's name, up to its size."""
    return re.sub(r"^(tf_|legacy_)", "", re.split(r"[@_\d]", network.removeprefix("tf_"))[0]) or workloads.describe(network).family


def solved(x: np.ndarray, tools: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return means, deviations, weights and levels of the ridge regression."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    design = np.concatenate([tools, (x - mean) / deviation], axis=1)
    penalty = np.diag([TOOL_RIDGE] * tools.shape[1] + [RIDGE] * x.shape[1])
    found = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    return mean, deviation, found[tools.shape[1] :], found[: tools.shape[1]]


def left_out(x: np.ndarray, tools: np.ndarray, target: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Return predictions of networks whose family the fit has not seen."""
    guess = np.zeros(len(target))
    for name in sorted(set(families)):
        out = families == name
        mean, deviation, weights, levels = solved(x[~out], tools[~out], target[~out])
        guess[out] = tools[out] @ levels + ((x[out] - mean) / deviation) @ weights
    return guess


def quality(guess: np.ndarray, lost: np.ndarray, families: np.ndarray) -> dict[str, object]:
    """Return rank correlation, and recall and false alarms at two points, with a bootstrap over families."""
    names = sorted(set(families))
    rng, drawn = np.random.default_rng(0), []
    alarm = np.exp(guess) - OFFSET_PCT >= np.sort(np.exp(guess) - OFFSET_PCT)[-round((lost >= 2).sum())]

    def figures(at: np.ndarray) -> tuple[float, float, float]:
        bad = lost[at] >= 2
        recall = float(alarm[at][bad].mean()) if bad.any() else math.nan
        return float(spearmanr(guess[at], lost[at]).statistic), recall, float(alarm[at][~bad].mean())

    for _ in range(1000):
        chosen = rng.integers(len(names), size=len(names))
        drawn.append(figures(np.concatenate([np.flatnonzero(families == names[i]) for i in chosen])))
    low, high = np.nanquantile(np.array(drawn), (0.05, 0.95), axis=0)
    value = figures(np.arange(len(lost)))
    top = set(np.argsort(-guess)[: len(guess) // 5].tolist())
    large = np.flatnonzero(lost > 5).tolist()
    keys = ("spearman", "recall_at_2", "false_alarms_at_2")
    report: dict[str, object] = {k: [round(v, 3), [round(a, 3), round(b, 3)]] for k, v, a, b in zip(keys, value, low, high, strict=True)}
    return report | {"over_5_points": len(large), "of_these_in_the_top_fifth": len(top & set(large))}


def main() -> None:
    """Fit, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    known = pairs(parser.parse_args().data)
    keys = sorted(known)
    names = sorted({tool for tool, _ in keys})
    x = np.array([features(workloads.load(network)) for _, network in keys])
    params = np.array([[math.log(workloads.load(network).cost.params)] for _, network in keys])
    tools = np.array([[tool == name for name in names] for tool, _ in keys], dtype=float)
    lost, families = np.array([known[key] for key in keys]), np.array([family(network) for _, network in keys])
    target = np.log(np.maximum(lost, 0) + OFFSET_PCT)
    guess = left_out(x, tools, target, families)
    report = {
        "protocol": "leave one family out on all tools; 90 % bootstrap over families; as many alarms as networks that lose two points or more",
        "pairs": {name: int(tools[:, i].sum()) for i, name in enumerate(names)},
        "families": len(set(families)),
        "fit": quality(guess, lost, families),
        "depth alone": quality(left_out(x[:, [2]], tools, target, families), lost, families),
        "parameters alone": quality(left_out(params, tools, target, families), lost, families),
    }
    mean, deviation, weights, levels = solved(x, tools, target)
    fitted = {
        "features": FEATURES,
        "mean": mean.round(5).tolist(),
        "deviation": deviation.round(5).tolist(),
        "weights": weights.round(5).tolist(),
        "tools": dict(zip(names, levels.round(5).tolist(), strict=True)),
        "upper": round(float(np.quantile(target - guess, 0.9)), 4),
        "command": "python experiments/024_int8_drop/run.py --data ../shared/data",
        "left_out": report["fit"],
    }
    (HERE.parents[1] / "hardware_profiles" / "int8_drop.json").write_text(json.dumps(fitted, indent=1) + "\n")
    (HERE / "results" / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
