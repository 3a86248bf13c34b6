"""Write README.md and results/report.json from the results that run.py left, the fitted artifact and the profiles.

python experiments/004_qualcomm_latency/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors._quantities import KIND_OF, KINDS
from latency_predictors._switches import COLUMNS, columns_of
from latency_predictors.physical import Physical, Pool
from nas.bench import super_resolution
from nas.devices.profile import load_profile
from nas.graphs import workloads

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def read(name: str) -> dict[str, Any]:
    path = HERE / "results" / name
    return json.loads(path.read_text()) if path.is_file() else {}


def shares_of(pool: Pool, device: int) -> np.ndarray:
    """(networks, kinds) shares of the fitted latency on a device; launch is what is left to one."""
    price = np.exp(pool.device[:, device])
    unit = np.mean([columns_of(s) @ p for s, p in zip(pool.settings, price, strict=True)], axis=0)
    parts = pool.timings.totals * unit
    launch = price[:, COLUMNS.index("launch")].mean()
    by_kind = np.stack([np.bincount(KIND_OF, row, len(KINDS)) for row in parts])
    return by_kind / (parts.sum(axis=1, keepdims=True) + launch)


def residual_by_kind(pool: Pool, device: int, held: dict[str, float]) -> list[dict[str, Any]]:
    """Mean held-out log residual of a device, weighted by how much of each network a kind of work is."""
    names = [n for n in pool.timings.networks if n in held]
    rows = [pool.timings.networks.index(n) for n in names]
    shares, residual = shares_of(pool, device)[rows], np.array([held[n] for n in names])
    weight = shares.sum(axis=0)
    return [
        {"kind": KINDS[k], "share_pct": 100 * float(shares[:, k].mean()), "residual_pct": 100 * float(shares[:, k] @ residual / weight[k])}
        for k in np.argsort(-weight)
        if shares[:, k].mean() > 0.005
    ]


def efficiency_gap(pool: Pool, device: str) -> list[dict[str, Any]]:
    """Achieved over the best rate that any fitted network reached on the device (SPECS §22: t = n / (R·E), so E = n / (R·t))."""
    profile = load_profile(device)
    timings = profile.at("fp16").timings_ms
    macs = {n: workloads.load(n).cost.macs for n in timings}
    row = pool.timings.devices.index(device)
    best = max(macs[n] / timings[n] for n in timings)
    for name, load in super_resolution.NETWORKS.items():
        if name in pool.timings.networks:
            log_ms = pool.timings.log_ms[row, pool.timings.networks.index(name)]
            if np.isfinite(log_ms):
                best = max(best, load().cost.macs / float(np.exp(log_ms)))
    return [
        {"network": n, "gmacs_per_s": macs[n] / timings[n] / 1e6, "efficiency_pct": 100 * macs[n] / timings[n] / best}
        for n in sorted(timings, key=lambda n: macs[n] / timings[n])
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)])


def device_rows(devices: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in devices.items():
        worst = sorted(found["networks"], key=lambda n: -abs(n["latency_ms"] / n["measured_ms"] - 1))[:3]
        named = ", ".join(f"{n['name']} {100 * (n['latency_ms'] / n['measured_ms'] - 1):+.0f} %" for n in worst)
        low, high = found["mean_error_interval_pct"]
        rows.append(
            [
                name,
                str(found["networks_tested"]),
                f"{found['mean_error_pct']:.1f} ({low:.1f} to {high:.1f})",
                f"{found['median_error_pct']:.1f}",
                f"{found['within_10_pct']:.0f}",
                f"{found['within_25_pct']:.0f}",
                "" if found["spearman"] is None else f"{found['spearman']:.3f}",
                f"{found['coverage_pct']:.0f}",
                f"{1 + found['halfwidth_pct'] / 100:.2f}",
                named,
            ]
        )
    return rows


def pooled_lines(report: dict[str, Any], *tables: dict[str, Any]) -> list[str]:
    """Coverage and width of the intervals over everything that was held out, and over fp16 alone."""
    lines = []
    for label, wanted in (("fp16, qnn and tflite", ("fp16",)), ("all precisions", ("fp16", "w8a16", "w8a8"))):
        found = [
            n
            for table in tables
            for precision, entry in table.get("precisions", {}).items()
            if precision in wanted
            for device in entry["devices"].values()
            for n in device["networks"]
        ]
        covered = 100 * float(np.mean([n["lower_ms"] <= n["measured_ms"] <= n["upper_ms"] for n in found]))
        width = float(np.median([np.sqrt(n["upper_ms"] / n["lower_ms"]) for n in found]))
        report[f"pooled {label}"] = {"predictions": len(found), "coverage_pct": round(covered, 2), "median_halfwidth": round(width, 4)}
        lines.append(f"- {label}: {len(found)} predictions, {covered:.1f} % inside their 90 % interval, median half-width ×/÷ {width:.2f}")
    return lines


def summary_line(found: dict[str, Any]) -> str:
    """Say what all devices of one precision and runtime give together."""
    over = found["over_devices"]
    pooled, wide = over["pooled"], over["devices_with_12_networks"]
    return (
        f"Mean over {over['devices']} devices {over['mean_of_mean_error_pct']:.1f} %, worst {over['worst_mean_error_pct']:.1f} %; "
        f"pooled over {over['predictions']} predictions: {pooled['coverage_pct']:.1f} % inside the 90 % interval, "
        f"median half-width ×/÷ {1 + pooled['halfwidth_pct'] / 100:.2f}; significantly below 90 %: {', '.join(over['significantly_below_90_pct']) or 'none'}."
        + (
            f" Median over networks, mean over the {wide} devices with at least 12: {over['mean_of_median_error_pct_with_12_networks']:.1f} %."
            if wide
            else ""
        )
    )


SPREAD = {
    "sa8295p_mean_error_pct": "SA8295P mean %",
    "sa8295p_median_error_pct": "SA8295P median %",
    "sa8295p_within_10_pct": "SA8295P ≤ 10 %",
    "mean_of_mean_error_pct": "mean over devices %",
    "worst_mean_error_pct": "worst device %",
    "mean_of_median_error_pct_with_12_networks": "median, devices with ≥ 12 %",
}


def spread_sections(seeds: dict[str, Any], nested: dict[str, Any]) -> list[str]:
    """Say how far the figures depend on the ensemble's draw and on settings that were watched."""
    text: list[str] = []
    if seeds:
        rows = [
            [seed, precision, *(f"{found[key]:.1f}" for key in SPREAD), f"{found['pooled_coverage_pct']:.1f}"]
            for precision in next(iter(seeds.values()))
            for seed, entry in seeds.items()
            for found in (entry[precision],)
        ]
        text += [
            "## Other draws of the ensemble, qnn, leave one network out",
            "",
            table(["seed", "precision", *SPREAD.values(), "covered %"], rows),
            "",
        ]
    if nested:
        ways = {"watched": "as committed", "nested": "chosen inside each fold", "residual": "as committed, with a residual"}
        rows = [
            [precision, label, *(f"{nested[precision][way][key]:.1f}" for key in SPREAD)]
            for precision in ("fp16", "w8a16", "w8a8")
            for way, label in ways.items()
        ]
        chosen = {p: ", ".join(f"{label}: {n}" for label, n in nested[p]["chosen"].items()) for p in ("fp16", "w8a16", "w8a8")}
        used = ", ".join(f"{p} {nested[p]['residual_used']} of {nested[p]['networks']}" for p in chosen)
        text += [
            "## Settings chosen inside each fold, and a residual",
            "",
            f"`nested.py`, {nested['members']} members: a network is left out of everything; the rest's own left-out errors choose among the settings that "
            "were watched while this model was written (image priced or not; device priors wide or as narrow as before). The residual is a ridge regression "
            f"on shares of kinds of work whose strength, none included, is chosen inside (used for: {used}).",
            "",
            table(["precision", "settings", *SPREAD.values()], rows),
            "",
            *(f"- chosen at {p}: {line}" for p, line in chosen.items()),
            "",
        ]
    return text


HEAD = ["board", "n", "mean % (90 % bootstrap)", "median %", "≤ 10 %", "≤ 25 %", "ρ", "covered %", "half-width ×/÷", "worst networks"]
PROTOCOLS = {
    "release": "First timed from 2026-02 on, by a fit to what was known before",
    "lineage": "Lineages left out",
}


def protocol_sections(results: dict[str, Any], title: str, runtime: str) -> list[str]:
    """Return a table a precision of one protocol, with the line that sums it up."""
    text = []
    for precision, found in results.get("precisions", {}).items():
        pooled, wide = found["pooled"], found["boards_with_enough_lineages"]
        line = (
            f"Pooled over {len(found['boards'])} boards: {pooled['networks_tested']} networks of {pooled['lineages_tested']} lineages, mean "
            f"{pooled['mean_error_pct']:.1f} %, {pooled['coverage_pct']:.1f} % inside the 90 % interval, {pooled['above_upper_pct']:.1f} % above its upper "
            f"end, median half-width ×/÷ {1 + pooled['halfwidth_pct'] / 100:.2f}."
        )
        if wide:
            line += f" Mean over the {wide} boards with at least 12 lineages: mean {found['mean_of_mean_error_pct']:.1f} %, "
            line += f"median {found['mean_of_median_error_pct']:.1f} %."
        boards = {name: board for name, board in found["boards"].items() if board["networks_tested"] >= 5}
        text += [f"## {title}, {runtime}, {precision}", "", line, "", table(HEAD, device_rows(boards)), ""]
        alone = [[n, b["classifiers"]] for n, b in found["boards"].items() if b.get("classifiers", {}).get("networks_tested", 0) >= 5]
        rows = [
            [
                name,
                f"{c['networks_tested']} of {c['lineages_tested']}",
                "{:.1f} ({:.1f} to {:.1f})".format(c["mean_error_pct"], *c["mean_error_interval_pct"]),
                f"{c['median_error_pct']:.1f}",
                f"{c['coverage_pct']:.0f}",
            ]
            for name, c in alone
        ]
        if rows:
            text += [
                "Classifiers alone:",
                "",
                table(["board", "n of lineages", "mean % (90 % bootstrap)", "median %", "covered %"], rows),
                "",
            ]
    return text


def main() -> None:
    loo, family, unseen, donor = (read(f"{n}.json") for n in ("leave_one_out_qnn", "family_qnn", "unseen_generation_qnn", "donor_qnn"))
    lineage = read("lineage_qnn.json")
    pool = Physical.load(ROOT / "latency_predictors" / "artifacts" / "qualcomm-qnn.npz").pools["fp16"]
    text = [(HERE / "README.head.md").read_text().rstrip(), ""]
    report: dict[str, Any] = {
        "command": "python experiments/004_qualcomm_latency/report.py",
        "members": lineage["members"],
        "seed": lineage["seed"],
    }
    for part, title in PROTOCOLS.items():
        text += protocol_sections(read(f"{part}_qnn.json"), title, "qnn")
    head = ["device", *HEAD[1:]]
    tflite = read("leave_one_out_tflite.json")
    text += ["# The former model on the former table (up to January 2026): leave one network out", ""]
    for runtime, results in (("qnn", loo), ("tflite", tflite)):
        for precision, found in results.get("precisions", {}).items():
            text += [f"- {runtime}, {precision}: {summary_line(found)}"]
    text += [""]
    text += ["## All held-out predictions pooled", "", *pooled_lines(report, loo, tflite), ""]
    if family:
        found = family["precisions"]["fp16"]
        text += ["## Whole families left out, fp16", "", table(head, device_rows(found["devices"])), ""]
    text += spread_sections(read("seeds_qnn.json").get("seeds", {}), read("nested_qnn.json"))
    if unseen:
        rows = [
            [
                d,
                f["generation"],
                str(f["networks_tested"]),
                f"{f['mean_error_pct']:.1f}",
                f"{f['median_error_pct']:.1f}",
                f"{f['coverage_pct']:.0f}",
            ]
            for d, f in unseen["devices"].items()
        ]
        text += [
            "## A generation never seen, 10 networks timed, fp16",
            "",
            f"The device's whole generation is absent; ten networks are drawn ({unseen['draws']} draws); a tested network is timed nowhere. "
            f"Mean over devices {unseen['mean_error_pct']:.1f} %.",
            "",
            table(["device", "generation", "networks", "mean %", "median %", "covered %"], rows),
            "",
        ]
    if donor.get("fp16"):
        rows = [
            [d, str(f["networks_tested"]), f"{f['mean_error_pct']:.1f}", f"{f['median_error_pct']:.1f}", ", ".join(f["donors"])]
            for d, f in donor["fp16"].items()
        ]
        mean = float(np.mean([f["mean_error_pct"] for f in donor["fp16"].values()]))
        report["donor_mean_error_pct"] = round(mean, 2)
        text += [
            "## One timing of the network on a donor, fp16",
            "",
            f"The donor is chosen on the other networks. Mean over devices {mean:.1f} %.",
            "",
            table(["device", "networks", "mean %", "median %", "donors chosen"], rows),
            "",
        ]
    held = lineage["precisions"]["fp16"]["boards"]["sa8295p"]["networks"]
    ours = {
        round(float(np.exp(v)), 3): n
        for v, n in zip(pool.timings.log_ms[pool.timings.devices.index("sa8295p")], pool.timings.networks, strict=True)
    }
    residuals = {
        ours[key]: float(np.log(n["measured_ms"] / n["latency_ms"])) for n in held if (key := round(n["measured_ms"], 3)) in ours
    }  # the table's names -> ours
    kinds = residual_by_kind(pool, pool.timings.devices.index("sa8295p"), residuals)
    gap = efficiency_gap(pool, "sa8295p")
    report |= {"residual_by_kind_sa8295p": kinds, "efficiency_sa8295p": gap}
    text += [
        "## Residual by kind of work, SA8295P fp16",
        "",
        "Share: of the fitted latency, mean over tested networks. Residual: mean held-out log(measured / predicted), weighted by that share; positive is too slow on the device.",
        "",
        table(["kind", "share %", "residual %"], [[k["kind"], f"{k['share_pct']:.1f}", f"{k['residual_pct']:+.1f}"] for k in kinds]),
        "",
        "## Efficiency gap, SA8295P fp16",
        "",
        "Achieved multiply-adds a second over the best that any timed network achieves (SPECS §22: E = n / (R·t)); the vendor states no fp16 peak.",
        "",
        table(["network", "GMAC/s", "E %"], [[g["network"], f"{g['gmacs_per_s']:.0f}", f"{g['efficiency_pct']:.1f}"] for g in gap]),
        "",
    ]
    (HERE / "README.md").write_text("\n".join(text))
    (HERE / "results" / "report.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
