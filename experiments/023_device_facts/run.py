"""Devices given by facts alone: the roofline's shares from devices that were timed too, and profiles of devices that nobody has timed in public.

    python experiments/023_device_facts/run.py

Reads ``facts.csv`` (each fact with its source) and the timings in ``hardware_profiles``; writes ``latency_predictors/artifacts/roofline.npz``,
the profiles of devices that have facts alone, and results/results.json: the errors of each timed device when it is left out.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors.roofline import Roofline
from nas.devices.new_device import profile_toml
from nas.devices.predictor import Sample
from nas.devices.profile import Origin, PrecisionProfile, Profile, load_profile
from nas.graphs import workloads

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMAND = "python experiments/023_device_facts/run.py"
MOST = 25
"""Networks of a device: the fit has three numbers."""
TEN = (
    *("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0", "resnet18", "resnet50", "regnetx_008", "repvit_m1_0", "convnext_tiny"),
    *("deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
)
"""Networks to time on a new device: of ten kinds of work, small enough for a microcontroller's big brother."""

READ = "2026-11-28"
UNREAD = "unverified: no page of the maker was read, the figures are as commonly quoted. Check them before you rely on an estimate"
SAID = {"verified": "facts read on", "reported": "facts reported by others, read on", "unverified": "unverified; looked for on"}


def timed(rows: list[dict[str, str]]) -> tuple[list[Sample], list[Profile]]:
    """Return the timings of devices whose facts are known, and their profiles with these."""
    samples, profiles = [], []
    for row in rows:
        profile, precision = load_profile(row["device"]), row["precision"]
        facts = {"peak_gmacs": float(row["peak_gmacs"]), "bandwidth_gb_s": number(row["bandwidth_gb_s"])}
        at = profile.at(precision).model_copy(update=facts)
        stated = {"precisions": {precision: at}, "default_precision": precision, "on_chip_memory_mb": number(row["on_chip_memory_mb"])}
        profiles.append(Profile.model_validate({**profile.model_dump(), **stated}))
        known = [(name, ms) for name, ms in at.timings_ms.items() if name in workloads.names()]
        known = known[:: max(1, len(known) // MOST)]
        samples += [Sample(workloads.load(name), precision, ms, name, profile.name) for name, ms in known]
    return samples, profiles


def number(text: str) -> float | None:
    """Return a number, None for an empty text."""
    return float(text) if text else None


def written(device: str, rows: list[dict[str, str]]) -> None:
    """Write the profile of a device that has facts alone."""
    head = rows[0]
    precisions: dict[Any, PrecisionProfile] = {
        row["precision"]: PrecisionProfile(
            predictor="roofline" if row["peak_gmacs"] else "",
            artifact="roofline.npz" if row["peak_gmacs"] else "",
            peak_gmacs=number(row["peak_gmacs"]),
            bandwidth_gb_s=number(row["bandwidth_gb_s"]),
            facts=row["checked"],  # type: ignore[arg-type]
            notes=(row["source"],),
        )
        for row in rows
    }
    profile = Profile(
        name=device,
        title=head["title"],
        kind=head["kind"],  # type: ignore[arg-type]
        aliases=tuple(head["aliases"].split()),
        runtime=head["runtime"],
        default_precision=rows[0]["precision"],  # type: ignore[arg-type]
        precisions=precisions,
        origin=Origin(title=head["source"], reference=head["reference"], command=COMMAND),
        notes=(
            f"{SAID[head['checked']]} {READ}: {head['read']}" if head["read"] and head["checked"] else UNREAD,
            "facts alone: no public timings are known. Time these and calibrate: " + ", ".join(TEN),
        ),
    )
    (ROOT / "hardware_profiles" / f"{device}.toml").write_text(profile_toml(profile))


def main() -> None:
    """Fit, write the profiles, and report."""
    with (HERE / "facts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    samples, profiles = timed([row for row in rows if row["timed"] == "1"])
    model = Roofline().fit(samples, profiles)
    model.save(ROOT / "latency_predictors" / "artifacts" / "roofline.npz")
    untimed: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["timed"] == "0":
            untimed[row["device"]].append(row)
    for device, own in untimed.items():
        written(device, own)
    factors = {device: np.exp(errors) for device, errors in model.left_out.items()}
    report = {
        "protocol": "leave one device out; each device weighs alike",
        "shares": vars(model.shares),
        "interval_factor_90": round(float(np.exp(model.scores[np.searchsorted(np.cumsum(model.weights), 0.9)])), 2),
        "devices": {
            device: {
                "networks": len(f),
                "median_predicted_over_measured": round(float(np.median(f)), 2),
                "median_error_pct": round(100 * float(np.median(np.abs(f - 1))), 1),
                "mean_error_pct": round(100 * float(np.minimum(np.abs(f - 1), 10).mean()), 1),
            }
            for device, f in factors.items()
        },
        "written": sorted(untimed),
    }
    (HERE / "results" / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
