"""Fit and write the profiles of devices with public timings: timm's GPUs and CPU, ncnn's boards and phones, Hailo, Rockchip, and car chips,
boards and microcontrollers (Horizon, Renesas, ST, Axelera, Coral, iPhone).

    python experiments/007_public_profiles/run.py --data ../shared/data

Writes ``hardware_profiles/*.toml``, ``latency_predictors/artifacts/*.npz`` and results/results.json. Errors are of networks left out with all their
family: by five folds (timm), one family after the other (boards) and on all devices at once (ncnn); Hailo's one by one. The device has never seen the
network, and neither has the prior that it is shrunk to. What a profile has of aliases and memory is kept. ``known_elsewhere`` is the other reading of leave-one-network-out:
the network's own timings on the other devices of the table are used, scaled.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors._kernels import kernels_of
from latency_predictors.additive import FEWEST_FAMILIES, Additive, conformal_quantile, folds_of
from latency_predictors.boards import HOST, Boards, Table
from latency_predictors.kernels import AUTOCAST, KernelPrices, left_out
from latency_predictors.physical import Physical
from nas.bench.board_tables import READERS
from nas.bench.public_tables import PublicTiming, read_hailo, read_ncnn, read_rknn, read_timm
from nas.devices.predictor import Predictor, Sample
from nas.devices.profile import read_profile
from nas.graphs import workloads
from nas.graphs.graph import Graph

ROOT = Path(__file__).parents[2]
TIMM = "huggingface/pytorch-image-models results/", "https://github.com/huggingface/pytorch-image-models", "Apache-2.0"
NCNN = "Tencent/ncnn benchmark/", "https://github.com/Tencent/ncnn", "BSD-3-Clause"
HAILO = "hailo-ai/hailo_model_zoo", "https://github.com/hailo-ai/hailo_model_zoo", "MIT"
RKNN = "airockchip/rknn_model_zoo", "https://github.com/airockchip/rknn_model_zoo", "Apache-2.0"
RENESAS_V = "renesas-rz/rzv_drp-ai_tvm docs/model_list", "https://github.com/renesas-rz/rzv_drp-ai_tvm", "Apache-2.0"
BOARDS: dict[str, tuple[str, str, str]] = {
    "rdk": ("D-Robotics/rdk_model_zoo", "https://github.com/D-Robotics/rdk_model_zoo", "Apache-2.0"),
    "renesas_rzv": RENESAS_V,
    "rcar_x5h": ("Renesas model cards", "https://huggingface.co/Renesas", "Apache-2.0"),
    "stm32": ("STMicroelectronics/stm32ai-modelzoo READMEs", "https://github.com/STMicroelectronics/stm32ai-modelzoo", "facts only"),
    "axelera": ("axelera-ai-hub/voyager-sdk v1.2.5", "https://github.com/axelera-ai-hub/voyager-sdk", "facts only"),
    "coral": ("coral.ai benchmarks", "https://coral.ai/docs/edgetpu/benchmarks", "facts only"),
    "iphone": ("READMEs of EfficientFormer and RepViT", "https://github.com/snap-research/EfficientFormer", "facts only"),
}
_DRPAI = frozenset(HOST)
TABLES = {
    "rz-v2h": Table(0.5, _DRPAI - {"swish"}, few=True),
    **{f"rz-v2{letter}": Table(0.5, _DRPAI | {"depthwise>3"}) for letter in ("l", "m", "ma")},
    "iphone-12": Table(0.05),
}
"""Renesas states whole milliseconds; what falls to the processor there is read from which networks are 20 to 100 times slower."""
FEWEST = 12
MODELS: dict[str, tuple[str, Predictor]] = {
    "timm": ("kernels", KernelPrices()),
    "ncnn-cpu": ("additive", Additive()),
    "ncnn-gpu": ("additive", Additive(penalty=0.4)),
    "hailo": ("physical", Physical(members=100, refit=True, scaled={"noise_sd": 3.0, "price_sd": 0.5})),
    "rknn": ("additive", Additive()),
    **{name: ("boards", Boards(tables=TABLES)) for name in BOARDS},
}
RAM_MB = {"stm32n6": 2.62}
"""Internal RAM that ST's model zoo gives to activations (2.5 MiB)."""
FEWEST_OF = dict.fromkeys(BOARDS, 7)
"""Of a table; `FEWEST` by default."""
NOTES: dict[str, tuple[str, ...]] = {
    "rz-v2h": ("whole milliseconds: below 10 ms a step is 10 % and more",),
    **{f"rz-v2{letter}": ("whole milliseconds",) for letter in ("l", "m", "ma")},
    "iphone-12": ("timings of three papers with three tools, rounded to .1 ms",),
    "axelera-metis-pcie": ("end to end on a host with the card, full load: not a latency",),
    "axelera-metis-m2": ("end to end on a host with the card, full load: not a latency",),
    "stm32n6": ("networks whose activations stay in the 2.5 MB of internal RAM; one that leaves it is up to ten times slower",),
    "r-car-x5h": ("one NPU core; a model card that states no input was taken at the network's own",),
    "coral-usb": ("weights beyond 8 MB stream over USB at every run",),
}
STREAMED = (
    "the compiler could not keep these networks on the chip at once; which networks are is its choice: ask the device of the other name too"
)
AS_WRITTEN = (
    "networks were timed as timm builds them, batch norms and branches unfused, and a published network is priced so; any other graph is priced"
    " as it is given, and a folded one is faster"
)


def tables(data: Path) -> dict[str, tuple[tuple[str, str, str], list[PublicTiming]]]:
    file = "benchmark-infer-amp-nhwc-pt240-cu124-rtx{}.csv"
    eager = "pytorch 2.4.0, cuda 12.4, amp, channels last"
    timm = [
        *read_timm(data / "timm" / file.format("3090"), "rtx-3090", "NVIDIA GeForce RTX 3090", "gpu", eager),
        *read_timm(data / "timm" / file.format("4090"), "rtx-4090", "NVIDIA GeForce RTX 4090", "gpu", eager),
        *read_timm(
            data / "timm" / "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv", "i9-10940x", "Intel Core i9-10940X", "cpu", "pytorch 2.4.0 torch.compile"
        ),
    ]  # fmt: skip
    ncnn = list(read_ncnn(data / "ncnn_bench.csv.gz"))
    return {
        "timm": (TIMM, timm),
        "ncnn-cpu": (NCNN, one_setting_a_device([r for r in ncnn if r.kind == "cpu"])),
        "ncnn-gpu": (NCNN, [r for r in ncnn if r.kind == "gpu"]),
        "hailo": (HAILO, list(read_hailo(data / "hailo_fps.csv"))),
        "rknn": (RKNN, list(read_rknn(data / "rknn_fps.csv"))),
        **{name: (BOARDS[name], [row for row in READERS[name](data / f"{name}.csv") if not row.note]) for name in BOARDS},
    }


def one_setting_a_device(rows: list[PublicTiming]) -> list[PublicTiming]:
    """Keep four threads where a device was timed so, else its most threads up to eight."""
    by_board: dict[str, dict[int, list[PublicTiming]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_board[row.device.rpartition("-")[0]][row.threads or 1].append(row)
    kept = []
    for settings in by_board.values():
        few = [t for t in settings if t <= 8] or [min(settings)]
        kept += settings[4 if 4 in settings else max(few)]
    return kept


def known_elsewhere(timed: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return each device's median error in percent when a network is predicted from its timings on the other devices, scaled."""
    errors = {}
    for device, own in timed.items():
        found = []
        for name, ms in own.items():
            guesses = []
            for other, theirs in timed.items():
                shared = [n for n in own if n in theirs and n != name]
                if other == device or name not in theirs or len(shared) < 8:
                    continue
                logs = np.array([math.log(own[n] / theirs[n]) for n in shared])
                guesses.append((float(logs.std()) + 0.02, float(np.median(logs)) + math.log(theirs[name])))
            if guesses:
                nearest = sorted(guesses)[:5]
                weights = np.array([1 / spread**2 for spread, _ in nearest])
                found.append(abs(math.exp(float(np.average([g for _, g in nearest], weights=weights))) / ms - 1))
        if found:
            errors[device] = 100 * float(np.median(found))
    return errors


def other_folds(samples: list[Sample], device: str, draws: int = 5) -> list[float]:
    """Return the mean error in percent for several draws of the five folds over families; the first is the one that profiles report."""
    chosen = [s for s in samples if s.device == device]
    autocast = chosen[0].precision in AUTOCAST
    x, y = np.array([kernels_of(s.graph, autocast).total for s in chosen]), np.array([s.latency_ms for s in chosen])
    guesses = (left_out(x, y, [s.family for s in chosen], autocast, seed) for seed in range(draws))
    return [round(100 * float(np.minimum(np.abs(guess / y - 1), 10).mean()), 2) for guess in guesses]


def coverage_across_folds(rows: list[tuple[str, float, float, float, float]]) -> float:
    """Return the share in percent of networks inside 90 % intervals that were calibrated on the other four folds of families."""
    score = np.array([math.log(guess / measured) for _, measured, guess, *_ in rows])
    folds = np.array(folds_of([workloads.describe(name).family for name, *_ in rows]))
    inside = []
    for fold in sorted(set(folds)):
        others = np.sort(np.abs(score[folds != fold]))
        inside += (np.abs(score[folds == fold]) <= conformal_quantile(others, 0.9)).tolist()
    return round(100 * float(np.mean(inside)), 1)


def toml(
    head: PublicTiming,
    origin: tuple[str, str, str],
    artifact: str,
    quality: dict[str, object],
    timings: dict[str, float],
    kept: Mapping[str, Any],
) -> str:
    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [f"title = {text(head.title)}", f'kind = "{head.kind}"']
    lines += [f"aliases = {json.dumps(kept['aliases'])}"] if kept.get("aliases") else []
    lines += [f'quantity = "{head.quantity}"'] if head.quantity != "latency" else []
    lines += [f"batch = {head.batch}"] if head.batch != 1 else []
    lines += [f"runtime = {text(head.runtime)}"]
    lines += ["compiled = false"] if head.kind == "gpu" and head.runtime.startswith("pytorch") else []
    lines += [f"threads = {head.threads}"] if head.threads else []
    notes = [STREAMED] if head.device.endswith("-streamed") else [AS_WRITTEN] if artifact == "timm" else list(NOTES.get(head.device, ()))
    lines += [f"notes = {json.dumps(notes, ensure_ascii=False)}"] if notes else []
    lines += [f'default_precision = "{head.precision}"', "", "[origin]", f"title = {text(origin[0])}", f"reference = {text(origin[1])}"]
    lines += [f"licence = {text(origin[2])}", 'command = "python experiments/007_public_profiles/run.py --data ../shared/data"']
    lines += ["", f"[precisions.{head.precision}]"]
    lines += [f"timings_step_ms = {2 * TABLES[head.device].grain_ms:g}"] if head.device in TABLES else []
    if quality:
        lines += [
            f'predictor = "{MODELS[artifact][0]}"',
            f'artifact = "{artifact}.npz"',
            "",
            f"[precisions.{head.precision}.held_out]",
        ]
        lines += [f"{key} = {json.dumps(value)}" for key, value in quality.items()]
    else:
        lines += [f'notes = ["{len(timings)} networks of the table can be rebuilt, too few for a fit"]']
    if memory := kept.get("memory"):
        lines += ["", "[memory]", *(f"{key} = {json.dumps(value)}" for key, value in memory.items())]
    if len(timings) < 60 or head.quantity == "latency":  # timm's GPUs have each network at a batch of its own
        lines += ["", f"[precisions.{head.precision}.timings_ms]"] + [f"{text(n)} = {ms:.4g}" for n, ms in sorted(timings.items())]
    return "\n".join(lines) + "\n"


def graph_of(table: str, name: str) -> Graph:
    """Return a network in the form in which a table timed it; Renesas exports RepVGG with its branches unmerged."""
    if table == "renesas_rzv" and name.startswith("repvgg"):
        return workloads.load_as_written(name)
    return MODELS[table][1].form_timed(name) or workloads.load(name)


def protocol(table: str, networks: Mapping[str, float], families: Mapping[str, str]) -> tuple[str, int | None]:
    """Return how a device's networks are left out, in words, and the number of families where these are."""
    count = len({families[name] for name in networks})
    if table == "hailo":
        return "leave one network out, on all devices", None
    if count < FEWEST_FAMILIES:
        return "leave one network out", None
    if len(networks) >= 60 and table not in BOARDS:
        return "five folds over families", count
    return "leave one family out" + ("" if table in BOARDS else ", on all devices"), count


def memory_of(device: str, model: Predictor, rows: list[PublicTiming], planner: str, packing_pct: float) -> dict[str, object]:
    """Return the RAM and flash of a device, and how much longer networks take that leave the RAM than the fit to the others says."""
    profile = read_profile(ROOT / "hardware_profiles" / f"{device}.toml")
    plain = profile.model_copy(update={"memory": None})
    spilled = [
        math.log(r.ms / model.estimate(workloads.load(r.network), plain, r.precision).latency_ms)
        for r in rows
        if r.device == device and r.note
    ]
    middle = float(np.median(spilled))
    return {
        "ram_mb": RAM_MB[device],
        "planner": planner,
        "packing_pct": packing_pct,
        "spill_factor": round(math.exp(middle), 2),
        "spill_spread": round(math.exp(float(np.max(np.abs(np.array(spilled) - middle)))), 2),
        "source": f"STMicroelectronics/stm32ai-modelzoo: {len(spilled)} networks with external RAM",
    }


def kept_of(device: str) -> dict[str, Any]:
    """Return what the profile of a device already holds."""
    path = ROOT / "hardware_profiles" / f"{device}.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    out = Path(__file__).parent / "results" / "results.json"
    results = json.loads(out.read_text())["tables"] if out.exists() else {}
    for table, (origin, rows) in tables(args.data).items():
        if args.only and table not in args.only:
            continue
        timed: dict[str, dict[str, float]] = defaultdict(dict)
        heads: dict[str, PublicTiming] = {}
        for row in rows:
            timed[row.device][row.network] = min(row.ms, timed[row.device].get(row.network, math.inf))
            largest = heads.setdefault(row.device, row)
            if row.batch > largest.batch:
                heads[row.device] = row
        fit = {device: found for device, found in timed.items() if len(found) >= FEWEST_OF.get(table, FEWEST)}
        families = {row.network: row.family or workloads.describe(row.network).family for row in rows}
        graphs = {name: graph_of(table, name) for found in fit.values() for name in found}
        samples = [
            Sample(graphs[name], heads[device].precision, ms, name, device, families[name])
            for device, found in fit.items()
            for name, ms in found.items()
        ]
        model = MODELS[table][1].fit(samples, []) if samples else MODELS[table][1]
        elsewhere = known_elsewhere(fit)
        report = {}
        for device, found in sorted(timed.items()):
            quality: dict[str, object] = {}
            if device in fit:
                rows_left_out = model.held_out(device, heads[device].precision)
                error = np.array([abs(guess / measured - 1) for _, measured, guess, *_ in rows_left_out])
                folds, count = protocol(table, found, families)
                quality = {
                    "protocol": folds,
                    "networks": len(found),
                    **({"families": count} if count else {}),
                    "mean_error_pct": round(100 * float(np.minimum(error, 10).mean()), 2),
                    "median_error_pct": round(100 * float(np.median(error)), 2),
                    "within_10_pct": round(100 * float((error <= 0.10).mean()), 1),
                    "within_25_pct": round(100 * float((error <= 0.25).mean()), 1),
                    "coverage_pct": round(100 * float(np.mean([low <= ms <= high for _, ms, _, low, high in rows_left_out])), 1),
                }
            by_draw = other_folds(samples, device) if table == "timm" else None
            if not quality and table not in ("rknn", "hailo", *BOARDS):
                continue
            (ROOT / "hardware_profiles" / f"{device}.toml").write_text(toml(heads[device], origin, table, quality, found, kept_of(device)))
            factors = [high / guess for _, _, guess, _, high in rows_left_out] if quality else []
            report[device] = quality | {
                "networks": len(found),
                **({"interval_factor_median": round(float(np.median(factors)), 2)} if factors else {}),
                **(
                    {"mean_error_pct_by_draw_of_folds": by_draw, "coverage_across_folds_pct": coverage_across_folds(rows_left_out)}
                    if by_draw
                    else {}
                ),
                "known_elsewhere_median_pct": round(elsewhere[device], 2) if device in elsewhere else None,
            }
        for device in RAM_MB.keys() & fit.keys():
            memory = memory_of(device, model, list(READERS[table](args.data / f"{table}.csv")), "stedgeai", 8.0)
            path = ROOT / "hardware_profiles" / f"{device}.toml"
            kept = kept_of(device)
            quality = kept["precisions"][heads[device].precision]["held_out"]
            path.write_text(toml(heads[device], origin, table, quality, fit[device], {**kept, "memory": memory}))
        if samples:
            model.save(ROOT / "latency_predictors" / "artifacts" / f"{table}.npz")
        results[table] = report
        medians = [r["median_error_pct"] for r in report.values() if "median_error_pct" in r]
        print(table, len(report), "median of medians", np.median(medians) if medians else None, flush=True)
        about = {"machine": platform.platform(), "numpy": np.__version__}
        out.write_text(json.dumps({**about, "tables": results}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
