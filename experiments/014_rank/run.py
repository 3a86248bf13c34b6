"""How well a supernet's scores order networks that were trained alone: `nas rank`, kept as JSON.

    python experiments/014_rank/run.py rank --supernet runs/digits/supernet.safetensors --out /tmp/rank --name digits
    python experiments/014_rank/run.py train --space hybrid-s --recipe single-path --minutes 15 --data /tmp/cifar-1000 --supernet /tmp/single-path.safetensors
    python experiments/014_rank/run.py rank --space hybrid-s --n 30 --epochs 6 --ceiling 10 --known 10 --device sa8295p --data /tmp/cifar-1000 \\
        --supernet /tmp/single-path.safetensors --out /tmp/rank --name hybrid-s-single-path

``train`` gives a recipe so many processor minutes, to which its schedule is cut. Networks that ``--out`` holds already are not trained again: a run that was
stopped goes on, and a second supernet is held against the same networks.
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
MOST_EPOCHS = 1000


def train(given: argparse.Namespace) -> None:
    """Train a supernet by a recipe for so many processor minutes, as a search would."""
    from dataclasses import replace

    from nas.spaces.naming import get_elastic_space
    from nas.training.dataset import load_dataset
    from nas.training.supernet.train import default_recipe, default_resolution
    from nas.training.supernet.train import train as train_supernet

    dataset = load_dataset(given.data, seed=0)
    space = get_elastic_space(given.space, num_classes=dataset.num_classes)
    size = default_resolution(dataset, space.least_proxy)
    dataset.pixels("train", size)  # read before the clock starts
    recipe = replace(default_recipe(dataset, space), epochs=MOST_EPOCHS, methods=tuple(given.recipe.split(",")))
    began_s = time.process_time()
    trained = train_supernet(
        space, dataset, given.supernet, recipe, resolution=size, left_s=lambda: 60 * given.minutes - (time.process_time() - began_s)
    )
    print(
        f"{given.recipe}: {(time.process_time() - began_s) / 60:.1f} processor minutes, {len(trained.history)} epochs; {trained.history[-1]}"
    )


def rank(given: argparse.Namespace) -> None:
    """Run the command and write ``results/NAME.json``."""
    began_s = time.monotonic()
    words = ["rank", "--supernet", str(given.supernet), "--data", given.data, "--space", given.space, "--n", str(given.n)]
    words += ["--epochs", str(given.epochs), "--out", str(given.out), "--format", "json"]
    words += [*(["--ceiling", str(given.ceiling)] if given.ceiling else []), *(["--known", str(given.known)] if given.known else [])]
    words += [word for device in given.device for word in ("--device", device)]
    held = len(list(given.out.glob("*.safetensors"))) if given.out.is_dir() else 0
    done = subprocess.run([sys.executable, str(ROOT / "cli.py"), *words], stdout=subprocess.PIPE, text=True, check=True)
    shown = {given.data: Path(given.data).name, str(given.supernet): given.supernet.name, str(given.out): "DIR"}
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
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{given.name}.json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "rank"))
    parser.add_argument("--data", default="digits", help="of both trainings, with the same seed")
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--recipe", default="sandwich", help="names joined by commas")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the processor, for the supernet")
    parser.add_argument("--out", type=Path, help="folder of the networks that are trained alone")
    parser.add_argument("--name", default="digits", help="of the file of results")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--ceiling", type=int, default=0)
    parser.add_argument("--known", type=int, default=0)
    parser.add_argument("--device", action="append", default=[])
    given = parser.parse_args()
    {"train": train, "rank": rank}[given.what](given)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
