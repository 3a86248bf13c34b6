"""Training of one network: a member taken out of the supernet, at its deployment resolution, or a fresh one.

Resumable to the bit, as the supernet's. The epoch that validation likes best is kept, and batch-norm statistics are
taken anew at the end.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ArtifactError, TrainingError
from nas.events import EventBus, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution, SearchSpace
from nas.training.dataset import Dataset
from nas.training.memory import keep_compiled_kernels, keep_freed_memory
from nas.training.supernet.batches import Batches
from nas.training.supernet.checkpoint import (
    Checkpoint,
    check_identity,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from nas.training.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.training.supernet.train import Recipe, learning_rate_at, optimizer_of

FINETUNING = Recipe(epochs=6, batch=64, learning_rate=1e-3, warmup=0.1, weight_decay=0.02)
"""The default recipe after a supernet."""

_CPU_MACS = 5e12
"""Multiply-adds that a fine-tuning may take on a CPU: some five minutes of two cores."""


def finetuning_recipe(dataset: Dataset, macs: int) -> Recipe:
    """Return the default recipe, with as many epochs as a machine without a GPU can be asked for.

    Args:
        dataset: Whose training pictures are seen.
        macs: Of the network at its deployment resolution; a training step takes three times as many.
    """
    if torch.cuda.is_available():
        return replace(FINETUNING, epochs=20)
    return replace(FINETUNING, epochs=int(min(max(_CPU_MACS // (3 * macs * dataset.count("train")), 1), 10)))


_BEST = "best/"
_LAST = "last/"


@dataclass(frozen=True, slots=True)
class Finetuned:
    """A network with what is known of its training.

    Attributes:
        module: In evaluation mode, at its deployment resolution, with recalibrated batch norms.
        validation_accuracy_pct: Of this very module.
        right: For each validation picture, whether the module names its class: what a paired test needs.
        history: One entry an epoch, numbers by name.
        seconds: Of this session.
    """

    module: nn.Module
    validation_accuracy_pct: float
    right: npt.NDArray[np.bool_]
    history: tuple[Mapping[str, float], ...]
    seconds: float


def finetune(
    module: nn.Module,
    architecture: Architecture,
    dataset: Dataset,
    path: Path,
    recipe: Recipe = FINETUNING,
    *,
    resolution: Resolution,
    seed: int = 0,
    bus: EventBus | None = None,
    device: str = "cpu",
    stop_after: int | None = None,
) -> Finetuned:
    """Train a network, or go on with the training that `path` holds; the weights are the same either way.

    Args:
        module: The network as it starts; trained in place.
        architecture: What it is.
        dataset: ``train`` gives weights and statistics, ``validation`` the choice of the epoch.
        path: The checkpoint, written after every epoch; at the end it holds the network that is returned.
        recipe: How.
        resolution: Of the pictures.
        seed: Of everything random.
        bus: Told of the progress.
        device: Where to train.
        stop_after: Stop when so many epochs are done, as an interruption would.

    Raises:
        TrainingError: It diverged.
        ArtifactError: `path` holds something else.
    """
    started = time.monotonic()
    keep_freed_memory()
    keep_compiled_kernels()
    bus = bus or EventBus()
    recipe = replace(recipe, batch=min(recipe.batch, dataset.count("train")))
    module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    identity = {
        "architecture": architecture.to_json(),
        "classes": dataset.num_classes,
        "resolution": list(resolution),
        "data": dataset.key,
        "seed": seed,
        "recipe": recipe.entries,
        "start": _hash(module),
    }
    train, validation = (Batches(dataset, split, resolution, torch.device(device)) for split in ("train", "validation"))
    parameters = [[p for p in module.parameters() if (p.ndim > 1) is decays] for decays in (True, False)]
    optimizer = optimizer_of(recipe, parameters)
    epoch, history = 0, list[dict[str, float]]()
    best = _state(module)
    if path.is_file():
        found = read_checkpoint(path, "member")
        check_identity(path, found.identity, identity)
        epoch, history = int(found.progress["epoch"]), list(found.progress["history"])
        best = _under(_BEST, found.tensors)
        module.load_state_dict(_under(_LAST, found.tensors) if epoch < recipe.epochs else best)
        restore_optimizer(optimizer, found.tensors)
    bus.emit(PhaseStarted("finetune", recipe.epochs, epoch, f"{architecture.key} at {resolution[0]}x{resolution[1]} on {dataset.name}"))
    steps = train.steps(recipe.batch)
    while epoch < recipe.epochs and epoch != stop_after:
        loss = _epoch(module, train, recipe, optimizer, seed, epoch, steps)
        accuracy_pct = 100 * float(np.mean(_right(module.eval(), validation)))
        epoch += 1
        history.append({"loss": loss, "validation_accuracy_pct": accuracy_pct})
        if accuracy_pct >= max(entry["validation_accuracy_pct"] for entry in history):
            best = _state(module)
        tensors = {_BEST + name: tensor for name, tensor in best.items()}
        if epoch == recipe.epochs:
            module.load_state_dict(best)
            recalibrate(module, _calibration(train))
            tensors = {_BEST + name: tensor for name, tensor in _state(module).items()}
        else:
            tensors |= {_LAST + name: tensor for name, tensor in _state(module).items()}
            tensors |= optimizer_tensors(optimizer.state_dict()["state"])
        progress = {"epoch": epoch, "epochs": recipe.epochs, "history": history}
        write_checkpoint(path, Checkpoint("member", identity, progress, tensors))
        bus.emit(PhaseAdvanced("finetune", epoch, history[-1]))
    found_right = _right(module.eval(), validation)
    seconds = time.monotonic() - started
    bus.emit(PhaseFinished("finetune", seconds))
    return Finetuned(module, 100 * float(found_right.mean()), found_right, tuple(history), seconds)


def load_member(path: Path, space: SearchSpace) -> tuple[Architecture, nn.Module, Resolution]:
    """Return the network of a file in evaluation mode, with its architecture and resolution.

    Raises:
        ArtifactError: Missing, damaged, unfinished, or of another space.
    """
    found = read_checkpoint(path, "member")
    architecture = Architecture.from_json(found.identity["architecture"])
    if architecture.space != space.name:
        raise ArtifactError(f"checkpoint {path}: of another space, got {architecture.space!r}. Expected {space.name!r}.")
    if found.progress["epoch"] < found.progress["epochs"]:
        done = f"{found.progress['epoch']} of {found.progress['epochs']} epochs"
        raise ArtifactError(f"checkpoint {path}: the training is unfinished, got {done}. Do this: go on with it.")
    height, width = found.identity["resolution"]
    with torch.random.fork_rng(devices=[]):
        module = space.build(architecture, num_classes=int(found.identity["classes"]), resolution=(height, width))
    try:
        module.load_state_dict(_under(_BEST, found.tensors))
    except RuntimeError as error:
        raise ArtifactError(f"checkpoint {path}: its weights do not fit the architecture ({' '.join(str(error).split())[:200]}).") from None
    return architecture, module.eval(), (height, width)


def fresh(space: SearchSpace, architecture: Architecture, *, num_classes: int, resolution: Resolution, seed: int) -> nn.Module:
    """Return an architecture with weights that follow from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return space.build(architecture, num_classes=num_classes, resolution=resolution)


def _epoch(module: nn.Module, train: Batches, recipe: Recipe, optimizer: torch.optim.Optimizer, seed: int, epoch: int, steps: int) -> float:
    order, total = train.order(seed, epoch), 0.0
    module.train()
    for i in range(steps):
        step = epoch * steps + i
        rng = np.random.default_rng([seed, 21, step])
        (x,), target, _ = train.augmented(order[i * recipe.batch : (i + 1) * recipe.batch], recipe.augmentation, recipe.smoothing, rng)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.mixed_precision == "bf16"):
            loss = F.cross_entropy(module(x).float(), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps * recipe.epochs, recipe)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"fine-tuning: diverged in epoch {epoch + 1}, step {i + 1}, got a loss of {value}. "
                f"Do this: a learning rate below {recipe.learning_rate:g}."
            )
        total += value
    return total / steps


def _right(module: nn.Module, batches: Batches) -> npt.NDArray[np.bool_]:
    return np.equal(predictions(module, batches), batches.labels.numpy())


def _calibration(train: Batches) -> Iterable[Tensor]:
    return pictures(train.plain(128, calibration_indices(train)))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
