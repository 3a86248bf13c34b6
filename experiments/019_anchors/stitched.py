"""What solving for the layers after a change of anchor is worth, without training.

    python experiments/019_anchors/stitched.py --data cifar10.tar --weights-dir weights --anchor mobilenetv2_100 --anchor tf_efficientnet_lite0

Members of two anchors with one change, evenly spread over all; each scored with its stitch by least squares and new norm statistics alone, and as a search scores
it (the stitch and the last linear layer of each block after it solved for, see `nas.training.supernet.reconstruction`).
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
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.fitting import fit
from nas.training.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.training.supernet.weights import Supernet

HERE = Path(__file__).parent


def main() -> None:
    """Write ``results/stitched.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--anchor", action="append", required=True)
    parser.add_argument("--count", type=int, default=15, help="members, about")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--validation", type=int, default=600)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_freed_memory()
    dataset = load_dataset(args.data, seed=args.seed, images=args.images).thinned("validation", args.validation)
    size = (args.side, args.side)
    options = {"pairs": "all", "changes": 1, "edits": ()}
    space = get_space("chain", anchors=args.anchor, weights_dir=args.weights_dir, num_classes=10, resolution=size, **options)
    assert isinstance(space, ChainSpace)
    supernet = Supernet(space, 10, size)
    fit(supernet, lambda side: Batches(dataset, "train", side, torch.device("cpu")))
    evaluator, train = SupernetEvaluator(supernet, dataset), Batches(dataset, "train", size, torch.device("cpu"))
    calibration = list(pictures(train.plain(256, calibration_indices(train, space.calibration_pictures))))
    validation = Batches(dataset, "validation", size, torch.device("cpu"))
    routes = [genes for genes in space.routes() if genes[2] != "none"]  # type: ignore[attr-defined]
    rows = []
    for genes in routes[:: max(1, len(routes) // args.count)]:
        member = space.architecture(genes)
        path = supernet.path(member)
        recalibrate(path, calibration)
        alone_pct = 100 * float(np.mean(predictions(path, validation) == validation.labels.numpy()))
        rows.append({"change": genes[2], "stitch_pct": alone_pct, "followed_pct": evaluator.evaluate(member).accuracy_pct})
        print(rows[-1], flush=True)
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("stitch_pct", "followed_pct")}
    print(means)
    facts = {"anchors": args.anchor, "images": args.images, "validation": args.validation, "side": args.side, "seed": args.seed}
    (HERE / "results" / "stitched.json").write_text(json.dumps(facts | {"means": means, "members": rows}, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
