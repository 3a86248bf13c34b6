"""How fast a step of the supernet is on Once-for-All's MobileNetV3 shapes, against the package `ofa` and against plain modules.

    python experiments/benchmarks/bench_ofa_step.py --to experiments/benchmarks/results/ofa_step.json

All three train the largest, the smallest and two random members of one step on one batch of pictures, by the labels, and end with one step of SGD with Nesterov
momentum: the supernet as `nas train` does, `ofa` as its training does (its shared modules, one active member after the other, the gradients summed; memory in
the order that the package leaves it in, and once more with channels last as the supernet has it), and each member as a module of its own with an optimiser of its own. Augmentation is in all three. Times are processor time of one thread; the sides alternate, each round's first
pass is not counted, and the figures are medians over the rounds. Needs the package `ofa` (0.1.0) for that side.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from nas.graphs.graph import GraphBuilder
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.space import Resolution
from nas.training.dataset import load_dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.train import Recipe, Training
from nas.training.supernet.weights import Supernet
from search_spaces.ofa import OnceForAll

CLASSES, STAGES, MOST = 10, 5, 4


@dataclass(frozen=True)
class Layer(Part):
    """A piece of the network, by its index in the module of the whole member."""

    member: Architecture
    index: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        raise NotImplementedError("nothing is priced here")

    def build(self) -> nn.Module:
        whole = OnceForAll(CLASSES, width_multiplier=1.0).build(self.member)
        children = list(whole.children())
        depth = sum(int(gene) for gene in self.member.genes[1 : 1 + STAGES])
        return children[self.index] if self.index < depth + 2 else nn.Sequential(*children[depth + 2 :])


class Shapes(ElasticSpace):
    """The members of `ofa`'s space at one resolution, each block a part."""

    name = "ofa-shapes"
    choices = OnceForAll.choices[1:]

    def __init__(self) -> None:
        self.num_classes = CLASSES
        self._parts: dict[Architecture, tuple[Part, ...]] = {}
        self._known: dict[tuple[Any, ...], Layer] = {}

    def canonical(self, genes: tuple[Any, ...]) -> tuple[Any, ...]:
        return OnceForAll().canonical((128, *genes))[1:]

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:  # noqa: ARG002
        if architecture not in self._parts:
            plain = OnceForAll()
            member = plain.architecture((128, *architecture.genes))
            depths = [int(gene) for gene in architecture.genes[:STAGES]]
            names = ["stem", "first", *(f"stage{s}.block{b}" for s, depth in enumerate(depths) for b in range(depth)), "head"]
            knobs = [architecture.genes[STAGES + 2 * (MOST * s + b) :][:2] for s, depth in enumerate(depths) for b in range(depth)]
            kinds = [(), (), *knobs, ()]
            self._parts[architecture] = tuple(
                self._known.setdefault((name, *kind), Layer(name, (1, 3, 1, 1), member, i))
                for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
            )
        return self._parts[architecture]

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:  # noqa: ARG002
        return {part.slot: (part,) for part in self.parts(self.extreme(True))}


def ofa_step(
    training: Training, memory_format: torch.memory_format = torch.contiguous_format
) -> Callable[[Sequence[Architecture], torch.Tensor, int], None]:
    """Return a step of the package's own training; the package says nothing of the order in memory."""
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    from ofa.utils import cross_entropy_loss_with_soft_target

    net = OFAMobileNetV3(CLASSES, dropout_rate=0.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]).train()
    net = net.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step(members: Sequence[Architecture], indices: torch.Tensor, number: int) -> None:
        x, target = pictures(training, indices, number)
        x = x.contiguous(memory_format=memory_format)
        net.zero_grad()
        for member in members:
            knobs = member.genes[STAGES:]
            net.set_active_subnet(ks=list(knobs[::2]), e=list(knobs[1::2]), d=list(member.genes[:STAGES]))
            cross_entropy_loss_with_soft_target(net(x), target).backward()
        optimizer.step()

    return step


def plain_step(training: Training) -> Callable[[Sequence[Architecture], torch.Tensor, int], None]:
    """Return a step of the members as modules of their own."""
    known: dict[Architecture, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def step(members: Sequence[Architecture], indices: torch.Tensor, number: int) -> None:
        x, target = pictures(training, indices, number)
        for member in members:
            if member not in known:
                module = training.supernet.extract(member).train()
                known[member] = module, torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
            module, optimizer = known[member]
            optimizer.zero_grad()
            F.cross_entropy(module(x), target).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), training.recipe.clip)
            optimizer.step()

    return step


def pictures(training: Training, indices: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    recipe = training.recipe
    (x,), target, _ = training.batches.augmented(indices, recipe.augmentation, recipe.smoothing, np.random.default_rng(number))
    return x, target


SIDES = {"ofa": ofa_step, "ofa_channels_last": partial(ofa_step, memory_format=torch.channels_last), "plain": plain_step}


def compare(side: int, batch: int, rounds: int, seed: int, sides: Sequence[str]) -> dict[str, float]:
    """Return milliseconds of a step by side, and how many times as fast the supernet is."""
    space = Shapes()
    recipe = Recipe(epochs=1000, batch=batch, optimizer="sgd", learning_rate=1e-3, methods=("sandwich", "labels"))
    supernet = Supernet(space, CLASSES, (side, side), seed=seed)
    batches = Batches(load_dataset("digits"), "train", (side, side), torch.device("cpu"))
    training = Training(supernet, batches, recipe, seed, Accelerator(cpu=True))
    steps: dict[str, Callable[[Sequence[Architecture], torch.Tensor, int], Any]] = {
        "supernet": lambda _members, indices, number: training.step(number, indices)
    }
    steps |= {name: SIDES[name](training) for name in sides}
    indices = training.batches.order(seed, 0)[:batch]
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        members = training.members(number, indices)
        for counted in (False, True):
            for name, step in steps.items():
                began_s = time.process_time()
                step(members, indices, number)
                if counted:
                    spent[name].append(1000 * (time.process_time() - began_s))
    medians = {f"{name}_ms": round(median(values), 1) for name, values in spent.items()}
    ratios = {f"times_{name}": [round(o / s, 3) for o, s in zip(spent[name], spent["supernet"], strict=True)] for name in sides}
    times = {f"supernet_as_fast_as_{name}": round(median(spent[name]) / median(spent["supernet"]), 3) for name in sides}
    return medians | times | ratios  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=None)
    parser.add_argument("--at", nargs="+", default=["32x128", "128x32"], help="side of the pictures x pictures a step")
    parser.add_argument("--sides", nargs="+", default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": f"bench_ofa_step.py --at {' '.join(words.at)} --rounds {words.rounds} --seed {words.seed}",
        "machine": f"{platform.processor() or platform.machine()}, one thread, shared with other work",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "ofa": "0.1.0"},
        "results": {at: compare(*map(int, at.split("x")), words.rounds, words.seed, words.sides) for at in words.at},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if words.to:
        words.to.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
