"""Test the committed fits, as they are shipped, on the networks of today's table that they do not know, and write that into the profiles.

python experiments/004_qualcomm_latency/shipped.py --data ../shared/data

A network is unknown to a fit where none of its timings, on any device and at any precision, is in fit or calibration. ``held_out`` of a profile is the error on
unknown networks of lineages of which the fit knows no member; ``held_out_later`` that on all unknown networks that AI Hub first timed from `MONTH` on. Nothing is
fitted here: what is tested is what `nas predict` says. Timings of SA8255, SA8650 and SA8775 (Proxy) are those of the phone that AI Hub runs them on today.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run import ARTIFACTS, PROFILES, RESULTS, about, networks_of, write_json

from latency_predictors.physical import Physical
from nas.bench.aihub import Table, input_of, read_table, samples_of, single_images, workload_name
from nas.devices.names import slug
from nas.devices.predictor import Sample
from nas.devices.profile import Profile, read_profile
from nas.devices.scores import Prediction, score

COMMAND = "python experiments/004_qualcomm_latency/shipped.py --data ../shared/data"
MONTH = "2026-02"
FEWEST = 5
PROTOCOLS = {
    "held_out": "networks of lineages of which this fit knows none, in AI Hub's table of October 2026",
    "held_out_later": f"networks that this fit does not know and that AI Hub first timed from {MONTH} on",
}
FIGURES = ("mean_error_pct", "median_error_pct", "within_10_pct", "within_25_pct", "coverage_pct", "above_upper_pct", "halfwidth_pct")
log = logging.getLogger("shipped")


def tested_on(profile: Profile, precision: str, predictor: Physical, samples: Sequence[Sample]) -> list[Prediction]:
    """Return what the product says of each network."""
    found = predictor.estimate_batch([(("graph", s.graph),) for s in samples], profile, precision)
    return [
        Prediction(s.name, s.latency_ms, float(found.latency_ms[i]), float(found.lower_ms[i]), float(found.upper_ms[i]))
        for i, s in enumerate(samples)
        if found.usable[i]
    ]


def board_of(profile: Profile, table: Table) -> str | None:
    """Return the board of today's table that a profile is of."""
    names = {profile.name.removesuffix("-tflite"), *map(slug, profile.aliases)}
    return next((b.name for b in table.boards.values() if b.name in names or names & {slug(title) for title in b.titles}), None)


def quality_of(predictions: Sequence[Prediction], lineages: Mapping[str, str], protocol: str) -> dict[str, Any]:
    """Return what a profile says of a test."""
    found = score(predictions, groups=lineages)
    figures = {name: round(value, 2) for name in FIGURES if (value := getattr(found, name)) is not None}
    return {
        "protocol": protocol,
        "networks": found.networks_tested,
        "families": found.lineages_tested,
        "mean_error_interval_pct": [round(value, 2) for value in found.mean_error_interval_pct],
        **figures,
        **({"spearman": round(found.spearman, 4)} if found.spearman is not None else {}),
    }


def section(precision: str, field: str, quality: Mapping[str, Any]) -> str:
    """Return a test as a table of TOML."""
    import json

    return f"[precisions.{precision}.{field}]\n" + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in quality.items()
    )


def write_into(path: Path, precision: str, tests: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a precision's tests in the place of those that a profile states."""
    text = path.read_text(encoding="utf-8")
    for field in PROTOCOLS:
        text = re.sub(rf"\[precisions\.{precision}\.{field}\]\n(?:(?!\[|\n).*\n)*\n?", "", text)
    wanted = "".join(section(precision, field, quality) + "\n" for field, quality in tests.items())
    head, mark, rest = text.partition(f"[precisions.{precision}.timings_ms]")
    path.write_text(head + wanted + mark + rest, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runtime", choices=("qnn", "tflite"), action="append")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    models, graphs, families, lineages, _ = networks_of(options.data)
    single = set(single_images(graphs))
    names = {row["aihub_model"]: workload_name(row) or f"{row['aihub_model']}@{input_of(row)[-1]}" for row in models}
    for runtime in options.runtime or ("qnn", "tflite"):
        table = read_table(options.data / "aihub_perf.csv.gz", graphs, runtime)
        before = {t.network for t in read_table(options.data / "aihub_perf.csv.gz", graphs, runtime, before=MONTH).timings}
        samples = samples_of(table, graphs, families)
        predictor = Physical.load(ARTIFACTS / f"qualcomm-{runtime}.npz")
        fitted = {name for pool in predictor.pools.values() for name in pool.timings.networks}
        known = {name for name in graphs if names.get(name, name) in fitted}
        of_known = {lineages[name] for name in known}
        results: dict[str, Any] = {}
        for path in sorted(PROFILES.glob("*.toml")):
            profile = read_profile(path)
            board = board_of(profile, table) if profile.runtime == runtime else None
            for precision, at in profile.precisions.items():
                if board is None or at.artifact != f"qualcomm-{runtime}.npz":
                    continue
                own = [s for s in samples if s.device == board and s.precision == precision and s.name in single and s.name not in known]
                parts = {
                    "held_out": [s for s in own if lineages[s.name] not in of_known],
                    "held_out_later": [s for s in own if s.name not in before],
                }
                held = {
                    field: quality_of(tested_on(profile, precision, predictor, part), lineages, PROTOCOLS[field])
                    for field, part in parts.items()
                    if len(part) >= FEWEST
                }
                if held:
                    write_into(path, precision, held)
                every = (
                    quality_of(tested_on(profile, precision, predictor, own), lineages, "all unknown networks")
                    if len(own) >= FEWEST
                    else {}
                )
                results.setdefault(profile.name, {})[precision] = {"board": board, **held, "unknown": every}
                log.info(
                    "%s %s: %s", profile.name, precision, {f: (q["networks"], q["families"], q["mean_error_pct"]) for f, q in held.items()}
                )
        head = {
            **about(argparse.Namespace(members=predictor.members)),
            "command": COMMAND,
            "known": sorted(known),
            "lineages_known": sorted(of_known),
        }
        write_json(RESULTS / f"shipped_{runtime}.json", head | {"profiles": results})


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
