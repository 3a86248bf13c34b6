"""Norm statistics: as published, or taken anew from the pictures? Of a probe, and of one epoch of fine-tuning.

    python experiments/021_own_pictures/norms.py --data /tmp/cifar-1000 probe
    python experiments/021_own_pictures/norms.py --data /tmp/cifar-1000 tune

Probes: EfficientNet-Lite0, 1,500 training and 1,000 validation pictures, both normalisations, 96 and 128 px. Fine-tuning: a schedule of --steps at 96 px from the same
probe with statistics that stay and with those of the batches. Each prints and appends rows to ``results/norms.json``.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch

from nas.spaces.pretrained import open_pretrained
from nas.spaces.pretrained.classifier import classifier_of, replace_classifier
from nas.spaces.pretrained.libraries import normalisation_of
from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.statistics import recalibrate
from nas.training.transfer.probe import features, fit_linear, probe, probed
from nas.training.transfer.recipe import transfer_recipe
from nas.training.transfer.tuning import Tuning, right_on_validation

HERE = Path(__file__).parent
NETWORK = "tf_efficientnet_lite0"
CPU = torch.device("cpu")


def probes(dataset: Dataset):
    """Yield a row for each normalisation, size and kind of statistics."""
    base = open_pretrained(NETWORK).module.to(memory_format=torch.channels_last)
    name = classifier_of(base, (1, 3, 96, 96))
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(dataset.count("train"))[:1500])
    scored = torch.arange(0, dataset.count("validation"), 2)
    for kind, data in (("the pictures' own", dataset), ("the network's", dataset.normalised_by(*normalisation_of(NETWORK)))):
        for side in (96, 128):
            train, validation = (Batches(data, split, (side, side), CPU) for split in ("train", "validation"))
            for anew in (False, True):
                network = copy.deepcopy(base)
                if anew:
                    recalibrate(network, [x for x, _ in train.plain(64, chosen[:512])])
                weight, bias, _ = fit_linear(features(network, name, train, chosen), train.labels[chosen].numpy(), data.num_classes)
                right = (features(network, name, validation, scored) @ weight.T + bias).argmax(1) == validation.labels[scored]
                yield {
                    "what": "probe",
                    "normalised by": kind,
                    "px": side,
                    "anew": anew,
                    "validation_pct": round(100 * float(right.double().mean()), 1),
                }


def tunings(dataset: Dataset, folder: Path, steps: int):
    """Yield a row for each kind of statistics."""
    from dataclasses import replace

    data, size = dataset.normalised_by(*normalisation_of(NETWORK)), (96, 96)
    network = open_pretrained(NETWORK).module.to(memory_format=torch.channels_last)
    name = classifier_of(network, (1, 3, *size))
    replace_classifier(network, name, data.num_classes)
    found = probe(network, name, Batches(data, "train", size, CPU), Batches(data, "validation", size, CPU), pictures=2000)
    yield {"what": "probe", "px": 96, "validation_pct": round(found.accuracy_pct, 1)}
    for frozen in (True, False):
        recipe = replace(transfer_recipe(data.count("train"), 1), frozen_norms=frozen)
        began_s = time.process_time()
        tuning = Tuning(probed(network, name, found), data, size, folder / f"{frozen}.safetensors", recipe, steps, "{}")
        tuning.advance(steps)
        seconds = time.process_time() - began_s
        right = right_on_validation(tuning.averaged(), data, size)
        yield {
            "what": "one epoch",
            "px": 96,
            "frozen": frozen,
            "validation_pct": round(100 * float(right.mean()), 1),
            "processor_s": round(seconds),
        }


def main() -> None:
    """Run one of both."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("what", choices=("probe", "tune"))
    given = parser.parse_args()
    dataset, path = load_dataset(given.data), HERE / "results" / "norms.json"
    with tempfile.TemporaryDirectory() as folder:
        for row in probes(dataset) if given.what == "probe" else tunings(dataset, Path(folder), given.steps):
            print(row, flush=True)
            rows = [*(json.loads(path.read_text()) if path.is_file() else []), row]
            path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
