"""How well a supernet's scores order networks that were trained alone: `nas rank`, kept as JSON.

    nas search --device sa8295p --budget 5ms --out runs/digits
    python experiments/014_rank/run.py --supernet runs/digits/supernet.safetensors --out /tmp/rank

Networks that ``--out`` holds already are not trained again: a run that was stopped goes on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> None:
    """Run the command and write ``results/DATA.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="that the supernet was trained on, with the same seed")
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    began_s = time.monotonic()
    words = ["rank", "--supernet", str(args.supernet), "--data", args.data, "--space", "hybrid-s", "--n", str(args.n)]
    words += ["--epochs", str(args.epochs), "--out", str(args.out), "--format", "json"]
    held = len(list(args.out.glob("*.safetensors"))) if args.out.is_dir() else 0
    done = subprocess.run([sys.executable, str(ROOT / "cli.py"), *words], stdout=subprocess.PIPE, text=True, check=True)
    shown = {args.data: Path(args.data).name, str(args.supernet): args.supernet.name, str(args.out): "DIR"}
    report = {
        "command": "nas " + " ".join(shown.get(word, word) for word in words),
        "made": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "seconds": round(time.monotonic() - began_s, 1),
        "networks_found_trained": held,
        "versions": {package: version(package) for package in ("torch", "numpy", "scipy")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other processes",
        "result": json.loads(done.stdout),
    }
    name = Path(args.data).name.partition(".")[0]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
