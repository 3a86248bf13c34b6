"""How many training pictures a score inside a fine-tuning needs for its batch-norm statistics.

    python experiments/021_own_pictures/epoch_statistics.py
    python experiments/021_own_pictures/epoch_statistics.py --data /tmp/cifar-1000 --side 32 --epochs 1

One member trains, a supernet's (as in the embedded search) or from nothing; after each epoch it is scored on validation with the statistics that training gathered,
with those of so many training pictures, drawn five times, and with those of all. Writes ``results/epoch_statistics-DATA.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet import finetune as module_of_finetune
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import FINETUNING, finetune, fresh
from nas.training.supernet.statistics import pictures, predictions, recalibrated
from nas.training.supernet.train import default_recipe, train

HERE = Path(__file__).parent
COUNTS = (32, 64, 128, 256, 512, 1024)
DRAWS = 5


def main() -> None:
    """Train, score, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--supernet-epochs", type=int, default=0, help="0: the member trains from nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began_s = time.process_time()
    dataset, size = load_dataset(given.data), (given.side, given.side)
    space = get_elastic_space("hybrid-s", num_classes=dataset.num_classes, resolution=size)
    member = space.sample(np.random.default_rng(3))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        start = _start(space, member, dataset, given, Path(folder))
        train_batches, validation = (Batches(dataset, split, size, torch.device("cpu")) for split in ("train", "validation"))
        scored = module_of_finetune.recalibrated

        def watched(network: nn.Module, batches: Iterator[Tensor]):  # type: ignore[no-untyped-def]
            rows.append(_compared(network, train_batches, validation))
            print(rows[-1], flush=True)
            return scored(network, batches)

        module_of_finetune.recalibrated = watched
        recipe = (
            replace(FINETUNING, epochs=given.epochs) if given.supernet_epochs else replace(default_recipe(dataset), epochs=given.epochs)
        )
        finetune(start, member, dataset, Path(folder) / "member.safetensors", recipe, resolution=size)
    name = dataset.name.replace("/", "-")
    found = {"data": f"{dataset.name} {dataset.key}", "validation_pictures": len(validation), "side": given.side}
    found |= {
        "start": "supernet" if given.supernet_epochs else "nothing",
        "rows": rows,
        "processor_s": round(time.process_time() - began_s, 1),
    }
    (HERE / "results" / f"epoch_statistics-{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def _start(space: ElasticSpace, member, dataset: Dataset, given: argparse.Namespace, folder: Path) -> nn.Module:  # type: ignore[no-untyped-def]
    size = (given.side, given.side)
    if not given.supernet_epochs:
        return fresh(space, member, num_classes=dataset.num_classes, resolution=size, seed=0)
    recipe = replace(default_recipe(dataset), epochs=given.supernet_epochs)
    trained = train(space, dataset, folder / "supernet.safetensors", recipe, resolution=size, device="cpu")
    return trained.supernet.extract(member, size)


def _compared(network: nn.Module, train_batches: Batches, validation: Batches) -> dict[str, object]:
    def accuracy() -> float:
        return 100 * float(np.mean(predictions(network.eval(), validation) == validation.labels.numpy()))

    row: dict[str, object] = {"gathered_pct": round(accuracy(), 2)}
    with recalibrated(network, pictures(train_batches.plain(128))):
        row["all_pct"] = round(accuracy(), 2)
    for count in (c for c in COUNTS if c < len(train_batches)):
        scores = []
        for draw in range(DRAWS):
            chosen = np.random.default_rng([draw, count]).permutation(len(train_batches))[:count]
            began_s = time.process_time()
            with recalibrated(network, pictures(train_batches.plain(128, torch.from_numpy(np.sort(chosen))))):
                took_s = time.process_time() - began_s
                scores.append(round(accuracy(), 2))
        row[str(count)] = {"pct": scores, "statistics_s": round(took_s, 2)}
    return row


if __name__ == "__main__":
    main()
