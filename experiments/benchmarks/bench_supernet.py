"""How fast the supernet is: a sandwich step against the same four networks as plain modules, and an evaluation.

    python experiments/benchmarks/bench_supernet.py --to results.json

Times are processor time, so other work on the machine hardly enters. Both sides do what a training does: forward,
backward, clipping, one AdamW step. They alternate, so that a machine that slows down slows both. Each round's first
pass is not counted; the figure is the ratio of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_space
from nas.training.dataset import load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.supernet.batches import Batches
from nas.training.supernet.footprint import predicted_memory_bytes
from nas.training.supernet.train import Recipe, Training, optimizer_of
from nas.training.supernet.weights import Supernet

SIDE = (32, 32)


def elastic(name: str) -> ElasticSpace:
    space = get_space(name, num_classes=10, resolution=(224, 224))
    assert isinstance(space, ElasticSpace)
    return space


def sandwich_against_plain(name: str, batch: int, rounds: int, seed: int) -> dict[str, float]:
    """Return milliseconds of a step either way, and the supernet's throughput relative to the plain modules'."""
    space, recipe = elastic(name), Recipe(epochs=1000, batch=batch)
    supernet = Supernet(space, 10, SIDE, seed=seed)
    training = Training(supernet, Batches(load_dataset("digits"), "train", SIDE, torch.device("cpu")), recipe, seed, Accelerator(cpu=True))
    order = training.batches.order(seed, 0)
    shared_ms, plain_ms = [], []
    for step in range(rounds):
        members = training.members(step, order[:batch])
        modules = [supernet.extract(member).train() for member in members]
        optimizers = [optimizer_of(recipe, [[p for p in m.parameters() if (p.ndim > 1) is d] for d in (True, False)]) for m in modules]
        indices = order[:batch]
        for counted in (False, True):  # the first pass makes skeletons, and oneDNN its kernels for shapes not met before
            began = time.process_time()
            training.step(step, indices)
            shared = time.process_time() - began
            began = time.process_time()
            step_plain(training, modules, optimizers, indices, step)
            plain = time.process_time() - began
            if counted:
                shared_ms.append(1000 * shared)
                plain_ms.append(1000 * plain)
    return {
        "sandwich_step_ms": median(shared_ms),
        "plain_modules_ms": median(plain_ms),
        "relative_throughput": median(plain_ms) / median(shared_ms),
        "weights": supernet.flat.numel(),
        "predicted_memory_mb": predicted_memory_bytes(space, 10, recipe.batch, SIDE) / 1e6,
    }


def step_plain(
    training: Training, modules: list[torch.nn.Module], optimizers: list[torch.optim.Optimizer], indices: torch.Tensor, step: int
) -> None:
    """Train networks of their own on one batch, the first teaching the others."""
    recipe = training.recipe
    (x,), target, _ = training.batches.augmented(indices, recipe.augmentation, recipe.smoothing, np.random.default_rng(step))
    teacher = torch.empty(0)
    for i, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
        scores = module(x)
        loss = F.cross_entropy(scores, target)
        if i == 0:
            teacher = scores.detach().softmax(1)
        else:
            loss = torch.lerp(loss, F.cross_entropy(scores, teacher), recipe.distillation)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        optimizer.step()


def evaluation_s(name: str, members: int, seed: int) -> dict[str, float]:
    """Return seconds for one evaluation on digits' validation pictures, recalibration included."""
    space = elastic(name)
    evaluator = SupernetEvaluator(Supernet(space, 10, SIDE, seed=seed), load_dataset("digits"))
    rng = np.random.default_rng(seed)
    architectures = [space.sample(rng) for _ in range(members + 1)]
    evaluator.evaluate(architectures[0])
    began = time.process_time()
    for architecture in architectures[1:]:
        evaluator.evaluate(architecture)
    return {"evaluation_s": (time.process_time() - began) / members}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=None)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", action="append", default=None)
    words = parser.parse_args()
    result = {
        "seed": words.seed,
        "batch": words.batch,
        "rounds": words.rounds,
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "spaces": {
            name: sandwich_against_plain(name, words.batch, words.rounds, words.seed) | evaluation_s(name, words.members, words.seed)
            for name in words.space or ["hybrid-s", "hybrid-gpu-s"]
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if words.to:
        words.to.write_text(text + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
