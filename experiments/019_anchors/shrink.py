"""A trained network to a share of its latency on a device: what `chain` makes of it beside its peers, each fine-tuned for the same processor minutes.

    pip install 'hardware-aware-nas[anchors]' torch-pruning nvidia-modelopt torchprofile==0.0.4
    python experiments/019_anchors/shrink.py --data ../shared/data/cifar10_jpeg.tar.xz --weights-dir /tmp/anchors/weights \\
        --front experiments/019_anchors/results/front-mobilenetv2_100-sa8295p.json --out /tmp/shrink

Peers: the network as it is (what the minutes alone are worth); its widths times .75 and .5, leading channels of the trained weights; torch-pruning's loop
(groups of coupled channels by their norm, over the whole network, until the latency is reached); FastNAS of nvidia-modelopt (scores of a thousand validation
pictures, multiply-adds lowered until the latency is reached; it knows torchvision's modules, not timm's, so the weights move there by order); the network itself and EfficientNet-Lite0 at the largest
input that is as fast. Latencies are predicted at 224 pixels; a network whose input is smaller by a share is trained at `--side` times that share. Validation
chooses, beside FastNAS's forms and the front's member, each training's epoch; the test pictures are read once, at the end of each. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import EDITS, IMPORTANCE, Lines
from torch import nn

from nas.devices.measure import measure_in_turn
from nas.errors import UsageError
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import Graph
from nas.graphs.onnx_writer import write_onnx
from nas.graphs.passes import normalise
from nas.runs.targets import load_targets
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.operator_family import fuse
from nas.spaces.pretrained import open_pretrained
from nas.spaces.pretrained.classifier import classifier_of, replace_classifier
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import FINETUNING, finetune
from nas.training.supernet.fitting import fit
from nas.training.supernet.statistics import predictions
from nas.training.supernet.teacher import Teacher
from nas.training.supernet.weights import Supernet
from nas.units import parse_resolution

HERE = Path(__file__).parent
OTHER = "tf_efficientnet_lite0"
SIZES = range(96, 224, 16)
LOCAL = "local-cpu"


class Prices:
    """Latencies of modules on a device: predicted, or timed on this machine in turn with the anchor, which then has the time that it had at first.

    Args:
        device: Its name; ``local-cpu`` is ONNX Runtime on one thread.
        anchor: What is made faster.
        folder: Where the anchor's file is kept.
    """

    def __init__(self, device: str, anchor: nn.Module, folder: Path) -> None:
        self.precision: str = "fp32"
        self.target, self.anchor_path = None if device == LOCAL else load_targets([device])[0], folder / "anchor.onnx"
        if self.target is not None:
            self.precision = self.target.precision
            self.anchor_ms = self.latency_ms(anchor)
        else:
            self.anchor_path.unlink(missing_ok=True)
            write_onnx(self.graph(anchor), self.anchor_path, np.random.default_rng(0))
            self.anchor_ms = measure_in_turn([self.anchor_path])[0][0].median_ms

    @staticmethod
    def graph(module: nn.Module, side: int = 224) -> Graph:
        """Return what is deployed of a network at a size of picture."""
        return normalise(trace_module(fuse(module), (1, 3, side, side), "network"))

    def latency_ms(self, module: nn.Module, side: int = 224) -> float:
        """Return what a network takes at a size of picture."""
        graph = self.graph(module, side)
        if self.target is not None:
            assert self.target.predictor is not None
            return float(self.target.predictor.estimate(graph, self.target.profile, self.precision).latency_ms)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_onnx(graph, path, np.random.default_rng(0))
            anchor, own = (found.median_ms for found, _ in measure_in_turn([self.anchor_path, path]))
        return self.anchor_ms * own / anchor


def trained(name: str, folder: Path | None) -> nn.Module:
    """Return an anchor with its fine-tuned weights, or with its published ones and a new classifier."""
    if folder is not None:
        return open_pretrained(name, folder=folder, num_classes=10).module
    module = open_pretrained(name).module
    replace_classifier(module, classifier_of(module, (1, 3, 224, 224)), 10)
    return module


def sliced(folder: Path | None, name: str, share: str) -> nn.Module:
    """Return a narrower MobileNetV2 whose weights are the leading channels of the trained one's."""
    whole, narrow = trained(name, folder).state_dict(), open_pretrained(f"mobilenetv2_{share}", weights="random", num_classes=10).module
    narrow.load_state_dict({key: whole[key][tuple(slice(side) for side in own.shape)] for key, own in narrow.state_dict().items()})
    return narrow


def pruned(folder: Path | None, name: str, prices: Prices, target_ms: float) -> nn.Module:
    """Return what torch-pruning's loop leaves of a network when it is fast enough."""
    import torch_pruning

    module = trained(name, folder).eval()
    pruner = torch_pruning.pruner.MetaPruner(
        module,
        torch.randn(1, 3, 224, 224),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.9,
        iterative_steps=60,
        ignored_layers=[module.get_submodule("classifier")],
        round_to=8,
    )
    for _ in range(60):
        if prices.latency_ms(module) <= target_ms:
            return module
        pruner.step()
    raise UsageError(
        f"torch-pruning: is not fast enough after its last step, got {prices.latency_ms(module):.3f} ms. Expected {target_ms:.3f}."
    )


def fastnas(args: argparse.Namespace, dataset: Dataset, prices: Prices, target_ms: float) -> nn.Module:
    """Return what FastNAS makes of a network at the largest share of its multiply-adds that is fast enough."""
    import modelopt.torch.prune
    from torchvision.models import mobilenet_v2

    size = (args.side, args.side)
    loader = list(Batches(dataset, "train", size, torch.device("cpu")).plain(256, torch.arange(1024)))
    x, y = next(iter(Batches(dataset, "validation", size, torch.device("cpu")).plain(1000)))

    def score(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module.eval()(x).argmax(1) == y).float().mean())

    for percent in range(min(95, round(100 * args.share) + 15), 20, -5):  # milliseconds fall no faster than multiply-adds
        module = mobilenet_v2(num_classes=10)
        weights = trained(args.anchor, args.weights_dir).state_dict().values()
        module.load_state_dict(dict(zip(module.state_dict(), weights, strict=True)))
        settings = {"data_loader": loader, "score_func": score, "checkpoint": str(args.out / "fastnas.pth"), "verbose": False}
        module, _ = modelopt.torch.prune.prune(
            module, mode="fastnas", constraints={"flops": f"{percent}%"}, dummy_input=x[:1], config=settings
        )
        if prices.latency_ms(module) <= target_ms:
            return module
    raise UsageError(f"fastnas: is not fast enough at a fifth of its multiply-adds, got {prices.latency_ms(module):.3f} ms.")


def fitting_side(module: nn.Module, prices: Prices, target_ms: float) -> int:
    """Return the largest input at which a network is fast enough."""
    return max(side for side in SIZES if prices.latency_ms(module, side) <= target_ms)


class Trainings:
    """Trainings of equal processor minutes, one row each.

    Args:
        args: Of the command line.
        prices: Of the device.
        dataset: Whose pictures are learned, validated and tested.
    """

    def __init__(self, args: argparse.Namespace, prices: Prices, dataset: Dataset) -> None:
        self.args, self.prices, self.dataset = args, prices, dataset
        self.lines = Lines(args.out / f"shrink-{args.device}-{args.share:g}.jsonl")

    def run(self, name: str, make: Callable[[], tuple[nn.Module, Architecture, int]], teacher: Teacher | None = None) -> None:
        """Train a network for the minutes and add its row, unless it is there or was not asked for."""
        args = self.args
        key = {"network": name, "seed": args.seed, "learning_rate": args.learning_rate, "batch": args.batch}
        if args.importance != IMPORTANCE and name.startswith("chain"):
            key["importance"] = args.importance
        if self.lines.has(**key) or (args.only and name not in args.only.split(";")):
            return
        try:
            module, member, side = make()
        except UsageError as error:
            self.lines.add(key | {"why_not": str(error)})
            return
        size = max(32, round(args.side * side / 224 / 8) * 8)
        began_s, wall_s = time.process_time(), time.monotonic()

        def left_s() -> float:
            """Return the processor seconds that are left as seconds of the clock."""
            used_s = time.process_time() - began_s
            return (60 * args.minutes - used_s) * (time.monotonic() - wall_s) / max(used_s, 1e-3)

        recipe = replace(FINETUNING, epochs=60, batch=args.batch, learning_rate=args.learning_rate)
        label = "-".join((name, *([key["importance"]] if "importance" in key else [])))
        path = args.out / f"{args.device}-{args.share:g}-{label}-{args.learning_rate:g}-{args.batch}-{args.seed}.safetensors"
        done = finetune(module, member, self.dataset, path, recipe, resolution=(size, size), seed=args.seed, left_s=left_s, teacher=teacher)
        minutes = (time.process_time() - began_s) / 60
        test = Batches(self.dataset, "test", (size, size), torch.device("cpu"))
        test_pct = 100 * float(np.mean(predictions(done.module, test) == test.labels.numpy()))
        row = key | {"latency_ms": self.prices.latency_ms(done.module, side), "input": side, "trained_at": size}
        row |= {"epochs": len(done.history), "validation_pct": done.validation_accuracy_pct, "test_pct": test_pct}
        if self.prices.target is None:
            path.with_suffix(".onnx").unlink(missing_ok=True)
            write_onnx(self.prices.graph(done.module, side), path.with_suffix(".onnx"), np.random.default_rng(0))
            row["file"] = path.with_suffix(".onnx").name
        self.lines.add(row | {"processor_minutes": minutes})

    def timed(self) -> list[dict[str, Any]]:
        """Return the rows with all networks timed in turn, which takes a quiet machine."""
        done = [row for row in self.lines.rows if "file" in row]
        times = measure_in_turn([self.args.out / row["file"] for row in done], rounds=9)
        for row, (found, _) in zip(done, times, strict=True):
            row["latency_ms"] = found.median_ms
        return [{key: value for key, value in row.items() if key != "file"} for row in self.lines.rows]


def peer(name: str) -> Architecture:
    """Return what a training calls a network that is no member of a space."""
    return Architecture("peer", 1, (name,))


class Fronts:
    """Members of fronts (`front.py`) with the weights with which a search scores them.

    Args:
        args: Of the command line.
        dataset: Of the trainings.
    """

    def __init__(self, args: argparse.Namespace, dataset: Dataset) -> None:
        self.args, self.dataset = args, dataset

    @cached_property
    def evaluator(self) -> SupernetEvaluator:
        """Of the anchor's space, sizes of pictures among its genes."""
        space = get_space(
            "chain",
            anchors=[self.args.anchor],
            weights_dir=self.args.weights_dir,
            num_classes=10,
            edits=EDITS,
            importance=self.args.importance,
        )
        supernet = Supernet(space, 10, (self.args.side, self.args.side))
        fit(supernet, lambda size: Batches(self.dataset, "train", size, torch.device("cpu")))
        return SupernetEvaluator(supernet, self.dataset)

    def member(self, front: Path, limit_ms: float) -> tuple[nn.Module, Architecture, int]:
        """Return the member that validation likes best untrained, among those of a front that are fast enough."""
        rows = [row for row in json.loads(front.read_text())["front"] if row["latency_ms"] <= limit_ms]
        if not rows:
            raise UsageError(f"{front}: has no member within {limit_ms:.3f} ms.")
        return self.made(max(rows, key=lambda row: row["validation_pct"])["genes"])

    def made(self, genes: Sequence[int | str]) -> tuple[nn.Module, Architecture, int]:
        """Return a member with its weights before any training, and the size of its pictures."""
        space = self.evaluator.supernet.space
        member = space.architecture(genes)
        size = space.proxy(member, self.evaluator.supernet.resolution)
        return self.evaluator.module(member, size), member, parse_resolution(str(member.genes[0]))[0]

    @cached_property
    def teacher(self) -> Teacher:
        """The anchor's own scores of the training pictures."""
        module = trained(self.args.anchor, self.args.weights_dir).eval()
        train = Batches(self.dataset, "train", (self.args.side, self.args.side), torch.device("cpu"))
        with torch.no_grad():
            scores = torch.cat([module(x) for x, _ in train.plain(256)])
        return Teacher.of(self.args.anchor, scores.numpy())


def main() -> None:
    """Run all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", default="mobilenetv2_100")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--share", type=float, default=0.7, help="of the anchor's latency")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=4.0, help="of processor time, each")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--weights-dir", type=Path, help="of fine-tuned anchors; default: the published weights")
    parser.add_argument("--importance", default=IMPORTANCE, help="by which inner channels of a chain stay, as the front has it")
    parser.add_argument("--front", type=Path, required=True, help="results of front.py for the same anchor and device")
    parser.add_argument("--sizes", type=Path, help="likewise, with --share: all of its members are trained too")
    parser.add_argument("--merged-front", type=Path, help="likewise, with --edits merge: members of it are trained too")
    parser.add_argument("--faster", type=float, nargs="+", default=[1.3], help="how many times as fast as the anchor these are")
    parser.add_argument("--only", default="", help="names of networks, joined by semicolons; default: all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(args.data, seed=args.seed, images=args.images)
    prices = Prices(args.device, trained(args.anchor, args.weights_dir), args.out)
    anchor_ms = prices.anchor_ms
    target_ms = args.share * anchor_ms
    own_ms = {row.get("name"): row["latency_ms"] for row in json.loads(args.front.read_text())["front"]}.get("as it is", anchor_ms)
    limit_ms = args.share * own_ms  # as the anchor was on the day on which the front was timed
    trainings = Trainings(args, prices, dataset)

    def at(name: str, module: nn.Module) -> tuple[nn.Module, Architecture, int]:
        return module, peer(name), fitting_side(module, prices, target_ms)

    fronts = Fronts(args, dataset)
    trainings.run("chain", lambda: fronts.member(args.front, limit_ms))
    if not args.only or "chain, taught" in args.only:
        trainings.run("chain, taught", lambda: fronts.member(args.front, limit_ms), fronts.teacher)
    for row in json.loads(args.sizes.read_text())["front"] if args.sizes else []:
        trainings.run(f"chain at {row['genes'][0]}", lambda row=row: fronts.made(row["genes"]))  # type: ignore[misc]
    for faster in args.faster if args.merged_front else ():
        trainings.run(f"merged, {faster:g} times", lambda faster=faster: fronts.member(args.merged_front, anchor_ms / faster))  # type: ignore[misc]
    trainings.run("as it is", lambda: (trained(args.anchor, args.weights_dir), peer("as it is"), 224))
    trainings.run("torch-pruning", lambda: (pruned(args.weights_dir, args.anchor, prices, target_ms), peer("torch-pruning"), 224))
    trainings.run("fastnas", lambda: (fastnas(args, dataset, prices, target_ms), peer("fastnas"), 224))
    for name, share in (("times .75", "075"), ("times .5", "050")):
        trainings.run(name, lambda share=share, name=name: (sliced(args.weights_dir, args.anchor, share), peer(name), 224))  # type: ignore[misc]
    trainings.run("smaller input", lambda: at("smaller input", trained(args.anchor, args.weights_dir)))
    trainings.run("Lite0, smaller input", lambda: at("Lite0", trained(OTHER, args.weights_dir)))
    rows = trainings.lines.rows
    if args.device == LOCAL:
        rows = trainings.timed()
        anchor_ms = next((row["latency_ms"] for row in rows if row["network"] == "as it is"), anchor_ms)
    facts = {"anchor": args.anchor, "device": args.device, "precision": prices.precision, "images": args.images}
    facts |= {
        "side": args.side,
        "minutes": args.minutes,
        "anchor_ms": anchor_ms,
        "target_ms": args.share * anchor_ms,
        "torch": torch.__version__,
    }
    kind = "".join(("" if args.weights_dir else "-published", "" if args.side == 64 else f"-{args.side}px"))
    (HERE / "results" / f"shrink-{args.device}{kind}.json").write_text(json.dumps(facts | {"networks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
