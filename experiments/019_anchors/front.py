"""A front from one trained network without training: what each single change of a block loses, then the best changes within each latency.

    python experiments/019_anchors/front.py --data ../shared/data/cifar10_jpeg.tar.xz --weights-dir /tmp/anchors/weights --out /tmp/front

Every block of the network is left out, narrowed and merged, one at a time, and scored with recalibrated batch norms; a knapsack over the device's
prices then chooses the forms of all blocks for each of sixty latencies, and each choice is scored. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau
from study import Scorer

from nas.devices.names import find_profile
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.errors import UsageError
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_space
from nas.training.dataset import load_dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.fitting import fit
from nas.training.supernet.weights import Supernet

HERE = Path(__file__).parent
LATENCIES = 60

_STEPS = 1000
"""A budget is divided into so many; prices are rounded up, so that it holds."""


def choose_forms(prices_ms: Sequence[Mapping[str, float]], losses: Sequence[Mapping[str, float]], budget_ms: float) -> list[str]:
    """Return the form of each block whose losses sum to the least, prices within the budget.

    Args:
        prices_ms: For each block, milliseconds of each form that it can take.
        losses: What is lost by each form of each block, in any unit that adds up; 0 for the block as it is.
        budget_ms: That the sum of prices does not pass.

    Raises:
        UsageError: Even the cheapest forms pass it.

    Source:
        The multiple-choice knapsack of HALP (arXiv 2110.10811) and LayerMerge (arXiv 2406.12837), by dynamic programming over latency.
    """
    best: dict[int, tuple[float, tuple[str, ...]]] = {0: (0.0, ())}
    for prices, lost in zip(prices_ms, losses, strict=True):
        following: dict[int, tuple[float, tuple[str, ...]]] = {}
        for spent, (loss, forms) in best.items():
            for form, price in prices.items():
                at = spent + max(0, math.ceil(_STEPS * price / budget_ms - 1e-9))
                if at <= _STEPS and (at not in following or loss + lost[form] < following[at][0]):
                    following[at] = loss + lost[form], (*forms, form)
        best = following
    if not best:
        cheapest = sum(min(prices.values()) for prices in prices_ms)
        raise UsageError(f"forms of blocks: nothing is within the budget, got {budget_ms:g} ms. The cheapest forms take {cheapest:g} ms.")
    return list(min(best.items(), key=lambda item: (item[1][0], item[0]))[1][1])


class Scores:
    """Accuracies and prices of members; accuracies are kept in a file.

    Args:
        args: Of the command line.
        space: Of one anchor.
    """

    def __init__(self, args: argparse.Namespace, space: ChainSpace) -> None:
        self.space, self.path = space, args.out / f"{args.anchor}.jsonl"
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.is_file() else []
        self.profile = load_profile(args.device)
        self.predictor = load_predictor(self.profile, self.profile.default_precision, find_profile(args.device).parent)
        dataset = load_dataset(args.data, seed=args.seed, images=args.images)
        side = (args.side, args.side)
        supernet = Supernet(space, dataset.num_classes, side)
        fit(supernet, lambda size: Batches(dataset, "train", size, torch.device("cpu")))
        self.scorer = Scorer(supernet, dataset, count=1000)

    def latency_ms(self, member: Architecture) -> float:
        """Return the price at 224 pixels."""
        parts = self.space.segments(member, (224, 224))
        return float(self.predictor.estimate_batch([parts], self.profile, self.profile.default_precision).latency_ms[0])

    def accuracy_pct(self, member: Architecture) -> float:
        """Return the score on validation pictures, from the file where it holds it."""
        for row in self.rows:
            if row["genes"] == list(member.genes):
                return float(row["accuracy_pct"])
        found = self.scorer.accuracy_pct(member)
        self.rows.append({"genes": list(member.genes), "accuracy_pct": found})
        with self.path.open("a") as stream:
            stream.write(json.dumps(self.rows[-1]) + "\n")
        return found


def front(args: argparse.Namespace) -> dict[str, object]:
    """Return members by latency with their accuracies."""
    space = get_space(
        "chain",
        anchors=[args.anchor],
        weights_dir=args.weights_dir,
        num_classes=10,
        resolution=(args.side, args.side),
        edits=tuple(args.edits.split(",")),
    )
    assert isinstance(space, ChainSpace)
    scores, whole = Scores(args, space), space.member(args.anchor)
    base_ms, base_pct = scores.latency_ms(whole), scores.accuracy_pct(whole)
    blocks = [i for i, choice in enumerate(space.choices) if i >= 2 and len(choice.values) > 1]
    prices, losses = [], []
    for i in blocks:
        members = {str(form): space.architecture([*whole.genes[:i], form, *whole.genes[i + 1 :]]) for form in space.choices[i].values}
        prices.append({form: scores.latency_ms(member) - base_ms for form, member in members.items()})
        losses.append({form: max(0.0, base_pct - scores.accuracy_pct(member)) for form, member in members.items()})
    least_ms = base_ms + sum(min(row.values()) for row in prices)
    found: dict[tuple[object, ...], dict[str, object]] = {}
    # prices are savings: each block pays its dearest form, and the budget is what may be spent beside
    shift = [max(0.0, -min(row.values())) for row in prices]
    shifted = [{form: value + own for form, value in row.items()} for row, own in zip(prices, shift, strict=True)]
    for budget_ms in np.linspace(max(least_ms, 0.5 * base_ms), base_ms, LATENCIES):
        try:
            forms = choose_forms(shifted, losses, float(budget_ms - base_ms + sum(shift)) or 1e-9)
        except UsageError:
            continue
        genes = list(whole.genes)
        for i, form in zip(blocks, forms, strict=True):
            genes[i] = form
        member = space.architecture(genes)
        if member.genes not in found:
            found[member.genes] = {
                "forms": {space.choices[i].name: form for i, form in zip(blocks, forms, strict=True) if form != "whole"},
                "latency_ms": scores.latency_ms(member),
                "validation_pct": scores.accuracy_pct(member),
            }
    rows = sorted(found.values(), key=lambda row: float(row["latency_ms"]))  # type: ignore[arg-type]
    within = [row for row in rows if float(row["validation_pct"]) >= base_pct - 1.5]  # type: ignore[arg-type]
    return {
        "anchor": args.anchor,
        "device": args.device,
        "edits": args.edits,
        "precision": scores.profile.default_precision,
        "images": args.images,
        "side": args.side,
        "anchor_ms": base_ms,
        "anchor_validation_pct": base_pct,
        "members": len(rows),
        "kendall_accuracy_latency": float(kendalltau([r["validation_pct"] for r in rows], [r["latency_ms"] for r in rows]).statistic),
        "fastest_within_1.5_points_ms": within[0]["latency_ms"] if within else None,
        "front": rows,
        "singles": [{"block": space.choices[i].name, "ms": p, "points_lost": q} for i, p, q in zip(blocks, prices, losses, strict=True)],
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anchor", default="mobilenetv2_100")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--edits", default="out,width,merge", help="names joined by commas")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = front(args)
    (HERE / "results").mkdir(exist_ok=True)
    of = "" if args.edits == parser.get_default("edits") else "-" + args.edits.replace(",", "-")
    (HERE / "results" / f"front-{args.anchor}-{args.device}{of}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key not in ("front", "singles")}, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
