"""Twelve layers of a small transformer against six, four and three: trained side by side on a schedule, merged exactly, timed.

    python experiments/019_anchors/layers.py --data ../shared/data/cifar10_jpeg.tar.xz --out /tmp/layers

Each arrangement of `vit-parallel-n` is trained from nothing by the supernet's own training, with itself as its only member, for equal epochs on equal pictures.
Parameters, multiply-adds and times are of the merged networks at 224 pixels, timed in turn in ONNX Runtime on one thread. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from study import Lines

from nas.devices.measure import measure_in_turn
from nas.graphs.onnx_writer import write_onnx
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_space
from nas.spaces.operator_family import fuse
from nas.training.dataset import Dataset, load_dataset
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.statistics import predictions
from nas.training.supernet.train import Recipe, train
from search_spaces.vit import ARRANGEMENTS

HERE = Path(__file__).parent
WIDTH = 48


def arrangements(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield each arrangement with each way in which its branches are joined; twelve layers have none to join."""
    for arrangement in args.arrangements:
        yield from ((arrangement, join) for join in (args.joins[:1] if arrangement == ARRANGEMENTS[0] else args.joins))


def member_of(space: ElasticSpace, arrangement: str, joins: str) -> Architecture:
    """Return the member of an arrangement; `joins` are those of its attention and its perceptrons."""
    return space.architecture([space.choices[0].values[0], WIDTH, arrangement, *joins.split(",")])


def trained(args: argparse.Namespace, dataset: Dataset, arrangement: str, joins: str, seed: int) -> dict[str, object]:
    """Return what an arrangement is worth after its training, branched and merged."""
    size = (args.side, args.side)
    space = get_space("vit-parallel-n", num_classes=dataset.num_classes, resolution=size)
    assert isinstance(space, ElasticSpace)
    member, began_s = member_of(space, arrangement, joins), time.process_time()
    recipe = Recipe(epochs=args.epochs, batch=64, learning_rate=args.learning_rate, random_members=1, methods=("single-path",))
    path = args.out / f"{arrangement}-{joins}-{seed}.safetensors"
    found = train(space, dataset, path, recipe, resolution=size, seed=seed, device="cpu", draw=lambda _step, count: [member] * count)
    minutes = (time.process_time() - began_s) / 60
    module = found.supernet.extract(member).eval()
    merged = fuse(module)
    test = Batches(dataset, "test", size, torch.device("cpu"))
    x = next(test.plain(64))[0]
    with torch.no_grad():
        difference = float((module.double()(x.double()) - fuse(module.double())(x.double())).abs().max())
    module.float()
    test_pct = 100 * float(np.mean(predictions(merged, test) == test.labels.numpy()))
    return {
        "arrangement": arrangement,
        "joins": joins,
        "seed": seed,
        "test_pct": test_pct,
        "merging_changes": difference,
        "processor_minutes": minutes,
    }


def costs(args: argparse.Namespace) -> list[dict[str, object]]:
    """Return parameters, multiply-adds and milliseconds of each arrangement at 224 pixels, merged."""
    space = get_space("vit-parallel-n", num_classes=10, resolution=(224, 224))
    assert isinstance(space, ElasticSpace)
    rows = list(arrangements(args))
    graphs = [space.lower(member_of(space, *row)) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.onnx" for i in range(len(rows))]
        for graph, path in zip(graphs, paths, strict=True):
            write_onnx(graph, path, np.random.default_rng(0))
        timed = measure_in_turn(paths)
    return [
        {"arrangement": arrangement, "joins": own, "params": graph.cost.params, "macs": graph.cost.macs, "onnxruntime_ms": found.median_ms}
        for (arrangement, own), graph, (found, _) in zip(rows, graphs, timed, strict=True)
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arrangements", nargs="+", choices=ARRANGEMENTS, default=ARRANGEMENTS, help="layers x branches")
    parser.add_argument(
        "--joins", nargs="+", default=["sum,sum"], help="of attention and perceptrons: sum, heads or logit, and sum or concat"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = Lines(args.out / "layers.jsonl")
    for seed in range(args.seeds):
        dataset = load_dataset(args.data, seed=seed, images=args.images)
        for arrangement, joins in arrangements(args):
            if not lines.has(arrangement=arrangement, joins=joins, seed=seed):
                lines.add(trained(args, dataset, arrangement, joins, seed))
    facts = {"images": args.images, "side": args.side, "epochs": args.epochs, "width": WIDTH, "torch": torch.__version__}
    words = ["layers", *([] if args.joins == parser.get_default("joins") else args.joins)]
    (HERE / "results" / f"{'-'.join(words)}.json").write_text(
        json.dumps(facts | {"costs": costs(args), "trained": lines.rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
