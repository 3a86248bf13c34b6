"""Which importance of inner channels leaves most of an anchor when blocks are narrowed, without training.

    python experiments/019_anchors/importances.py --data cifar10.tar --weights-dir weights --anchor mobilenetv2_100

Members: each block by itself at half its inner width, every third block in each other form, and ten with every block that can be narrowed drawn from whole, .75 and
.5 (seed 0); the same for every importance. Accuracy on pictures of validation, after least squares at the end of each block and fresh statistics, as a search scores them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_space
from nas.training.dataset import load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.importance import importances
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.fitting import fit
from nas.training.supernet.weights import Supernet

HERE = Path(__file__).parent
DRAWN = 10


def main() -> None:
    """Write ``results/importances-ANCHOR.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--anchor", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=importances.names(), help="importances")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_freed_memory()
    dataset = load_dataset(args.data, seed=args.seed, images=args.images).thinned("validation", args.validation)
    found: dict[str, dict[str, float]] = {}
    for name in args.only:
        space = get_space(
            "chain",
            anchors=[args.anchor],
            weights_dir=args.weights_dir,
            num_classes=10,
            resolution=(args.side, args.side),
            importance=name,
        )
        assert isinstance(space, ChainSpace)
        whole = space.member(args.anchor)
        able = [i for i, choice in enumerate(space.choices) if "0.5" in choice.values]
        members = {"as it is": whole}
        for i in able:
            members[f"{space.choices[i].name} 0.5"] = space.architecture([*whole.genes[:i], "0.5", *whole.genes[i + 1 :]])
        for form in ("out", "merged", "rank-0.5"):
            for i in [i for i, choice in enumerate(space.choices) if form in choice.values][::3]:
                members[f"{space.choices[i].name} {form}"] = space.architecture([*whole.genes[:i], form, *whole.genes[i + 1 :]])
        rng = np.random.default_rng(args.seed)
        for n in range(DRAWN):
            genes = [rng.choice(["whole", "0.75", "0.5"]) if i in able else gene for i, gene in enumerate(whole.genes)]
            members[f"drawn {n}"] = space.architecture([str(gene) for gene in genes])
        supernet = Supernet(space, 10, (args.side, args.side))
        fit(supernet, lambda size: Batches(dataset, "train", size, torch.device("cpu")))
        evaluator = SupernetEvaluator(supernet, dataset)
        found[name] = {label: evaluator.evaluate(member).accuracy_pct for label, member in members.items()}
        forms = {
            form: [pct for label, pct in found[name].items() if label.split()[1] == form] for form in ("0.5", "out", "merged", "rank-0.5")
        }
        forms["drawn"] = [pct for label, pct in found[name].items() if label.startswith("drawn")]
        means = ", ".join(f"{form} {np.mean(values):.2f}" for form, values in forms.items() if values)
        print(f"{name}: as it is {found[name]['as it is']:.1f}, {means}", flush=True)
    out = {
        "anchor": args.anchor,
        "side": args.side,
        "images": args.images,
        "validation": args.validation,
        "seed": args.seed,
        "accuracy_pct": found,
    }
    (HERE / "results" / f"importances-{args.anchor}.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
