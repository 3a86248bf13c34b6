"""What every token mixer costs on five devices against its plain rivals at equal channels.

    python experiments/024_operator_atlas/run.py

A mixer is priced as the difference of five in a row and one, by four: what a network pays for one more of it, without input and output. Rivals are
a depthwise 7 × 7 behind a pointwise convolution each side (`separable`), and plain self-attention (`spatial-reduction` with reduction 1), both at
the same channels and positions. Everything is estimated; nothing is measured. Writes ``results/atlas.csv``, and the table of the README.
"""

from __future__ import annotations

import csv
import json
import platform
from pathlib import Path

import nas
from nas.devices.predictor import load_predictor
from nas.devices.profile import Profile, find_profile, load_profile
from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.spaces.operator_family import OperatorFamily, mixers

HERE = Path(__file__).parent
DEVICES = ("sa8295p", "samsung-galaxy-s24", "rtx-4090", "i9-10940x", "ncnn-raspberry-pi-5-broadcom-bcm2712-cortex-a76-4t")
STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
"""Channels and positions a side of a pyramid at 224 pixels."""
FEW, MANY = 1, 5


def chain(operator: OperatorFamily, channels: int, side: int, count: int) -> Graph:
    """Return `count` mixers in a row."""
    builder = GraphBuilder()
    x = builder.input((1, channels, side, side))
    for i in range(count):
        with builder.scope(f"mixer{i}"):
            x = operator.lower(builder, x)
    return builder.build(x)


def price_ms(operator: OperatorFamily, profile: Profile, channels: int, side: int) -> tuple[float, bool] | None:
    """Return what one more of an operator takes in ms and whether that is outside what the device was timed with; None where it is not taken."""
    precision = profile.default_precision
    predictor = load_predictor(profile, precision, find_profile(profile.name).parent)
    try:
        few, many = (predictor.estimate(chain(operator, channels, side, n), profile, precision) for n in (FEW, MANY))
    except UsageError:
        return None
    if many.unsupported:
        return None
    return (many.latency_ms - few.latency_ms) / (MANY - FEW), bool(many.extrapolated)


def main() -> None:
    """Price every mixer and write the results."""
    profiles = [load_profile(name) for name in DEVICES]
    rivals = {"separable": mixers.get("separable")(), "attention": mixers.get("spatial-reduction")(reduction=1)}
    known = {
        (rival, profile.name, c): price_ms(op, profile, c, side)
        for rival, op in rivals.items()
        for profile in profiles
        for c, side in STAGES
    }
    rows = []
    for name, family in mixers.items():
        operator = family()
        for channels, side in STAGES:
            for profile in profiles:
                found = price_ms(operator, profile, channels, side)
                row = {"mixer": name, "grade": operator.grade, "channels": channels, "side": side, "device": profile.name}
                if found is None:
                    rows.append(row | {"latency_us": "", "by_separable": "", "by_attention": "", "extrapolated": ""})
                    continue
                latency_ms, extrapolated = found
                ratios = {}
                for rival in rivals:
                    against = known[rival, profile.name, channels]
                    ratios[f"by_{rival}"] = f"{latency_ms / against[0]:.3g}" if against and against[0] > 0 else ""
                rows.append(row | {"latency_us": f"{1e3 * latency_ms:.4g}"} | ratios | {"extrapolated": int(extrapolated)})
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    with (out / "atlas.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    facts = {
        "version": nas.__version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "profiles": {profile.name: [profile.default_precision, profile.quantity, profile.hash] for profile in profiles},
    }
    (out / "atlas.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def table(rows: list[dict[str, object]]) -> str:
    """Return the README's table: each mixer's price by the separable rival's, the four stages as a range."""
    lines = ["| mixer | grade | " + " | ".join(DEVICES) + " |", "|---|---|" + "---|" * len(DEVICES)]
    for name in dict.fromkeys(row["mixer"] for row in rows):
        own = [row for row in rows if row["mixer"] == name]
        cells = []
        for device in DEVICES:
            found = [float(str(row["by_separable"])) for row in own if row["device"] == device and row["by_separable"]]
            mark = "*" if any(row["extrapolated"] == 1 for row in own if row["device"] == device) else ""
            cells.append(f"{min(found):.2g}–{max(found):.2g}{mark}" if found else "not there")
        lines.append(f"| {name} | {own[0]['grade']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
