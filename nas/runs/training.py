"""Training by itself: the supernet of a space, or one architecture alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import UsageError
from nas.events import EventBus
from nas.results import Training
from nas.spaces.naming import get_elastic_space
from nas.spaces.network import read_architecture
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset

if TYPE_CHECKING:
    from nas.spaces.elastic import ElasticSpace


def train_supernet(
    space: str, dataset: Dataset, out: Path, *, resolution: Resolution | None, settings: Mapping[str, Any], seed: int, bus: EventBus
) -> Training:
    """Train the supernet of a space, or go on with the training that a file holds.

    Args:
        space: Its name.
        dataset: ``train`` gives the weights, ``validation`` the scores.
        out: The checkpoint.
        resolution: Of the pictures; None for the resolution at which a search would train it.
        settings: Fields of `nas.training.supernet.train.Recipe` that are not the default's.
        seed: Of everything random.
        bus: Told of the progress.

    Raises:
        UsageError: No supernet serves the space.
        ArtifactError: The file holds another training.
    """
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import default_recipe, default_resolution, member_recipe, train

    served: ElasticSpace = get_elastic_space(space, num_classes=dataset.num_classes)
    recipe = default_recipe(dataset, served)
    epochs = recipe.epochs or member_recipe(dataset).epochs  # a search trains chains of trained networks for none by default
    recipe = replace(recipe, **{"epochs": epochs, **settings})
    size = resolution or default_resolution(dataset, served.least_proxy)
    trained = train(served, dataset, out, recipe, resolution=size, seed=seed, bus=bus)
    evaluator = SupernetEvaluator(trained.supernet, dataset)
    scores = {name: evaluator.evaluate(served.extreme(name == "largest")).accuracy_pct for name in ("smallest", "largest")}
    return Training(
        file=str(out),
        kind="supernet",
        space=served.name,
        data=f"{dataset.name} {dataset.key}",
        resolution=trained.supernet.resolution,
        epochs=recipe.epochs,
        validation_accuracy_pct=scores,
        blind=dataset.blind("validation", scores["largest"]),
        weights=trained.supernet.key,
        seconds=trained.seconds,
    )


def train_alone(
    architecture: Path, dataset: Dataset, out: Path, *, resolution: Resolution | None, settings: Mapping[str, Any], seed: int, bus: EventBus
) -> Training:
    """Train one architecture from fresh weights, or go on with the training that a file holds.

    Args:
        architecture: Its file.
        dataset: As `train_supernet`.
        out: The checkpoint.
        resolution: Of the pictures; None for the architecture's own.
        settings: As `train_supernet`.
        seed: Of everything random.
        bus: Told of the progress.

    Raises:
        UsageError: No such architecture.
        ArtifactError: A file cannot be read, or `out` holds another training.
    """
    import torch

    from nas.training.supernet.finetune import finetune, fresh
    from nas.training.supernet.train import member_recipe

    if methods := settings.get("methods"):
        raise UsageError(f"training: --recipe has no effect on one architecture, got {','.join(methods)!r}. Do this: leave it out.")
    space, member = read_architecture(architecture)
    height, width = resolution or space.lower(member).inputs[0].shape[2:]
    module = fresh(space, member, num_classes=dataset.num_classes, resolution=(height, width), seed=seed)
    recipe = replace(member_recipe(dataset), **settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done = finetune(module, member, dataset, out, recipe, resolution=(height, width), seed=seed, bus=bus, device=device)
    return Training(
        file=str(out),
        kind="member",
        space=space.name,
        data=f"{dataset.name} {dataset.key}",
        resolution=(height, width),
        epochs=recipe.epochs,
        validation_accuracy_pct={member.key: done.validation_accuracy_pct},
        blind=dataset.blind("validation", done.validation_accuracy_pct),
        seconds=done.seconds,
    )
