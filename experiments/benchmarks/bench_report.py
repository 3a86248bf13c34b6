"""The report of a run in headless Chromium: when it is ready, what it asks for, and whether it shows what the JSON says.

    python experiments/benchmarks/bench_report.py RUN [RUN …] [--to FILE] [--shots FOLDER]

Opens ``report.html`` of each run at the width of a desk (1200) and of a telephone (390), and prints as JSON: milliseconds from the navigation
until every chart is drawn, console errors, requests beside the page itself, pixels by which the page is too wide, figures that
differ from ``results.json``, and the page's size. Needs Chromium. The committed results are of the runs of experiments/026_gallery.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.e2e.browser import CHROMIUM, browser, wrong_figures


def main() -> None:
    """Look at the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--to", type=Path, help="file for the figures, with the machine")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    chosen = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("bench_report: Chromium is not installed.")
    if chosen.shots:
        chosen.shots.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as tab:
        for run in chosen.runs:
            for width in (1200, 390):
                tab.errors.clear()
                tab.requests.clear()
                page = run / "report.html"
                ready_ms = tab.open(page, width)
                row = {
                    "run": run.name,
                    "width": width,
                    "ready_ms": round(ready_ms),
                    "console_errors": len(tab.errors),
                    "requests": len(tab.requests) - 1,
                    "too_wide_px": max(0, tab.ask("document.documentElement.scrollWidth") - width),
                    "wrong_figures": wrong_figures(tab, json.loads((run / "results.json").read_text())),
                    "size_bytes": page.stat().st_size,
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
                if chosen.shots:
                    tab.picture(chosen.shots / f"{run.name}-{width}.png")
    if chosen.to:
        facts = {
            "command": "python experiments/benchmarks/bench_report.py RUN …",
            "machine": f"{platform.machine()}, {os.cpu_count()} processors",
            "load": [round(value, 2) for value in os.getloadavg()],
            "browser": subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        }
        chosen.to.write_text(json.dumps(facts | {"pages": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
