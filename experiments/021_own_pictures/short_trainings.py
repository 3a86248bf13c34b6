"""What a residual network makes of equal processor seconds from nothing: its recipe, its stem, its width.

    python experiments/021_own_pictures/short_trainings.py --data /tmp/cifar-1000

Each row trains one network of `residual` by the recipe of few pictures (`nas.training.supernet.finetune.AUGMENTED`) or by one that differs in what the row names, for equal processor seconds on
so many of the training pictures; the others and the validation pictures score it, batch norms recalibrated; validation pictures also choose the epoch. The test pictures are not read. Goes on where it stopped.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from equal_seconds import halved, machine, scored

from nas.spaces.naming import get_elastic_space
from nas.training.dataset import load_dataset
from nas.training.supernet.finetune import ALONE, AUGMENTED, PLAIN, finetune, fresh

HERE = Path(__file__).parent
SIZE = (32, 32)
ADAMW = {"optimizer": "adamw", "learning_rate": ALONE.learning_rate, "weight_decay": ALONE.weight_decay}
VARIANTS = {
    "": AUGMENTED,
    ", no RandAugment": PLAIN,
    ", random start": replace(AUGMENTED, whitening=False),
    ", whole pictures": replace(AUGMENTED, methods=()),
    ", by AdamW": replace(AUGMENTED, **ADAMW),
    ", mixup": replace(AUGMENTED, augmentation=replace(AUGMENTED.augmentation, mixup=0.2)),
    ", CutMix": replace(AUGMENTED, augmentation=replace(AUGMENTED.augmentation, cutmix=1.0)),
    ", decay 1e-3": replace(AUGMENTED, weight_decay=1e-3),
    ", averaged weights": replace(AUGMENTED, window=0.05),
    ", batches of 128": replace(AUGMENTED, batch=128),
}
NETWORKS = {
    "width 16": ("residual-s", (16, 2, 2, 2, 0)),
    "width 24": ("residual-s", (24, 2, 2, 2, 0)),
    "width 32": ("residual-s", (32, 2, 2, 2, 0)),
    "width 40": ("residual-s", (40, 2, 2, 2, 0)),
    "width 48": ("residual-s", (48, 2, 2, 2, 0)),
    "width 64": ("residual-s", (64, 2, 2, 2, 0)),
    "width 16, three blocks": ("residual-m", (16, 3, 3, 3, 0)),
    "width 24, three blocks": ("residual-m", (24, 3, 3, 3, 0)),
    "width 48, one block": ("residual-m", (48, 1, 1, 1, 0)),
}
ROWS = {network + variant: (*genes, recipe) for network, genes in NETWORKS.items() for variant, recipe in VARIANTS.items()}


def main() -> None:
    """Train each row, and write ``results/short_trainings.json``, or what `--out` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seconds", type=float, default=250.0, help="of the processor, for each row")
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, help="rows by name; by default each network by the recipe itself", default=list(NETWORKS)
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "short_trainings.json")
    given = parser.parse_args()
    done = json.loads(given.out.read_text()) if given.out.is_file() else {}
    data, others = halved(load_dataset(given.data, seed=given.seed), given.pictures, given.seed)
    for name, (space_name, genes, recipe) in ROWS.items():
        if name in done or name not in given.only:
            continue
        space = get_elastic_space(space_name)
        member = space.architecture(("32x32", *genes))
        module = fresh(space, member, num_classes=data.num_classes, resolution=SIZE, seed=given.seed)
        recipe = replace(recipe, epochs=300)
        began_s = time.process_time()
        end_s = began_s + given.seconds
        with TemporaryDirectory() as folder:
            path = Path(folder) / "member.safetensors"
            trained = finetune(
                module,
                member,
                data,
                path,
                recipe,
                resolution=SIZE,
                seed=given.seed,
                left_s=lambda end_s=end_s: max(0.0, end_s - time.process_time()),
            )
        took_s = time.process_time() - began_s
        done[name] = {
            "space": space_name,
            "genes": genes,
            "methods": recipe.methods,
            "whitening": recipe.whitening,
            "optimizer": recipe.optimizer,
            "version": space.version,
            "augmentation": recipe.augmentation.entries,
            "macs": space.lower(member).cost.macs,
            "params": space.lower(member).cost.params,
            "training_pictures": data.count("train"),
            "epochs_begun": len(trained.history),
            "processor_s": round(took_s, 1),
            "seed": given.seed,
            **scored(trained.module, others, SIZE),
            **machine(),
        }
        given.out.write_text(json.dumps(done, indent=1) + "\n")
        print(name, done[name], flush=True)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
