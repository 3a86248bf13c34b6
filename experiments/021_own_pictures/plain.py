"""The peer: one published network fine-tuned as a plain script would, for so many processor minutes, then tested once.

    python experiments/021_own_pictures/plain.py --data /tmp/cifar-1000 --network tf_efficientnet_lite0 --size 96 --minutes 25

New head, everything trained at one rate, AdamW with warm-up and cosine, flips and shifts, label smoothing 0.1, batch norms as in training; no search, no
probe, no averaged weights. Steps are timed first, and so many are planned as fit. Validation is split off as in a search and not used.

With `--from-scratch` weights are random: a network of timm, or `resnet-0.3m`, the residual network for small pictures of He et al. (arXiv 1512.03385, section 4.2,
n = 3; 0.27 M parameters). `--optimizer sgd --rate 0.1` is their way to train it.
"""

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nas.spaces.pretrained import open_pretrained
from nas.spaces.pretrained.classifier import classifier_of, replace_classifier
from nas.spaces.pretrained.libraries import normalisation_of
from nas.training.dataset import load_dataset
from nas.training.memory import keep_freed_memory
from nas.training.supernet.batches import Augmentation, Batches
from nas.training.supernet.statistics import predictions
from nas.training.supernet.train import Recipe, learning_rate_at, optimizer_of

HERE = Path(__file__).parent
WARM_STEPS, TIMED_STEPS = 10, 40
"""Steps before those that are timed: the first are slower. Until 30 November 2026 the first ten were timed, and a peer had .77 to 1.09 of its minutes."""
SMALL = "resnet-0.3m"


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.past = nn.Identity() if (before, stride) == (width, 1) else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.past(x))


class SmallResNet(nn.Sequential):
    """(n, 3, h, w) -> (n, classes): three stages of three blocks, 16, 32 and 64 channels.

    Args:
        classes: Their number.
    """

    def __init__(self, classes: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        before = 16
        for width in (16, 32, 64):
            for i in range(3):
                layers.append(_Block(before, width, 2 if width > 16 and i == 0 else 1))
                before = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def main() -> None:
    """Train, test, and write ``results/plain-NETWORK-SIZE-MINUTES-SEED.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=25.0, help="processor minutes of training")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    parser.add_argument("--from-scratch", action="store_true", help="random weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    began_s, size = time.monotonic(), (given.size, given.size)
    keep_freed_memory()
    torch.manual_seed(given.seed)
    dataset = load_dataset(given.data, seed=given.seed)
    if given.network == SMALL:
        module: nn.Module = SmallResNet(dataset.num_classes)
    else:
        dataset = dataset.normalised_by(*normalisation_of(given.network))
        module = open_pretrained(given.network, weights="random" if given.from_scratch else None).module
        head = replace_classifier(module, classifier_of(module, (1, 3, *size)), dataset.num_classes)
        torch.nn.init.normal_(head.weight, std=0.01)
    module = module.to(memory_format=torch.channels_last).train()
    train = Batches(dataset, "train", size, torch.device("cpu"))
    decay = 0.05 if given.optimizer == "adamw" else 5e-4
    recipe = Recipe(
        batch=64, optimizer=given.optimizer, learning_rate=given.rate, warmup=0.1, weight_decay=decay, augmentation=Augmentation(0.1, 0.1)
    )
    optimizer = optimizer_of(recipe, [[p for p in module.parameters() if (p.ndim > 1) is decays] for decays in (True, False)])
    steps, step, each = 10**9, 0, train.steps(recipe.batch)
    started_s = warm_s = time.process_time()
    while step < steps:
        epoch, i = divmod(step, each)
        chosen = train.order(given.seed, epoch)[i * recipe.batch : (i + 1) * recipe.batch]
        (x,), target, _ = train.augmented(chosen, recipe.augmentation, recipe.smoothing, np.random.default_rng([given.seed, step]))
        loss = F.cross_entropy(module(x), target)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, min(steps, 10**5), recipe)
        optimizer.step()
        step += 1
        if step == WARM_STEPS:
            warm_s = time.process_time()
        elif step == WARM_STEPS + TIMED_STEPS:
            now_s = time.process_time()
            steps = max(step + 1, step + round((60 * given.minutes - (now_s - started_s)) / ((now_s - warm_s) / TIMED_STEPS)))
    trained_s = time.process_time() - started_s
    test = Batches(dataset, "test", size, torch.device("cpu"))
    accuracy_pct = 100 * float(np.mean(predictions(module.eval(), test, 64) == dataset.labels("test")))
    row = {
        "network": given.network,
        "from_scratch": given.from_scratch or given.network == SMALL,
        "optimizer": given.optimizer,
        "rate": given.rate,
        "training_pictures": len(train),
        "size": given.size,
        "seed": given.seed,
        "steps": steps,
        "epochs": round(steps / each, 2),
        "training_processor_s": round(trained_s, 1),
        "wall_s": round(time.monotonic() - began_s, 1),
        "test_pct": round(accuracy_pct, 2),
        "test_pictures": len(test),
        "half_width_pct": round(196 * (accuracy_pct / 100 * (1 - accuracy_pct / 100) / len(test)) ** 0.5, 2),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"plain-{given.network}-{given.size}-{given.minutes:g}min-{given.seed}.json"
    (given.out / name).write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
