"""How well a table of operators (`lookup`) holds the fixed spaces: fitted to the first rows of a table, asked about the next thousand.

python experiments/006_transfer/lookup.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from latency_predictors._operator_counts import RUNTIMES, Catalogue, catalogue
from latency_predictors.lookup import fit_table
from nas.bench.latency_transfer import figures
from nas.devices.latency_table import read_latency_table

DEVICES = {
    "fbnet": "pixel3 titan_rtx_1 titan_rtx_32 gold_6226 samsung_a50",
    "nasbench201": "pixel3 titan_rtx_1 titan_rtx_256 gold_6226 samsung_a50",
}
TIMINGS, FIRST, QUERY = (100, 300, 900), 900, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    rows = {}
    for space, names in DEVICES.items():
        table = read_latency_table(args.data / f"latency_{space}.npz")
        found = catalogue([table.space.segments(a) for a in table.architectures[: FIRST + QUERY]])
        for device in names.split():
            y = table.ms[device][: FIRST + QUERY]
            for count in TIMINGS:
                part = Catalogue(found.kinds, found.counts[:, :count], found.depths[:, :count])
                held = fit_table(part, y[:count])
                prices = np.array([held.price_ms(kind) or 0.0 for kind in found.kinds])
                guess = held.start_ms + found.counts[held.runtime][FIRST:] @ prices
                rows[f"{space} {device} {count}"] = figures(guess, y[FIRST:]) | {"runtime": RUNTIMES[held.runtime][0]}
                print(space, device, count, rows[f"{space} {device} {count}"], flush=True)
    about = {"versions": {p: version(p) for p in ("numpy", "scipy")}, "machine": platform.platform()}
    (Path(__file__).parent / "results" / "lookup.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
