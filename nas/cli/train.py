"""``nas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nas.cli._options import Format, Seed, write


def command(
    architecture: Annotated[Path | None, typer.Argument(help="ARCH.json to train alone; without it, the supernet of a space.")] = None,
    data: Annotated[str, typer.Option("--data", help="Name of a data set, a folder of class folders, or a tar of one.")] = "digits",
    space: Annotated[str, typer.Option("--space", help="Space whose supernet is trained.", metavar="S")] = "hybrid-s",
    images: Annotated[int | None, typer.Option("--images", min=1, help="Keep so many pictures of train and validation.")] = None,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", help="Size of the pictures: 32 or 192x256; default 32 for a supernet, its own for ARCH.json."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures a step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="At the peak of the one-cycle schedule.")] = None,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option("--optimizer", help="Which optimiser.")] = "adamw",
    mixed_precision: Annotated[Literal["no", "bf16"], typer.Option("--mixed-precision", help="Of the arithmetic.")] = "no",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Checkpoint to write, or to go on with.", metavar="FILE")] = Path(
        "weights.safetensors"
    ),
    form: Format = "table",
) -> None:
    """Train a supernet, or one architecture alone; a training that was interrupted goes on. ``torchrun`` uses several processes."""
    import os

    from nas.events import EventBus
    from nas.report.progress import ProgressReport
    from nas.spaces.naming import get_elastic_space
    from nas.training.data.dataset import load_dataset
    from nas.units import parse_resolution

    given = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings |= {"optimizer": optimizer, "mixed_precision": mixed_precision}
    size = parse_resolution(resolution) if resolution else None
    dataset = load_dataset(data, seed=seed, images=images)
    main = int(os.environ.get("RANK", "0")) == 0
    progress = ProgressReport()
    bus = EventBus([progress] if main else [])
    try:
        if architecture is None:
            found = get_elastic_space(space, num_classes=dataset.num_classes)
            result = _train_supernet(found, dataset, size or (32, 32), settings, seed, out, bus)
        else:
            result = _train_alone(architecture, dataset, size, settings, seed, out, bus)
    finally:
        progress.close()
    if main:
        write(result, form, _render)


def _train_supernet(
    space: Any, dataset: Any, size: tuple[int, int], settings: dict[str, Any], seed: int, out: Path, bus: Any
) -> dict[str, Any]:
    from dataclasses import replace

    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import default_recipe, train

    recipe = replace(default_recipe(dataset), **settings)
    trained = train(space, dataset, out, recipe, resolution=size, seed=seed, bus=bus)
    evaluator = SupernetEvaluator(trained.supernet, dataset)
    scores = {name: evaluator.evaluate(space.extreme(name == "largest")).accuracy_pct for name in ("smallest", "largest")}
    return {
        "file": str(out),
        "kind": "supernet",
        "space": space.name,
        "data": f"{dataset.name} {dataset.key}",
        "resolution": list(size),
        "epochs": recipe.epochs,
        "validation_accuracy_pct": scores,
        "weights": trained.supernet.key,
        "seconds": trained.seconds,
    }


def _train_alone(
    architecture: Path, dataset: Any, size: tuple[int, int] | None, settings: dict[str, Any], seed: int, out: Path, bus: Any
) -> dict[str, Any]:
    from dataclasses import replace

    from nas.spaces.network import read_architecture
    from nas.training.supernet.finetune import finetune, fresh
    from nas.training.supernet.train import default_recipe

    space, member = read_architecture(architecture)
    height, width = size or space.lower(member).inputs[0].shape[2:]
    module = fresh(space, member, num_classes=dataset.num_classes, resolution=(height, width), seed=seed)
    recipe = replace(default_recipe(dataset), **settings)
    done = finetune(module, member, dataset, out, recipe, resolution=(height, width), seed=seed, bus=bus, device=_device())
    return {
        "file": str(out),
        "kind": "member",
        "space": space.name,
        "data": f"{dataset.name} {dataset.key}",
        "resolution": [height, width],
        "epochs": recipe.epochs,
        "validation_accuracy_pct": {member.key: done.validation_accuracy_pct},
        "seconds": done.seconds,
    }


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _render(result: dict[str, Any]) -> None:
    import sys

    scores = ", ".join(f"{name} {value:.2f} %" for name, value in result["validation_accuracy_pct"].items())
    sys.stdout.write(f"{result['file']}: {result['kind']} of {result['space']} on {result['data']}, {result['epochs']} epochs\n")
    sys.stdout.write(f"validation accuracy: {scores}\n")
