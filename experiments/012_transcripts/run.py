"""The README's transcripts and pictures: run the commands, keep what they print.

    python experiments/012_transcripts/run.py            # all, a quarter of an hour
    python experiments/012_transcripts/run.py zoo-5ms    # one

Each command's standard output goes to ``results/NAME.txt``, its front's picture to ``results/NAME.png``, and
``results/results.json`` says seconds, versions and machine. The README's transcript is written anew from the same text.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMANDS = {
    "zoo-3ms": ["search", "--device", "sa8295p", "--budget", "3ms", "--space", "zoo"],
    "zoo-5ms": ["search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo"],
    "zoo-10ms": ["search", "--device", "sa8295p", "--budget", "10ms", "--space", "zoo"],
    "search-5ms": ["search", "--device", "sa8295p", "--budget", "5ms"],
}
SHOWN = "zoo-5ms"
"""The transcript that the README shows."""


def run(name: str, arguments: list[str]) -> dict[str, object]:
    """Run one command in a directory of its own and keep its output."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.monotonic()
        command = [sys.executable, str(ROOT / "cli.py"), *arguments, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "150"}, cwd=ROOT)
        seconds = time.monotonic() - began
        (HERE / "results" / f"{name}.txt").write_text(f"$ nas {' '.join(arguments)}\n" + done.stdout.replace(str(out), "runs/RUN"))
        shutil.copy(out / "pareto.png", HERE / "results" / f"{name}.png")
        result = json.loads((out / "results.json").read_text())
    chosen = result["chosen"]
    kept = ("latency_ms", "lower_ms", "upper_ms", "precision", "resolution", "accuracy_pct", "supernet_accuracy_pct", "macs", "params")
    return {
        "command": "nas " + " ".join(arguments),
        "seconds": round(seconds, 1),
        "phases_s": result["seconds"],
        "evaluations": result["evaluations"],
        "proposals": result["proposals"],
        "chosen": {key: chosen[key] for key in kept},
    }


def show_in_readme() -> None:
    """Put the transcript that the README shows, as it is now, into the README."""
    page, text = ROOT / "README.md", (HERE / "results" / f"{SHOWN}.txt").read_text().rstrip("\n")
    block = re.compile(rf"^```text\n\$ nas {re.escape(' '.join(COMMANDS[SHOWN]))}\n.*?^```$", re.MULTILINE | re.DOTALL)
    page.write_text(block.sub(lambda _: f"```text\n{text}\n```", page.read_text()))


def main() -> None:
    """Run the commands that the arguments name, all by default."""
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "results.json"
    found = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name in sys.argv[1:] or COMMANDS:
        found[name] = run(name, COMMANDS[name])
        versions = {package: version(package) for package in ("torch", "numpy", "onnxruntime", "optuna")}
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        made = datetime.now(UTC).date().isoformat()
        head = {"command": "python experiments/012_transcripts/run.py", "made": made, "seed": 0, "versions": versions, "machine": machine}
        path.write_text(json.dumps({**head, "runs": found}, indent=1) + "\n")
    show_in_readme()


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
