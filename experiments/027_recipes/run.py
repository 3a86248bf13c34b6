"""What two published recipes do to the training of a supernet: EfficientTrain's curriculum and SSLD's teaching, each alone against the default.

    python experiments/027_recipes/run.py --space hybrid-xs --data digits --epochs 8

Writes ``results/SPACE-DATA.json``, a row a recipe: processor seconds of the training (one thread), and with the shared weights the accuracy on validation pictures
of the largest member, of the smallest, and of members drawn at random, the same for all recipes. Epochs, steps and seed are the same for all. What is done is not
done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from nas.spaces.naming import get_elastic_space
from nas.training.dataset import load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.supernet.train import Recipe, default_resolution, member_recipe, train

HERE = Path(__file__).parent
DRAWN = 6
"""Members drawn at random."""


def recipes(plain: Recipe) -> dict[str, Recipe]:
    """Return the recipes by name."""
    return {
        "default": plain,
        "efficient-train": replace(plain, methods=("efficient-train",)),
        "ssld": replace(plain, methods=("ssld",)),
    }


def main() -> None:
    """Train, score and write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="hybrid-xs")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"), help="folder of checkpoints")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(given.data)
    space = get_elastic_space(given.space, num_classes=dataset.num_classes)
    resolution = default_resolution(dataset)
    out = HERE / "results" / f"{given.space}-{given.data}.json"
    out.parent.mkdir(exist_ok=True)
    done = json.loads(out.read_text()) if out.is_file() else {"rows": []}
    command = f"python experiments/027_recipes/run.py --space {given.space} --data {given.data} --epochs {given.epochs} --seed {given.seed}"
    done |= {"command": command, "torch": torch.__version__, "machine": platform.platform()}
    done |= {"pictures": dataset.count("train"), "validation_pictures": dataset.count("validation"), "resolution": list(resolution)}
    rng = np.random.default_rng(given.seed)
    drawn = [space.sample(rng) for _ in range(DRAWN)]
    plain = replace(member_recipe(dataset), epochs=given.epochs)
    for name, recipe in recipes(plain).items():
        if any(row["recipe"] == name for row in done["rows"]):
            continue
        path = given.work / f"{given.space}-{given.data}-{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a training that goes on would not know its processor seconds
        began = time.process_time()
        trained = train(space, dataset, path, recipe, resolution=resolution, seed=given.seed, device="cpu")
        seconds = time.process_time() - began
        evaluator = SupernetEvaluator(trained.supernet, dataset)
        scores = [evaluator.evaluate(member).accuracy_pct for member in (space.extreme(True), space.extreme(False), *drawn)]
        done["rows"].append(
            {
                "recipe": name,
                "training_processor_s": round(seconds, 1),
                "largest_pct": round(scores[0], 2),
                "smallest_pct": round(scores[1], 2),
                "drawn_mean_pct": round(mean(scores[2:]), 2),
            }
        )
        out.write_text(json.dumps(done, indent=1) + "\n")
        print(done["rows"][-1], flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
