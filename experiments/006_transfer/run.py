"""Few-shot transfer on the published tables: HELP's split, NASFLAT's sets, and how errors fall with the number of timings.

    python experiments/006_transfer/run.py --data ../shared/data --rows help-nasbench201 N1 …   (default: all)

Rows whose devices the tables lack are run on the devices that they have; the result lists both. Sources and targets are those of HELP
(arXiv 2106.08630) and of NASFLAT (arXiv 2403.02446, ``device_task_list.py``); FA's sources are not published, so five GPUs stand in.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

from nas.bench.latency_transfer import TransferProtocol, bench_latency_transfer
from nas.devices.latency_table import read_latency_table

HELP = "1080ti_1 1080ti_32 1080ti_256 1080ti_64 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7"
EDGE = "eagle_cpu_855 eagle_dsp_855 eagle_gpu_855 eagle_gtx eagle_jetson eagle_tpu rice_edgegpu rice_pixel3 true_630 true_640 true_a76"
ROWS: dict[str, tuple[str, str, str, dict[str, object], float]] = {
    "help-nasbench201": ("nasbench201", HELP, "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss", {"samples": 10, "train_samples": 900, "query": 1000, "trim": 0.1}, 0.950),
    "help-nasbench201-pixel3": ("nasbench201", HELP.replace("pixel3", ""), "pixel3", {"samples": 10, "train_samples": 900, "query": 1000, "trim": 0.1}, 0.0),
    "edge-nasbench201": ("nasbench201_edge", "", EDGE, {"samples": 20, "train_samples": 900, "query": 1000}, 0.0),
    "help-fbnet": ("fbnet", HELP, "fpga raspi4 eyeriss", {"samples": 10, "train_samples": 4000, "query": 1000, "trim": 0.1}, 0.965),
    "help-fbnet-validation": ("fbnet", HELP, "titanx_1 titanx_32 titanx_64 gold_6240", {"samples": 10, "train_samples": 4000, "query": 1000, "trim": 0.1}, 0.0),
    "ND": ("nasbench201", HELP, "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss", {"samples": 20}, 0.968),
    "N1": ("nasbench201", "eyeriss pixel3", "1080ti_1 titan_rtx_32 titanxp_1 2080ti_32 titan_rtx_1", {"samples": 20}, 0.985),
    "N3": ("nasbench201", "eyeriss", "1080ti_1 2080ti_1 titanxp_1 2080ti_32 titanxp_32", {"samples": 20}, 0.980),
    "N4": ("nasbench201", "eyeriss pixel2", "1080ti_1 2080ti_1 titan_rtx_1", {"samples": 20}, 0.980),
    "FD": ("fbnet", HELP, "fpga raspi4 eyeriss", {"samples": 20}, 0.988),
    "FD-validation": ("fbnet", HELP, "titanx_1 titanx_32 titanx_64 gold_6240", {"samples": 20}, 0.0),
    "FA": ("fbnet", "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titanx_32", "gold_6226 essential_ph_1 samsung_s7 pixel2", {"samples": 20}, 0.80),
    "F1": ("fbnet", "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32", "eyeriss fpga raspi4 samsung_a50 samsung_s7", {"samples": 20}, 0.92),
    "F2": ("fbnet", "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4", "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1", {"samples": 20}, 0.97),
    "F3": ("fbnet", "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7", "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32", {"samples": 20}, 0.97),
    "F4": ("fbnet", "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32", "1080ti_1 pixel2 essential_ph_1", {"samples": 20}, 0.82),
    **{
        f"curve-{space}-{n}": (space, "", "titan_rtx_1 titan_rtx_32 gold_6226 silver_4210r samsung_a50 pixel2 pixel3", {"samples": n, "train_samples": 900, "query": 1000}, 0.0)
        for space in ("nasbench201", "fbnet")
        for n in (10, 20, 50)
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "results.json")
    args = parser.parse_args()
    kept = json.loads(args.out.read_text())["rows"] if args.out.exists() else {}
    tables = {}
    for name in args.rows:
        space, sources, targets, settings, wanted = ROWS[name]
        table = tables.setdefault(space, read_latency_table(args.data / f"latency_{space}.npz"))
        here = [[d for d in text.split() if d in table.ms] for text in (sources, targets)]
        missing = [[d for d in text.split() if d not in table.ms] for text in (sources, targets)]
        start = time.perf_counter()
        if not here[1]:
            kept[name] = {"wanted": wanted, "missing_targets": missing[1], "measured": False}
        else:
            protocol = TransferProtocol(repeats=args.repeats, **settings)  # type: ignore[arg-type]
            result = bench_latency_transfer(table, here[0], here[1], protocol)
            kept[name] = result.dump() | {
                "wanted": wanted,
                "missing_sources": missing[0],
                "missing_targets": missing[1],
                "measured": True,
                "seconds": round(time.perf_counter() - start, 1),
            }
            print(name, f"{result.mean_spearman:.4f} (wanted {wanted}, ceiling {result.mean_ceiling_spearman:.4f})", flush=True)
        about = {
            "versions": {p: version(p) for p in ("numpy", "scipy")},
            "machine": platform.platform(),
            "seed": 0,
            "repeats": args.repeats,
        }
        args.out.write_text(json.dumps({**about, "rows": dict(sorted(kept.items()))}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
