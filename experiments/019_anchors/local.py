"""MobileNetV2 on this machine's processor: blocks timed one by one, what they predict of whole networks, and members near half its time.

    python experiments/019_anchors/local.py --data ../shared/data/cifar10_jpeg.tar.xz --weights-dir /tmp/anchors/weights \\
        --front experiments/019_anchors/results/front-mobilenetv2_100-sa8295p.json

ONNX Runtime, one thread, fp32, random weights. What single changes lose is taken from the results of `front.py`; a knapsack over the timed blocks chooses members, whose
networks are timed whole, in turn with the anchor's. `shrink.py --device local-cpu` trains the one that validation likes best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from front import best_forms
from study import EDITS, IMPORTANCE, timed_ms

from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_space
from nas.training.dataset import load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.fitting import fit
from nas.training.supernet.weights import Supernet
from nas.units import parse_resolution
from search_spaces.chain import MERGED, WHOLE

HERE = Path(__file__).parent
SIZE, MOST_LOST = (224, 224), 45.0
SHARES = (0.44, 0.48, 0.52)
"""Of the anchor's time, for which members are chosen: predictions miss the mark a little either way."""


class Blocks:
    """Times of an anchor's blocks in every form, one by one.

    Args:
        space: Of one anchor.
    """

    def __init__(self, space: ChainSpace) -> None:
        self.space, self.whole = space, space.member(space.anchors[0].name)
        self.first = next(i for i, choice in enumerate(space.choices) if WHOLE in choice.values)
        own, graphs = space.parts(self.whole, SIZE), {}
        for part in own:
            graphs["rest", part.label] = part.graph()  # type: ignore[attr-defined]
        for i in range(self.first, len(space.choices)):
            for form in space.choices[i].values[1:]:
                edited = space.parts(self.with_forms({i: str(form)}), SIZE)
                (gone,) = (part for part in own if part not in edited)
                graphs.setdefault((i, WHOLE), graphs.pop(("rest", gone.label), None))
                graphs |= {(i, str(form)): part.graph() for part in edited if part not in own}  # type: ignore[attr-defined]
        times = dict(zip(graphs, timed_ms(list(graphs.values())), strict=True))
        self.rest_ms = sum(ms for (i, _), ms in times.items() if i == "rest")
        self.prices = {
            i: {str(form): times.get((i, str(form)), 0.0) for form in space.choices[i].values}  # what is left out takes no time
            for i in range(self.first, len(space.choices))
            if len(space.choices[i].values) > 1
        }

    def with_forms(self, forms: Mapping[int, str], size: str | None = None) -> Architecture:
        """Return a member by the forms of its blocks, all others whole."""
        genes = [forms.get(i, gene) for i, gene in enumerate(self.whole.genes)]
        return self.space.architecture([size or genes[0], *genes[1:]])

    def predicted_ms(self, forms: Mapping[int, str]) -> float:
        """Return the sum of a member's blocks at 224 pixels."""
        return self.rest_ms + sum(row[forms.get(i, WHOLE)] for i, row in self.prices.items())

    def quickest(self, among: Sequence[str]) -> dict[int, str]:
        """Return the quickest of some forms of each block."""
        return {i: min((form for form in row if form in among), key=row.__getitem__) for i, row in self.prices.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", default="mobilenetv2_100")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--importance", default=IMPORTANCE, help="by which inner channels stay")
    parser.add_argument("--front", type=Path, required=True, help="results of front.py: what single changes lose")
    args = parser.parse_args()
    keep_freed_memory()
    space = get_space("chain", anchors=[args.anchor], weights_dir=args.weights_dir, num_classes=10, edits=EDITS, importance=args.importance)
    assert isinstance(space, ChainSpace)
    blocks, known = Blocks(space), json.loads(args.front.read_text())
    lost_by = {row["block"]: row["points_lost"] for row in known["singles"]}
    losses = {i: lost_by[space.choices[i].name] for i in blocks.prices}
    merged = blocks.quickest((WHOLE, MERGED))
    members = {"as it is": blocks.whole, "merged where that is quicker": blocks.with_forms(merged)}
    predicted = {"as it is": blocks.predicted_ms({}), "merged where that is quicker": blocks.predicted_ms(merged)}
    least = {i: min(row.values()) for i, row in blocks.prices.items()}
    floor_ms = blocks.rest_ms + sum(least.values())
    extra = [{form: ms - least[i] for form, ms in row.items()} for i, row in blocks.prices.items()]
    most_ms = blocks.predicted_ms({}) - floor_ms
    choices = best_forms(extra, list(losses.values()), most_ms)
    for size, lost in known["sizes"][args.anchor].items():
        area = parse_resolution(size)[0] * parse_resolution(size)[1] / (SIZE[0] * SIZE[1])
        for share in SHARES:
            within = [row for row in choices if (floor_ms + row[0]) * area <= share * blocks.predicted_ms({})]
            if within and lost + within[-1][1] < MOST_LOST:
                name = f"{size}, {share:g}"
                members[name] = blocks.with_forms(dict(zip(blocks.prices, within[-1][2], strict=True)), size)
                predicted[name] = (floor_ms + within[-1][0]) * area
    graphs = [space.lower(member, parse_resolution(str(member.genes[0]))) for member in members.values()]
    times = dict(zip(members, timed_ms(graphs), strict=True))
    rows = [
        {"name": name, "genes": list(member.genes), "predicted_ms": predicted[name], "latency_ms": times[name]}
        for name, member in members.items()
    ]
    dataset = load_dataset(args.data, seed=args.seed, images=args.images).thinned("validation", args.validation)
    supernet = Supernet(space, 10, (args.side, args.side))
    fit(supernet, lambda size: Batches(dataset, "train", size, torch.device("cpu")))
    evaluator = SupernetEvaluator(supernet, dataset)
    for row, member in zip(rows, members.values(), strict=True):
        row["validation_pct"] = evaluator.evaluate(member).accuracy_pct
    prices = {space.choices[i].name: row for i, row in blocks.prices.items()}
    found = {"anchor": args.anchor, "runtime": "onnxruntime", "threads": 1, "front": rows, "prices_ms": prices, "rest_ms": blocks.rest_ms}
    words = ["local", args.anchor, *([args.importance] if args.importance != IMPORTANCE else [])]
    name = "-".join(words + ([] if args.side == 64 else [f"{args.side}px"]))
    (HERE / "results" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
