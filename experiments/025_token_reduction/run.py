"""What token reductions cost and give: members of `vit-tokens-n` that differ in nothing else, each trained alone from the same fresh weights.

    python experiments/025_token_reduction/run.py --data digits --epochs 6
    python experiments/025_token_reduction/run.py --data cifar-pictures/ --name cifar10-jpeg --images 5000 --epochs 5

Writes ``results/NAME.json``, a row a member: accuracy on validation pictures of the module and of its exported file, multiply-adds, the processor time of that file
(one picture, one thread, the median of runs in ONNX Runtime), how far the file is from the module, and what a latency model says of the member on a phone's NPU at
224 pixels. Zero-TPrune stands there twice: trained, and put into the plain member's weights without training. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nas.devices.predictor import load_predictor
from nas.devices.profile import find_profile, load_profile
from nas.graphs.onnx_session import onnx_session
from nas.spaces.naming import get_elastic_space
from nas.spaces.token_reduction import KEEPS, token_reductions
from nas.testing.operators import relative_error
from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import FINETUNING, finetune, fresh
from nas.training.supernet.statistics import predictions

HERE = Path(__file__).parent
DEVICE = "samsung-galaxy-s24"
SIDE = (20, 20)
"""Of the pictures: a hundred patches, where 224 pixels have 196."""
RUNS = 51


def accuracy_pct(module: torch.nn.Module, dataset: Dataset) -> float:
    """Return the accuracy on validation pictures."""
    batches = Batches(dataset, "validation", SIDE, torch.device("cpu"))
    return round(100 * float(np.equal(predictions(module.eval(), batches), batches.labels.numpy()).mean()), 2)


def exported(module: torch.nn.Module, path: Path, dataset: Dataset) -> dict[str, float]:
    """Export, reload and compare a module; return the difference, the processor time of a run and the file's own accuracy on validation pictures."""
    x = torch.randn(1, 3, *SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module.eval()(x)
        torch.onnx.export(module, (x,), str(path), dynamo=True, opset_version=18, verbose=False, external_data=False)
    session = onnx_session(path, threads=1)
    feeds = {session.get_inputs()[0].name: x.numpy()}
    times = []
    for _ in range(RUNS):
        began = time.process_time()
        (found,) = session.run(None, feeds)
        times.append(time.process_time() - began)
    batches = Batches(dataset, "validation", SIDE, torch.device("cpu"))
    (name,) = feeds
    right = [int(session.run(None, {name: x.numpy()})[0].argmax()) == int(label) for x, label in batches.plain(1)]
    return {
        "file_differs_by": relative_error(torch.from_numpy(found), expected),
        "processor_ms": round(1000 * float(np.median(times)), 3),
        "file_accuracy_pct": round(100 * float(np.mean(right)), 2),
    }


def main() -> None:
    """Train, measure and write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--name", help="of the results; by default the data set's")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("runs/token_reduction"), help="folder of checkpoints and files")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(args.data, images=args.images)
    space = get_elastic_space("vit-tokens-n", num_classes=dataset.num_classes)
    profile = load_profile(DEVICE)
    predictor = load_predictor(profile, profile.default_precision, find_profile(profile.name).parent)
    recipe = replace(FINETUNING, epochs=args.epochs, learning_rate=3e-3)
    name_of_data = args.name or args.data
    out = HERE / "results" / f"{name_of_data}.json"
    out.parent.mkdir(exist_ok=True)
    done = json.loads(out.read_text()) if out.is_file() else {"rows": []}
    source = args.data if args.name is None else f"FOLDER --name {args.name}"
    command = f"python experiments/025_token_reduction/run.py --data {source} --images {args.images} --epochs {args.epochs}"
    done |= {"command": command, "torch": torch.__version__, "machine": platform.platform(), "seed": 0}
    done |= {"pictures": dataset.count("train"), "validation_pictures": dataset.count("validation")}
    names = ["all", *(f"{name}:{keep}" for keep in KEEPS for name in token_reductions.names())]
    plain: dict[str, torch.Tensor] = {}
    for name in names:
        member = space.architecture(["224x224", 48, 4, *[3, "4"] * 4, name])
        module = fresh(space, member, num_classes=dataset.num_classes, resolution=SIDE, seed=0)
        checkpoint = args.work / f"{name_of_data}-{name.replace(':', '-')}.safetensors"
        began = time.process_time()
        finetune(module, member, dataset, checkpoint, recipe, resolution=SIDE, seed=0)
        seconds = round(time.process_time() - began, 1)
        if name == "all":
            plain = module.state_dict()
        if any(row["tokens"] == name for row in done["rows"]):
            continue
        graph = space.lower(member)
        estimate = predictor.estimate(graph, profile, profile.default_precision)
        row: dict[str, object] = {"tokens": name, "accuracy_pct": accuracy_pct(module, dataset), "mmacs": round(graph.cost.macs / 1e6, 2)}
        row |= {"training_processor_s": seconds, **exported(module, args.work / "member.onnx", dataset)}
        row |= {"estimated_ms": None if estimate.unsupported else round(estimate.latency_ms, 3), "unsupported": list(estimate.unsupported)}
        if name.startswith("zero-tprune"):
            module.load_state_dict(plain)
            row["accuracy_untrained_pct"] = accuracy_pct(module, dataset)
        done["rows"].append(row)
        out.write_text(json.dumps(done, indent=1) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
