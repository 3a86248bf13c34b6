"""What each part of a recipe is worth to a hybrid that trains from nothing: a teacher, averaged weights, mixed pictures, an inherited stem.

    python teachers.py --data /tmp/cifar-1000 --work /tmp/teachers

A supernet of ``hybrid-s`` trains for a few epochs; one member taken out of it is fine-tuned again and again, alike but for the one thing, as a search does it. The
stem is inherited by the same member with fresh weights, beside one that does not. Validation decides. Needs the weights of the extra `anchors`. What is done is kept in ``--work``,
``results/teachers.json`` has all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.runs.choice import mcnemar_p
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.probe import ProbeEvaluator
from nas.training.supernet.batches import Augmentation, Batches
from nas.training.supernet.finetune import FINETUNING, finetune, fresh
from nas.training.supernet.statistics import predictions
from nas.training.supernet.teacher import Teacher
from nas.training.supernet.train import Recipe, member_recipe, train
from nas.training.supernet.weights import Supernet
from nas.training.transfer.recipe import transfer_recipe
from nas.training.transfer.tuning import Tuning

HERE = Path(__file__).parent


def main() -> None:
    """Train every variant, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4000, help="of train")
    parser.add_argument("--supernet-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4, help="of each fine-tuning")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--teacher-side", type=int, default=96)
    parser.add_argument("--only", nargs="*", default=[], help="variants; default: all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = load_dataset(given.data, seed=0)
    dataset = dataset.thinned("train", given.pictures).thinned("validation", min(1000, dataset.count("validation")))
    space = get_elastic_space("hybrid-s", num_classes=dataset.num_classes, resolution=(given.side, given.side))
    member = space.sample(np.random.default_rng(3))
    recipe = replace(member_recipe(dataset), epochs=given.supernet_epochs)
    shared = train(space, dataset, given.work / "supernet.safetensors", recipe, resolution=(given.side, given.side), device="cpu").supernet
    variants = {name: make for name, make in _variants(given, dataset).items() if not given.only or name in given.only}
    for name, make in variants.items():
        note = given.work / f"{name}-{given.seed}.json"
        if not note.is_file():
            note.write_text(json.dumps(_trained(shared, member, dataset, name, make, given)))
        found = json.loads(note.read_text())
        print(name, {key: value for key, value in found.items() if key != "right"}, flush=True)
    _write(given, dataset, space, member)


def _variants(given: argparse.Namespace, dataset: Dataset) -> dict[str, Callable[[nn.Module], tuple[Recipe, Teacher | None]]]:
    base = replace(FINETUNING, epochs=given.epochs)
    alone = replace(member_recipe(dataset), epochs=given.epochs)
    plain = Augmentation()

    def taught(tuned: bool, share: float) -> Callable[[nn.Module], tuple[Recipe, Teacher | None]]:
        return lambda _module: (replace(base, distillation=share), _teacher(given, dataset, tuned))

    def inherits(module: nn.Module) -> tuple[Recipe, Teacher | None]:
        _inherit_stem(module, given.network, dataset)
        return alone, None

    return {
        "plain": lambda _module: (base, None),
        "probe, share 0.5": taught(False, 0.5),
        "averaged over 0.05": lambda _module: (replace(base, window=0.05), None),
        "tuned, share 0.5": taught(True, 0.5),
        "tuned, share 0.9": taught(True, 0.9),
        "mixup 0.2": lambda _module: (replace(base, augmentation=replace(plain, mixup=0.2)), None),
        "cutmix 1.0": lambda _module: (replace(base, augmentation=replace(plain, cutmix=1.0)), None),
        "RandAugment, 2 at 0.3": lambda _module: (replace(base, augmentation=replace(plain, operations=2)), None),
        "fresh": lambda _module: (alone, None),
        "fresh, stem inherited": inherits,
        "probe, share 0.9": taught(False, 0.9),
    }


def _trained(
    shared: Supernet,
    member: Architecture,
    dataset: Dataset,
    name: str,
    make: Callable[[nn.Module], tuple[Recipe, Teacher | None]],
    given: argparse.Namespace,
) -> dict[str, Any]:
    size, path = (given.side, given.side), given.work / f"{name}-{given.seed}.safetensors"
    alone = name.startswith("fresh")
    if alone:  # published networks start with a convolution of 3 x 3
        member = shared.space.architecture((member.genes[0], "convolutions", *member.genes[2:]))
    module = (
        fresh(shared.space, member, num_classes=dataset.num_classes, resolution=size, seed=0) if alone else shared.extract(member, size)
    )
    recipe, teacher = make(module)
    began_s = time.process_time()
    done = finetune(module, member, dataset, path, recipe, resolution=size, seed=given.seed, teacher=teacher)
    return {
        "validation_pct": round(done.validation_accuracy_pct, 2),
        "by_epoch": [round(entry["validation_accuracy_pct"], 2) for entry in done.history],
        "processor_s": round(time.process_time() - began_s, 1),
        "right": "".join("1" if one else "0" for one in done.right),
    }


def _teacher(given: argparse.Namespace, dataset: Dataset, tuned: bool) -> Teacher:
    """Return the scores of a published network: of its probe, or of the network after an epoch of fine-tuning from it."""
    file = given.work / f"teacher-{'tuned' if tuned else 'probe'}.npz"
    if not file.is_file():
        began_s = time.process_time()
        zoo = _zoo(dataset)
        evaluator = ProbeEvaluator(zoo, dataset)
        one = zoo.member(given.network, (given.teacher_side, given.teacher_side))
        own, size = evaluator.pictures_of(one), zoo.size_of(one)
        network = evaluator.module(one, size)
        if tuned:
            recipe = transfer_recipe(own.count("train"), 1)
            tuning = Tuning(
                network, own, size, given.work / "tuning.safetensors", recipe, own.count("train") // recipe.batch, one.to_json()
            )
            tuning.advance(tuning.steps)
            network = tuning.averaged()
        train, validation = (Batches(own, split, size, torch.device("cpu")) for split in ("train", "validation"))
        with torch.no_grad():
            scores = torch.cat([network(x) for x, _ in train.plain(64)])
        right = np.mean(predictions(network, validation, 64) == validation.labels.numpy())
        took_s = time.process_time() - began_s
        np.savez(file, scores=scores.numpy(), accuracy_pct=100 * right, processor_s=took_s)
        train_pct = 100 * float((scores.argmax(1) == train.labels).double().mean())
        print("teacher", tuned, f"{100 * right:.1f} % of validation, {train_pct:.1f} % of train, {took_s:.0f} s", flush=True)
    return Teacher(given.network, torch.from_numpy(np.load(file)["scores"]))


def _zoo(dataset: Dataset):  # type: ignore[no-untyped-def]
    from nas.spaces.space import spaces

    return spaces.get("zoo").make("", num_classes=dataset.num_classes)


def _inherit_stem(module: nn.Module, network: str, dataset: Dataset) -> None:
    """Give the first convolution the filters of a published network's first that are largest, cut or padded to its window."""
    opened, _ = _zoo(dataset).pretrained(network)
    own, other = (next(m for m in net.modules() if isinstance(m, nn.Conv2d)) for net in (module, opened.module))
    weight: Tensor = other.weight.detach()
    chosen = weight.flatten(1).norm(dim=1).argsort(descending=True)[: own.weight.shape[0]]
    print("stem", tuple(weight.shape), "->", tuple(own.weight.shape), flush=True)
    if own.weight.shape[2:] != weight.shape[2:]:
        raise SystemExit(f"stem: windows differ, {tuple(weight.shape)} and {tuple(own.weight.shape)}")
    with torch.no_grad():
        own.weight[: len(chosen)].copy_(weight[chosen])


def _write(given: argparse.Namespace, dataset: Dataset, space: ElasticSpace, member: Architecture) -> None:
    notes = {note.stem.rpartition("-")[0]: json.loads(note.read_text()) for note in sorted(given.work.glob(f"*-{given.seed}.json"))}
    right = {name: np.array([mark == "1" for mark in row.pop("right")]) for name, row in notes.items()}
    rows = {}
    for name, row in notes.items():
        beside = "fresh" if name.startswith("fresh") else "plain"
        rows[name] = row | {f"mcnemar_p_against_{beside}": round(mcnemar_p(right[name], right[beside]), 4)} if beside in right else row
    teachers = {
        file.stem: {name: round(float(np.load(file)[name]), 2) for name in ("accuracy_pct", "processor_s")}
        for file in sorted(given.work.glob("teacher-*.npz"))
    }
    found: dict[str, Any] = {"rows": rows, "teachers": teachers, "member": member.to_json(), "macs": space.lower(member).cost.macs}
    found |= {"settings": {k: str(v) for k, v in vars(given).items() if k not in ("data", "work", "only")}}
    found |= {"data": f"{dataset.name} {dataset.key}", "pictures": [dataset.count("train"), dataset.count("validation")]}
    found |= {"torch": torch.__version__, "load": os.getloadavg(), "date": datetime.now(UTC).date().isoformat()}
    (HERE / "results" / "teachers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
