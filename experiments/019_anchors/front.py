"""A front from trained networks: what each single change loses, then the best changes within each latency, by a knapsack over the device's prices.

    python experiments/019_anchors/front.py --data ../shared/data/cifar10_jpeg.tar.xz --weights-dir /tmp/anchors/weights --out /tmp/front \\
        --anchor mobilenetv2_100 --anchor tf_efficientnet_lite0

Every block of each anchor is left out, narrowed and merged, one at a time; each anchor is shown smaller pictures; some of the stitches are taken; all are scored as a
search scores them (last layers solved for by least squares, batch norms recalibrated). For each of eighty spans of latency, equally wide, the route, the size and the forms of its
blocks are chosen whose losses (of the mean probability of the right class) sum to the least; each choice is scored on validation. Those that most faster ones beat there are left out
until there are sixty, and these are scored once on test.
With `--epochs` what is shared is trained first, anchors frozen, members drawn by milliseconds, the dearest anchor teaching. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from study import EDITS, IMPORTANCE, Lines, timed_ms

from nas.runs.targets import load_targets, make_goal
from nas.searching.buckets import LatencyBuckets
from nas.searching.judge import Judge
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_space
from nas.training.dataset import Split, load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.memory import keep_freed_memory
from nas.training.supernet.train import Recipe, train
from nas.units import parse_resolution
from search_spaces.chain import NONE, WHOLE

HERE = Path(__file__).parent
LATENCIES = 80
"""Spans of latency."""

_STEPS = 1000
"""A budget is divided into so many; prices are rounded up, so that it holds."""


def best_forms(
    prices_ms: Sequence[Mapping[str, float]], losses: Sequence[Mapping[str, float]], most_ms: float
) -> list[tuple[float, float, tuple[str, ...]]]:
    """Return (milliseconds, loss, the form of each block) of the best choices, the cheapest first: no other costs no more and loses less.

    Args:
        prices_ms: For each block, milliseconds of each form that it can take, not negative.
        losses: What is lost by each form of each block, in any unit that adds up; 0 for the block as it is.
        most_ms: That the sum of prices does not pass.

    Source:
        The multiple-choice knapsack of HALP (arXiv 2110.10811) and LayerMerge (arXiv 2406.12837), by dynamic programming over latency.
    """
    best: dict[int, tuple[float, tuple[str, ...]]] = {0: (0.0, ())}
    for prices, lost in zip(prices_ms, losses, strict=True):
        following: dict[int, tuple[float, tuple[str, ...]]] = {}
        for spent, (loss, forms) in best.items():
            for form, price in prices.items():
                at = spent + max(0, math.ceil(_STEPS * price / most_ms - 1e-9))
                if at <= _STEPS and (at not in following or loss + lost[form] < following[at][0]):
                    following[at] = loss + lost[form], (*forms, form)
        best = following
    front: list[tuple[float, float, tuple[str, ...]]] = []
    for spent, (loss, forms) in sorted(best.items()):
        if not front or loss < front[-1][1]:
            front.append((spent * most_ms / _STEPS, loss, forms))
    return front


@dataclass(frozen=True)
class Route:
    """A way through the anchors at a size of picture, all blocks whole.

    Attributes:
        genes: Of that member.
        points_lost: Against the best anchor as it is.
    """

    genes: tuple[int | str, ...]
    points_lost: float


def least_beaten(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return so many members, the fastest first: one after the other, the one that most faster ones beat on validation is left out."""
    left = list(rows)
    while len(left) > count:
        beaten = [sum(faster["validation_pct"] > row["validation_pct"] for faster in left[:i]) for i, row in enumerate(left)]
        del left[beaten.index(max(beaten))]
    return left


class Scores:
    """Accuracies and prices of members; accuracies are kept in a file.

    Args:
        args: Of the command line.
        space: Of the anchors.
    """

    def __init__(self, args: argparse.Namespace, space: ChainSpace) -> None:
        self.space, self.lines, self.device = space, Lines(args.out / f"scores-{args.epochs}.jsonl"), args.device
        targets = load_targets([args.device])
        self.precision = targets[0].precision
        self.judge = Judge(space, make_goal(targets, []), targets)
        dataset = load_dataset(args.data, seed=args.seed, images=args.images)
        few = dataset.thinned("validation", args.validation).thinned("test", args.test or dataset.count("test"))
        began_s = time.process_time()
        recipe = Recipe(epochs=args.epochs, batch=64, learning_rate=args.learning_rate, warmup=0.1, weight_decay=0.02, random_members=1)
        draw = LatencyBuckets(space, self.judge, args.seed).draw if args.epochs else None
        path, size = args.out / f"shared-{args.epochs}.safetensors", (args.side, args.side)
        supernet = train(space, dataset, path, recipe, resolution=size, seed=args.seed, device="cpu", draw=draw).supernet
        self.evaluators = {split: SupernetEvaluator(supernet, few, split) for split in ("validation", "test")}
        if not self.lines.has(split="train"):
            self.lines.add({"member": "", "split": "train", "seconds": time.process_time() - began_s})

    @property
    def minutes(self) -> float:
        """Of processor time for everything but the test pictures."""
        return sum(row["seconds"] for row in self.lines.rows if row["split"] != "test") / 60

    def latencies_ms(self, members: Sequence[Architecture]) -> list[float]:
        """Return prices, each at the member's own resolution."""
        return [verdict.values[f"latency_ms/{self.device}"] for verdict in self.judge.verdicts(members)]

    def accuracy_pct(self, member: Architecture, split: Split = "validation") -> float:
        """Return a score, from the file where it holds it."""
        return float(self._row(member, split)["accuracy_pct"])

    def likelihood_pct(self, member: Architecture) -> float:
        """Return the mean probability of the right class, of validation: what single changes lose of it stands out of far less noise."""
        return float(self._row(member, "validation")["likelihood_pct"])

    def _row(self, member: Architecture, split: Split) -> dict[str, Any]:
        name = f"{self.space.facts(member)['chain']} at {member.genes[0]}"  # the same in a space of more anchors
        for row in self.lines.rows:
            if row["member"] == name and row["split"] == split:
                return row
        began_s = time.process_time()
        path, scored = self.evaluators[split]._path(member)
        with torch.no_grad():
            given = [(path(x).softmax(1).cpu(), y) for x, y in scored.plain(256)]
        right = torch.cat([p.argmax(1) == y for p, y in given]).double().mean()
        likely = torch.cat([p.gather(1, y[:, None])[:, 0] for p, y in given]).double().mean()
        figures = {"accuracy_pct": 100 * float(right), "likelihood_pct": 100 * float(likely), "seconds": time.process_time() - began_s}
        self.lines.add({"member": name, "split": split} | figures)
        return self.lines.rows[-1]


class Knapsack:
    """The best members within latencies, by what single changes lose.

    Args:
        scores: Of members.
        stitches: How many of the changes of anchor are scored, spread over the depth.
        known: Earlier results, from which the losses of single changes are taken; blocks that are not in them stay whole. None: all are scored.
    """

    def __init__(self, scores: Scores, stitches: int, known: Path | None = None) -> None:
        self.scores, self.space = scores, scores.space
        self.first = next(i for i, c in enumerate(self.space.choices) if WHOLE in c.values)
        wholes = [self.space.member(chain.name) for chain in self.space.anchors]
        self.best = max(wholes, key=scores.likelihood_pct)
        self.best_pct = scores.likelihood_pct(self.best)
        self.losses = self._singles(wholes) if known is None else self._known(known)
        self.sizes: dict[str, dict[str, float]] = {}
        self.routes = list(self._routes(wholes, stitches))

    def _lost(self, member: Architecture) -> float:
        return self.best_pct - self.scores.likelihood_pct(member)

    def _blocks(self, genes: Sequence[int | str]) -> list[int]:
        """Return the positions of genes of blocks that a member runs and that can be something else than whole."""
        forms = [form for chain in self.space.blocks(self.space.architecture(genes)).values() for form in chain[1:-1]]
        return [self.first + i for i, form in enumerate(forms) if form and len(self.space.choices[self.first + i].values) > 1]

    def _singles(self, wholes: Sequence[Architecture]) -> dict[int, dict[str, float]]:
        found = {}
        for whole in wholes:
            base = self._lost(whole)
            for i in self._blocks(whole.genes):
                members = {str(form): self._with(whole.genes, {i: str(form)}) for form in self.space.choices[i].values}
                found[i] = {form: 0.0 if form == WHOLE else max(0.0, self._lost(member) - base) for form, member in members.items()}
        return found

    def _known(self, path: Path) -> dict[int, dict[str, float]]:
        """Return the losses of an earlier result, by the position of the block's gene."""
        rows = {row["block"]: row["points_lost"] for row in json.loads(path.read_text())["singles"]}
        return {i: rows[choice.name] for i, choice in enumerate(self.space.choices) if choice.name in rows}

    def _with(self, genes: Sequence[int | str], forms: Mapping[int, str]) -> Architecture:
        return self.space.architecture([forms.get(i, gene) for i, gene in enumerate(genes)])

    def _routes(self, wholes: Sequence[Architecture], stitches: int) -> Iterator[Route]:
        """Yield every anchor at every size, and some changes of anchor at every size, as if sizes and changes lost on their own."""
        sizes = [str(size) for size in self.space.choices[0].values]
        for whole in wholes:
            for size in sizes:
                member = self.space.architecture((size, *whole.genes[1:]))
                self.sizes.setdefault(str(whole.genes[1]), {})[size] = self._lost(member) - self._lost(whole)
                yield Route(member.genes, self._lost(member))
        changed = [genes for genes in self.space.routes() if self.first > 2 and genes[2] != NONE]  # type: ignore[attr-defined]
        for genes in changed[:: max(1, len(changed) // stitches)] if stitches else []:
            lost = self._lost(self.space.architecture(genes))
            for size in sizes:
                yield Route((size, *genes[1:]), lost + self.sizes[genes[1]][size])

    def choices(self) -> Iterator[tuple[float, float, Architecture]]:
        """Yield (milliseconds, points lost, member): on every route the best forms of its blocks within each latency."""
        for route in self.routes:
            blocks = [i for i in self._blocks(route.genes) if i in self.losses]
            changed = [{str(form): self._with(route.genes, {i: str(form)}) for form in self.space.choices[i].values} for i in blocks]
            own_ms = self.scores.latencies_ms([self.space.architecture(route.genes)])[0]
            prices = [dict(zip(row, self.scores.latencies_ms(list(row.values())), strict=True)) for row in changed]
            least = [min(row.values()) for row in prices]
            floor_ms = own_ms + sum(value - own_ms for value in least)
            extra = [{form: value - low for form, value in row.items()} for row, low in zip(prices, least, strict=True)]
            for ms, loss, forms in best_forms(extra, [self.losses[i] for i in blocks], own_ms - floor_ms + 1e-9):
                member = self._with(route.genes, dict(zip(blocks, forms, strict=True)))
                yield floor_ms + ms, route.points_lost + loss, member

    def members(self, latencies: int) -> list[Architecture]:
        """Return the member that should lose least of each of so many spans of latency, equally wide from the least to that of the best anchor; empty spans have none."""
        found = list(self.choices())
        least_ms, most_ms = min(ms for ms, _, _ in found), self.scores.latencies_ms([self.best])[0]
        spans: dict[int, tuple[float, float, Architecture]] = {}
        for row in found:
            if row[0] > most_ms + 1e-6:
                continue
            span = min(int(latencies * (row[0] - least_ms) / (most_ms - least_ms)), latencies - 1)
            spans[span] = min(spans.get(span, row), row, key=lambda one: (one[1], one[0]))
        return list(dict.fromkeys(spans[span][2] for span in sorted(spans)))

    def within(self, share: float) -> list[Architecture]:
        """Return for each size of picture the member that should lose least within a share of the best anchor's latency."""
        limit_ms = share * self.scores.latencies_ms([self.best])[0]
        sizes: dict[str, tuple[float, float, Architecture]] = {}
        for row in self.choices():
            if row[0] <= limit_ms:
                size = str(row[2].genes[0])
                sizes[size] = min(sizes.get(size, row), row, key=lambda one: (one[1], one[0]))
        return [member for _, _, member in sizes.values()]


def front(args: argparse.Namespace) -> dict[str, Any]:
    """Return members by latency with their accuracies."""
    space = get_space(
        "chain",
        anchors=args.anchor,
        weights_dir=args.weights_dir,
        num_classes=10,
        changes=min(1, args.stitches),
        edits=tuple(args.edits.split(",")),
        importance=args.importance,
        resolution=parse_resolution(args.resolution) if args.resolution else None,
    )
    assert isinstance(space, ChainSpace)
    scores = Scores(args, space)
    knapsack = Knapsack(scores, args.stitches, args.known)
    rows = []
    members = knapsack.within(args.share) if args.share else knapsack.members(args.latencies)
    for member, ms in zip(members, scores.latencies_ms(members), strict=True):
        row = {
            "genes": list(member.genes),
            "chain": space.facts(member)["chain"],
            "latency_ms": ms,
            "validation_pct": scores.accuracy_pct(member),
        }
        rows.append(row)
    rows = least_beaten(sorted(rows, key=lambda row: float(row["latency_ms"])), args.members)
    minutes = scores.minutes
    if args.timed:
        graphs = [space.lower(space.architecture(row["genes"])) for row in rows]
        for row, ms in zip(rows, timed_ms(graphs), strict=True):
            row["local_ms"] = ms
    if args.test:
        for row in rows:
            row["test_pct"] = scores.accuracy_pct(space.architecture(row["genes"]), "test")
    alone = [space.member(chain.name) for chain in space.anchors]
    anchors = [{"anchor": a.genes[1], "latency_ms": ms} for a, ms in zip(alone, scores.latencies_ms(alone), strict=True)]
    for row, member in zip(anchors, alone, strict=True):
        row |= {f"{split}_pct": scores.accuracy_pct(member, split) for split in scores.evaluators if split == "validation" or args.test}
    split = "test_pct" if args.test else "validation_pct"
    return {
        "anchors": anchors,
        "device": args.device,
        "edits": args.edits,
        "importance": args.importance,
        "precision": scores.precision,
        "images": args.images,
        "validation": args.validation,
        "test": args.test,
        "side": args.side,
        "epochs": args.epochs,
        "processor_minutes": minutes,
        "members": len(rows),
        "ratio": rows[-1]["latency_ms"] / rows[0]["latency_ms"],
        "kendall_accuracy_latency": float(kendalltau([r[split] for r in rows], [r["latency_ms"] for r in rows]).statistic),
        "local_ratio": rows[-1]["local_ms"] / rows[0]["local_ms"] if args.timed else None,
        "front": rows,
        "sizes": knapsack.sizes,
        "singles": [{"block": space.choices[i].name, "points_lost": lost} for i, lost in knapsack.losses.items()],
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", action="append", required=True)
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--edits", default=",".join(EDITS), help="names joined by commas")
    parser.add_argument("--importance", default=IMPORTANCE, help="by which inner channels stay")
    parser.add_argument("--resolution", default="", help="of every member; default: a gene")
    parser.add_argument("--stitches", type=int, default=0, help="changes of anchor that are scored")
    parser.add_argument("--known", type=Path, help="earlier results, for what single changes lose")
    parser.add_argument("--latencies", type=int, default=LATENCIES)
    parser.add_argument(
        "--share", type=float, default=0.0, help="of the best anchor's latency: the best member of each size within it, instead of a front"
    )
    parser.add_argument("--members", type=int, default=60, help="of the front, at most")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--validation", type=int, default=500, help="pictures that choose")
    parser.add_argument("--test", type=int, default=0, help="pictures that the front is tested on")
    parser.add_argument("--timed", action="store_true", help="time the members on this machine, too, which takes a quiet one")
    parser.add_argument("--side", type=int, default=64, help="of the pictures of a member of the largest size")
    parser.add_argument("--epochs", type=int, default=0, help="of joint training; 0: nothing is trained")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--name", default="", help="of the file of results; default: by what was asked")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    found = front(args)
    (HERE / "results").mkdir(exist_ok=True)
    words = ["front", *args.anchor, args.device, *([] if args.edits == parser.get_default("edits") else args.edits.split(","))]
    words += [args.importance] if args.importance != IMPORTANCE else []
    words += [f"{args.epochs}-epochs"] if args.epochs else []
    words += [f"within-{args.share:g}"] if args.share else []
    (HERE / "results" / f"{args.name or '-'.join(words)}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key not in ("front", "singles")}, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
