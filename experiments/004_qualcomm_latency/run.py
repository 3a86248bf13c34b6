"""Fit the latency predictor of all Qualcomm devices, hold networks out, and write artifacts, profiles and results.

python experiments/004_qualcomm_latency/run.py --data ../shared/data               everything, a few minutes on one core
python experiments/004_qualcomm_latency/run.py --data ../shared/data --fit         artifacts and profiles alone, from the stored results
python experiments/004_qualcomm_latency/run.py --data ../shared/data --part loo    one protocol: loo, family, unseen or seeds
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latency_predictors.physical import MEMBERS, Physical
from nas.bench.aihub import (
    Table,
    classifiers,
    graphs_of,
    input_of,
    read_models,
    read_table,
    repeats_within_pct,
    samples_of,
    workload_name,
)
from nas.bench.aihub_jobs import Board
from nas.bench.latency_models import stub_profile
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.names import slug
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score
from nas.errors import UsageError
from nas.graphs.graph import Graph

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
ARTIFACTS = ROOT / "latency_predictors" / "artifacts"
PROFILES = ROOT / "hardware_profiles"
COMMAND = "python experiments/004_qualcomm_latency/run.py --data ../shared/data"
SEED = 0
DRAWS = 2
SUMMARY = (
    "networks_tested",
    "mean_error_pct",
    "mean_error_interval_pct",
    "median_error_pct",
    "within_10_pct",
    "within_25_pct",
    "spearman",
    "coverage_pct",
    "halfwidth_pct",
)
MIN_TIMED = 8
PARTS = ("loo", "family", "unseen", "seeds")
SEEDS = (1, 2, 3, 4)
log = logging.getLogger("qualcomm_latency")

BUILT = {"2.50.0": "2026-08-28", "2.45.0": "2026-03-26"}
"""Date of an SDK's build, by version; source: the tool versions in aihub_wheel_sample.whl (2.50.0.260828221209, 2.45.0.260326154327)."""
TITLES = {"sa7255p": "Qualcomm SA7255P", "sa8295p": "Qualcomm SA8295P", "sa8775p": "Qualcomm SA8775P"}
UNSEEN_BOARDS = (
    "sa8295p",
    "snapdragon-8-gen-1-phone",
    "snapdragon-x-elite-crd",
    "samsung-galaxy-s24",
    "samsung-galaxy-s25",
    "snapdragon-8-elite-gen-5-qrd",
)
"""One of each generation, left out with all others of it. Chosen by hand."""
# Hexagon generation of each device, for the protocol that leaves one out; profiles take it from the table of boards
GENERATIONS = {
    "sa8295p": "v68",
    "rb3-gen-2": "v68",
    "dragonwing-rb3-gen-2-vision-kit": "v68",
    "rb5": "v66",
    "snapdragon-8-gen-1-phone": "v69",
    "snapdragon-8-gen-2-phone": "v73",
    "sa8775p": "v73",
    "dragonwing-iq-9075-evk": "v73",
    "snapdragon-x-elite-crd": "v73",
    "sa7255p": "v75",
    "samsung-galaxy-s24": "v75",
    "samsung-galaxy-s25": "v79",
    "snapdragon-8-elite-qrd": "v79",
    "snapdragon-8-elite-gen-5-qrd": "v81",
}


HELD_OUT = {
    "held_out": "lineage: no network of its lineage, on any device, in fit or calibration",
    "held_out_later": "release: networks first timed from 2026-02 on, by a fit to what was known before",
}
"""Field of a profile -> protocol, whose results are ``results/lineage_*.json`` and ``results/release_*.json``."""

QUALITY = ("mean_error_pct", "median_error_pct", "within_10_pct", "within_25_pct", "coverage_pct", "above_upper_pct", "halfwidth_pct")


class Networks(NamedTuple):
    """What is known of AI Hub's networks.

    Attributes:
        models: Rows of its table.
        graphs: By name.
        families: By name.
        lineages: By name.
        missing: Names of those without a graph.
    """

    models: list[dict[str, str]]
    graphs: Mapping[str, Graph]
    families: Mapping[str, str]
    lineages: Mapping[str, str]
    missing: Sequence[str]


def networks_of(data: Path) -> Networks:
    """Read the networks of a folder of AI Hub's tables."""
    models = read_models(data / "aihub_models.csv")
    graphs, families, missing = graphs_of(models)
    listed = read_lineages()
    return Networks(models, graphs, families, {name: lineage_of(name, listed) for name in graphs}, missing)


def device_name(device: str, runtime: str) -> str:
    return device if runtime == "qnn" else f"{device}-{runtime}"


Held = dict[str, dict[str, list[Prediction]]]
"""precision -> device -> predictions"""


def predicted(predictor: Physical, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Prediction]]:
    """Yield each sample with its prediction; a device that was fitted to nothing at that precision is passed over."""
    for s in samples:
        try:
            e = predictor.estimate(s.graph, stub_profile(s.device, s.precision), s.precision)
        except UsageError:
            continue
        yield s, Prediction(s.name, s.latency_ms, e.latency_ms, e.lower_ms, e.upper_ms)


def hold_out(samples: Sequence[Sample], groups: Mapping[str, Sequence[str]], tested: Sequence[str], members: int, seed: int = SEED) -> Held:
    """Leave each group of networks (and their twins) out of one fit of all devices and precisions; predict them everywhere."""
    found: Held = {}
    whole = Physical(members, seed).fit(samples)
    for label, names in groups.items():
        mine = [s for s in samples if s.name in set(names) & set(tested)]
        if not mine:
            continue
        started = time.perf_counter()
        keys = {s.graph.key for s in samples if s.name in set(names)}
        predictor = whole.without({s.name for s in samples if s.graph.key in keys})
        for s, p in predicted(predictor, mine):
            found.setdefault(s.precision, {}).setdefault(s.device, []).append(p)
        log.info("%s left out, %.1f s", label, time.perf_counter() - started)
    return found


def unseen_generation(samples: Sequence[Sample], device: str, tested: Sequence[str], members: int, timed: int = 10) -> list[Prediction]:
    """Time `timed` networks on a device whose whole generation is absent; test on networks that no device shows."""
    others = [s for s in samples if GENERATIONS.get(s.device) != GENERATIONS[device]]
    own = {s.name: s for s in samples if s.device == device and s.name in tested}
    rng = np.random.default_rng(SEED)
    found: list[Prediction] = []
    for _ in range(DRAWS):
        names = [list(own)[i] for i in rng.permutation(len(own))]
        kept, rest = names[:timed], names[timed:]
        for fold in range(2):
            out = set(rest[fold::2])
            fitted = [s for s in others if s.name not in out] + [own[n] for n in kept]
            found += [p for _, p in predicted(Physical(members, SEED).fit(fitted), [own[n] for n in sorted(out)])]
        log.info("%s as an unseen generation: %d predictions", device, len(found))
    return found


def donors(held: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """Correct each held-out prediction by what it missed on a donor; the donor is chosen on the other networks."""
    missed = {d: {p.name: np.log(p.measured_ms / p.latency_ms) for p in ps} for d, ps in held.items()}
    result: dict[str, Any] = {}
    for device, ps in held.items():
        corrected, chosen = [], []
        for p in ps:
            best: tuple[float, str] | None = None
            for donor, theirs in missed.items():
                shared = [n for n in theirs if n in missed[device] and n != p.name]
                if donor == device or p.name not in theirs or len(shared) < 5:
                    continue
                spread = float(np.mean([abs(missed[device][n] - theirs[n]) for n in shared]))
                best = min(best, (spread, donor)) if best else (spread, donor)
            if best is None:
                continue
            factor = float(np.exp(missed[best[1]][p.name]))
            corrected.append(Prediction(p.name, p.measured_ms, p.latency_ms * factor, p.lower_ms * factor, p.upper_ms * factor))
            chosen.append(best[1])
        if len(corrected) >= 5:
            found = score(corrected).dump()
            result[device] = {k: found[k] for k in SUMMARY} | {"donors": sorted(set(chosen))}
    return result


def toml_of(data: Mapping[str, Any]) -> str:
    """Write plain tables, strings, numbers, booleans and lists of strings."""
    lines: list[str] = []

    def value(v: Any) -> str:
        if isinstance(v, list):
            return "[" + ", ".join(map(value, v)) + "]"
        return json.dumps(v, ensure_ascii=False) if isinstance(v, str) else str(v).lower() if isinstance(v, bool) else repr(v)

    def table(path: str, content: Mapping[str, Any]) -> None:
        plain = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
        if path and (plain or not content):
            lines.extend(["", f"[{path}]"])
        lines.extend(f"{k if k.replace('_', '').replace('-', '').isalnum() else json.dumps(k)} = {value(v)}" for k, v in plain.items())
        for k, v in content.items():
            if isinstance(v, Mapping):
                table(f"{path}.{k}" if path else k, v)

    table("", data)
    return "\n".join(lines).strip() + "\n"


def stands_for(board: Board) -> str:
    """Say which chips a phone stands in for; empty for a board that is what its name says."""
    promised = [title.removesuffix(" (Proxy)") for title in board.titles if title.endswith("(Proxy)")]
    promised = [f"{chip}P" if re.fullmatch(r"SA\d{4}", chip) else chip for chip in promised]  # AI Hub leaves the last letter out
    return f"{', '.join(promised)}, by a {board.title} ({board.soc})" if board.proxy and promised else ""


def quality_of(quality: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """Return what a profile says of a board's scores."""
    return {
        "protocol": protocol,
        "networks": quality["networks_tested"],
        "families": quality["lineages_tested"],
        "mean_error_interval_pct": [round(v, 2) for v in quality["mean_error_interval_pct"]],
        **{k: round(quality[k], 2) for k in QUALITY if quality[k] is not None},
        **({"spearman": round(quality["spearman"], 4)} if quality["spearman"] is not None else {}),
    }


def write_profiles(
    table: Table, runtime: str, artifact: str, held_out: Mapping[str, Any], models: Sequence[Mapping[str, str]]
) -> list[str]:
    names = {(row["aihub_model"], input_of(row)): workload_name(row) for row in models}
    networks = {row["aihub_model"]: input_of(row) for row in models}
    written = []
    for device, board in table.boards.items():
        precisions: dict[str, Any] = {}
        for precision in ("fp16", "w8a16", "w8a8"):
            own = [t for t in table.timings if t.device == device and t.precision == precision]
            timed = [t for t in own if t.input in (None, networks.get(t.network, t.input))]
            if len(timed) < MIN_TIMED:
                continue
            versions = sorted({t.sdk for t in timed if t.sdk}, key=lambda v: [int(x) for x in v.split(".")])
            notes = []
            if versions:
                notes.append(f"SDK versions of the newest timings: QAIRT {versions[0]} to {versions[-1]}; they move latencies by about 5 %")
            else:
                notes.append(f"timings of {max(t.measured_on for t in timed)} and before, without an SDK version")
            if months := table.slow_months.get(device):
                notes.append(
                    f"two speed states: up to {max(months.values()):.0%} of a month's jobs ran several times slower, from {min(months)} to "
                    f"{max(months)}; all numbers are of the usual, faster state"
                )
            entry: dict[str, Any] = {
                "predictor": "physical",
                "artifact": artifact,
                "runtime_version": f"QAIRT {versions[-1]}" if versions else "",
                "runtime_built": BUILT.get(versions[-1], "") if versions else "",
            }
            repeats = repeats_within_pct(table, device, precision)
            if repeats is not None:
                entry["repeats_within_pct"] = round(repeats, 2)
            entry["notes"] = notes
            for key, protocol in HELD_OUT.items():
                quality = held_out.get(key, {}).get(precision, {}).get("boards", {}).get(device)
                if quality:
                    entry[key] = quality_of(quality, protocol)
            entry["timings_ms"] = {
                name: t.latency_ms for t in sorted(timed, key=lambda t: t.network) if (name := names.get((t.network, t.input or ())))
            }
            precisions[precision] = entry
        if not precisions:
            continue
        name = device_name(device, runtime)
        # a stand-in answers to the names of the chips that it stands in for, as their profiles were called before boards were told apart
        former = [device_name(slug(title), runtime) for title in board.titles if board.proxy and slug(title) != device]
        aliases = [*(board.titles if runtime == "qnn" else ()), *former]
        data = {
            "title": TITLES.get(device, board.title) + ("" if runtime == "qnn" else f" ({runtime})"),
            "kind": "npu",
            "family": "hexagon",
            "generation": board.generation,
            "aliases": aliases,
            "runtime": runtime,
            "proxy": stands_for(board),
            "default_precision": next(p for p in ("fp16", "w8a16", "w8a8") if p in precisions),
            "notes": [
                f"{title} is the same board as {board.title}: never on both sides of a split"
                for title in board.titles
                if title != board.title
            ],
            "origin": {
                "title": "Qualcomm AI Hub models, history of perf.yaml",
                "reference": "https://github.com/quic/ai-hub-models",
                "licence": "BSD-3-Clause",
                "retrieved": max(t.measured_on for t in table.timings if t.device == device),
                "command": COMMAND,
            },
            "precisions": precisions,
        }
        (PROFILES / f"{name}.toml").write_text(toml_of({k: v for k, v in data.items() if v not in ([], "")}), encoding="utf-8")
        written.append(name)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fit", action="store_true", help="artifacts and profiles alone")
    parser.add_argument("--part", choices=PARTS, action="append", help="these protocols alone; default all")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--runtime", choices=("qnn", "tflite"), action="append")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    models, graphs, families, _, missing = networks_of(options.data)
    log.info("no graph for %s", ", ".join(missing))
    RESULTS.mkdir(exist_ok=True)
    ARTIFACTS.mkdir(exist_ok=True)
    for runtime in options.runtime or ("qnn", "tflite"):
        run_one(runtime, options, models, graphs, families)


def run_one(
    runtime: str, options: argparse.Namespace, models: list[dict[str, str]], graphs: Mapping[str, Graph], families: Mapping[str, str]
) -> None:
    table = read_table(options.data / "aihub_perf.csv.gz", graphs, runtime)
    for note in table.notes:
        log.info("%s", note)
    samples = samples_of(table, graphs, families)
    timed = {(d, p): sum(s.device == d and s.precision == p for s in samples) for d in table.boards for p in ("fp16", "w8a16", "w8a8")}
    samples = [s for s in samples if timed[s.device, s.precision] >= MIN_TIMED]
    # under the names that users know, so that a user's timing of a network meets the pool's
    known = {row["aihub_model"]: workload_name(row) or f"{row['aihub_model']}@{input_of(row)[-1]}" for row in models}
    named = [replace(s, name=known.get(s.name, s.name), device=device_name(s.device, runtime)) for s in samples]
    artifact = f"qualcomm-{runtime}.npz"
    parts = () if options.fit else options.part or PARTS
    tested = classifiers(models)
    groups = {n: [n] for n in tested}
    Physical(options.members, SEED).fit(named).save(ARTIFACTS / artifact)
    file = RESULTS / f"leave_one_out_{runtime}.json"
    if "loo" in parts:
        held = hold_out(samples, groups, tested, options.members)
        write_json(file, about(options) | {"notes": table.notes, "precisions": summaries(held)})
        if runtime == "qnn":
            write_json(RESULTS / "donor_qnn.json", about(options) | {p: donors(devices) for p, devices in held.items()})
    if runtime == "qnn" and "family" in parts:
        family_results(samples, families, tested, options)
    if runtime == "qnn" and "unseen" in parts:
        unseen_results(samples, tested, options)
    if runtime == "qnn" and "seeds" in parts:
        seed_results(samples, tested, options)
    stored = {
        key: json.loads(results.read_text())["precisions"]
        for key, part in (("held_out", "lineage"), ("held_out_later", "release"))
        if (results := RESULTS / f"{part}_{runtime}.json").is_file()
    }
    names = write_profiles(table, runtime, artifact, stored, models)
    log.info("%s: %d profiles", runtime, len(names))


def about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "command": COMMAND,
        "seed": SEED,
        "members": options.members,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(rounded(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def summaries(held: Held) -> dict[str, Any]:
    """Score each device, and all of them pooled: coverage with its binomial test, the mean and the worst device."""
    result: dict[str, Any] = {}
    for precision, devices in held.items():
        scored = {d: score(ps).dump() for d, ps in sorted(devices.items()) if len(ps) >= 5}
        every = [p for d in scored for p in devices[d]]
        below = [
            d
            for d, found in scored.items()
            if binomial_at_most(round(found["coverage_pct"] / 100 * found["networks_tested"]), found["networks_tested"]) < 0.05
        ]
        wide = {d: found for d, found in scored.items() if found["networks_tested"] >= 12}
        result[precision] = {
            "devices": scored,
            "over_devices": {
                "devices": len(scored),
                "mean_of_mean_error_pct": float(np.mean([f["mean_error_pct"] for f in scored.values()])),
                "worst_mean_error_pct": max(f["mean_error_pct"] for f in scored.values()),
                "devices_with_12_networks": len(wide),
                "mean_of_median_error_pct_with_12_networks": float(np.mean([f["median_error_pct"] for f in wide.values()]))
                if wide
                else None,
                "pooled": {k: v for k, v in score(every).dump().items() if k in SUMMARY},
                "predictions": len(every),
                "significantly_below_90_pct": below,
            },
        }
    return result


def binomial_at_most(covered: int, count: int, rate: float = 0.9) -> float:
    """P(at most `covered` of `count`) at `rate`."""
    return sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(covered + 1))


def family_results(samples: Sequence[Sample], families: Mapping[str, str], tested: Sequence[str], options: argparse.Namespace) -> None:
    groups: dict[str, list[str]] = {}
    for name in {s.name for s in samples}:
        groups.setdefault(families[name], []).append(name)
    only = [s for s in samples if s.precision == "fp16"]
    held = hold_out(only, dict(sorted(groups.items())), tested, options.members)
    write_json(RESULTS / "family_qnn.json", about(options) | {"families": groups, "precisions": summaries(held)})


def seed_results(samples: Sequence[Sample], tested: Sequence[str], options: argparse.Namespace) -> None:
    """Leave one network out again with other draws of the ensemble: how far the figures depend on the draw."""
    found: dict[str, Any] = {}
    for seed in (SEED, *SEEDS):
        held = summaries(hold_out(samples, {n: [n] for n in tested}, tested, options.members, seed))
        found[str(seed)] = {
            precision: {k: v for k, v in entry["over_devices"].items() if k != "pooled"}
            | {f"pooled_{k}": entry["over_devices"]["pooled"][k] for k in ("coverage_pct", "halfwidth_pct")}
            | {f"sa8295p_{k}": entry["devices"]["sa8295p"][k] for k in ("mean_error_pct", "median_error_pct", "within_10_pct", "spearman")}
            for precision, entry in held.items()
        }
    write_json(RESULTS / "seeds_qnn.json", about(options) | {"seeds": found})


def unseen_results(samples: Sequence[Sample], tested: Sequence[str], options: argparse.Namespace) -> None:
    only = [s for s in samples if s.precision == "fp16"]
    found: dict[str, Any] = {}
    for device in UNSEEN_BOARDS:
        predictions = unseen_generation(only, device, tested, options.members)
        found[device] = {"generation": GENERATIONS[device]} | {k: v for k, v in score(predictions).dump().items() if k in SUMMARY}
        mean = float(np.mean([f["mean_error_pct"] for f in found.values()]))
        write_json(
            RESULTS / "unseen_generation_qnn.json", about(options) | {"timed": 10, "draws": DRAWS, "mean_error_pct": mean, "devices": found}
        )


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
