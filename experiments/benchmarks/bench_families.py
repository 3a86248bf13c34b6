"""What operator families cost a supernet: its weights, its memory and a step, with 6 (the default), 8, 16 and 32 token mixers in `hybrid-s`.

    python experiments/benchmarks/bench_families.py --to experiments/benchmarks/results/families.json

Families join in the order of the alphabet behind the default ones; those that fit no stage of the space do not count. Times are processor time
of one thread; a step trains four members on 32 pictures of 32 × 32, and the median leaves out each member's first pass.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator

from nas.errors import UsageError
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.spaces.operator_family import mixers
from nas.training.dataset import load_dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.footprint import predicted_memory_bytes
from nas.training.supernet.train import Recipe, Training
from nas.training.supernet.weights import Supernet
from search_spaces.hybrid import DEFAULT_MIXERS

SIDE, BATCH, STEPS = (32, 32), 32, 6
COUNTS = (len(DEFAULT_MIXERS), 8, 16, 32)


def fitting() -> list[str]:
    """Return the mixers that some stage of the space takes, the default ones first."""
    found = list(DEFAULT_MIXERS)
    for name in mixers.names():
        if name in DEFAULT_MIXERS:
            continue
        try:
            get_elastic_space(f"hybrid-s:mixers={','.join(sorted([*DEFAULT_MIXERS, name]))}", num_classes=10, resolution=(224, 224))
        except UsageError:
            continue
        found.append(name)
        if len(found) == COUNTS[-1]:
            break
    return found


def measure(space: ElasticSpace, seconds: float) -> dict[str, object]:
    """Return the figures of one space, made in so many seconds of processor time."""
    supernet, recipe = Supernet(space, 10, SIDE, seed=0), Recipe(epochs=1000, batch=BATCH)
    training = Training(supernet, Batches(load_dataset("digits"), "train", SIDE, torch.device("cpu")), recipe, 0, Accelerator(cpu=True))
    order, times = training.batches.order(0, 0)[:BATCH], []
    for step in range(STEPS):
        for counted in (False, True):
            began = time.process_time()
            training.step(step, order)
            if counted:
                times.append(1000 * (time.process_time() - began))
    return {
        "families": len({choice.partition(":")[0] for c in space.choices if c.name.endswith(".mixer") for choice in map(str, c.values)}),
        "weights_m": round(supernet.flat.numel() / 1e6, 2),
        "memory_mb": round(predicted_memory_bytes(space, 10, recipe.batch, SIDE) / 1e6),
        "step_ms": round(median(times)),
        "space_made_s": round(seconds, 2),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True)
    to = parser.parse_args().to
    torch.set_num_threads(1)
    names, rows = fitting(), []
    for count in COUNTS:
        began = time.process_time()
        text = "hybrid-s" if count == COUNTS[0] else f"hybrid-s:mixers={','.join(sorted(names[:count]))}"
        space = get_elastic_space(text, num_classes=10, resolution=(224, 224))
        rows.append({"asked": min(count, len(names)), **measure(space, time.process_time() - began)})
        to.write_text(json.dumps({"torch": torch.__version__, "machine": platform.platform(), "rows": rows}, indent=1) + "\n")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
