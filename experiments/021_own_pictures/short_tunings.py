"""What parts of the recipe are worth to a published network that is fine-tuned for a few minutes: one thing changed at a time, equal processor seconds.

    python experiments/021_own_pictures/short_tunings.py --data /tmp/cifar-1000
    python experiments/021_own_pictures/short_tunings.py --data /tmp/cifar-1000 --only "rate 0.00025" "rate 0.0005"
    python experiments/021_own_pictures/short_tunings.py --data /tmp/cifar-1000 --pictures 800 --seconds 240 --network tf_efficientnet_lite0 \\
        --only "as it is" mixup CutMix RandAugment "RandAugment and mixup" --out experiments/021_own_pictures/results/short_tunings_of_few.json

Each starts from its probe on the same pictures, 8,000 of 10,000, and is scored on all others, which no training sees. A row that is in the results already is not
trained again. Needs the weights of the extra ``anchors``.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from equal_seconds import halved, machine, scored, tune

from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.runs.transfer_candidates import sizes
from nas.training.evaluators.probe import ProbeEvaluator
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Augmentation
from nas.training.transfer.recipe import transfer_recipe
from nas.training.transfer.tuning import Tuning, keeps_norms

HERE = Path(__file__).parent
RATES = (1e-3, 5e-4, 2.5e-4, 1.25e-4)
ROWS: dict[str, dict[str, Any]] = {f"rate {rate:g}": {"learning_rate": rate} for rate in RATES}
ROWS["rate 0.00025, half of the side at first"] = {"learning_rate": 2.5e-4, "first_side": 0.5, "grown": 0.75}
ROWS["rate 0.00025, statistics taken anew"] = {"learning_rate": 2.5e-4, "frozen_norms": False}

ROWS["as it is"] = {}
AUGMENTED: dict[str, dict[str, Any]] = {
    "mixup": {"mixup": 0.2},
    "CutMix": {"cutmix": 1.0},
    "RandAugment": {"operations": 2},
    "RandAugment and mixup": {"operations": 2, "mixup": 0.2},
}
ROWS |= {name: {"augmentation": Augmentation(shift=0.1, scale=0.1, **more)} for name, more in AUGMENTED.items()}


def main() -> None:
    """Train each row, and write ``results/short_tunings.json``, or what `--out` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=360.0, help="of the processor, for each row")
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows by name; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "short_tunings.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    done = json.loads(given.out.read_text()) if given.out.is_file() else {}
    problem = make_problem(Request(devices=("sa8295p",), budgets=("5ms",), space="zoo", data=str(given.data), seed=given.seed))
    assert problem.dataset is not None
    few, rest = halved(problem.dataset, given.pictures, given.seed)
    evaluator = ProbeEvaluator(problem.space, few)
    size = (given.size, given.size)
    member = next(one for one in sizes(problem.space, given.network) if evaluator.space.size_of(one) == size)
    expected = evaluator.space.normalisation(member)
    assert expected is not None
    data, others = few.normalised_by(*expected), rest.normalised_by(*expected)
    probe_pct = evaluator.probe(member).accuracy_pct
    frozen = keeps_norms(evaluator.module(member, size), data, size, evaluator.right(member))
    for row, changes in ROWS.items():
        name = f"{given.network} at {given.size} px: {row}"
        if name in done or not (given.only is None or row in given.only):
            continue
        recipe = replace(transfer_recipe(given.pictures, 6), **({"frozen_norms": frozen} | changes))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "tuning.safetensors"
            tuning = Tuning(evaluator.module(member, size), data, size, path, recipe, 10_000, member.to_json(), given.seed)
            began_s, began_wall_s = time.process_time(), time.monotonic()
            tune(tuning, given.seconds, began_s, began_wall_s)
            took_s = time.process_time() - began_s
        done[name] = {
            "network": given.network,
            "resolution": given.size,
            "recipe": recipe.entries,
            "probe_pct": probe_pct,
            "training_pictures": data.count("train"),
            "epochs": round(tuning.step / tuning.epoch_steps, 2),
            "processor_s": round(took_s, 1),
            "seed": given.seed,
            **scored(tuning.averaged(), others, size),
            **machine(),
        }
        given.out.write_text(json.dumps(done, indent=1) + "\n")
        print(name, done[name], flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
