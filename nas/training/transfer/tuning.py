"""Fine-tuning in steps: a schedule that is fixed at the start, weights averaged on the way, nothing lost but the last minute.

Everything random follows from (seed, step), so that a training which was killed goes on as if it had not been.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from nas.errors import TrainingError
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset
from nas.training.supernet.average import Average
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
from nas.training.supernet.train import learning_rate_at, optimizer_of
from nas.training.transfer.recipe import TransferRecipe

CHECKPOINT_S = 30.0
"""Seconds between two checkpoints: what a kill loses at most, and a step. Set by hand."""

_COMPARED, _LOST_PCT = 400, 5.0
"""Pictures from which statistics are taken anew, and on which that is judged; points of accuracy that it may cost. Set by hand."""

_LAST, _AVERAGE = "last/", "best/"
"""Prefixes of the weights that are trained, and of their average; the latter as `nas.training.supernet.finetune` names what is exported."""


@dataclass
class Tuning:
    """A network that is being fine-tuned. `advance` trains; `averaged` is what it is worth.

    Args:
        module: As it starts, in evaluation mode; it is trained in place.
        dataset: Normalised as the network expects.
        size: Deployment size of the pictures.
        path: The checkpoint; where it exists the training goes on from it.
        recipe: How.
        steps: Of the whole schedule; a checkpoint's own number wins.
        architecture: JSON of what it is, for the checkpoint.
        seed: Of everything random.
        device: Where to train.

    Attributes:
        step: Steps that are done.
        seconds: A step takes by size of picture, as measured in this session.
        history: An entry an epoch.

    Raises:
        ArtifactError: `path` holds another training.
    """

    module: nn.Module
    dataset: Dataset
    size: Resolution
    path: Path
    recipe: TransferRecipe
    steps: int
    architecture: str
    seed: int = 0
    device: str = "cpu"
    step: int = field(default=0, init=False)
    seconds: dict[Resolution, float] = field(default_factory=dict, init=False)
    history: list[dict[str, float]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.module = self.module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train = Batches(self.dataset, "train", self.size, torch.device(self.device))
        self.batch = min(self.recipe.batch, len(self.train))
        self._optimizer = optimizer_of(
            self.recipe, [[p for p in self.module.parameters() if (p.ndim > 1) is decays] for decays in (True, False)]
        )
        self._average = Average(self.module)
        self._loss, self._since = 0.0, 0
        if self.path.is_file():
            self._restore()

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "architecture": self.architecture,
            "classes": self.dataset.num_classes,
            "resolution": list(self.size),
            "data": self.dataset.key,
            "seed": self.seed,
            "recipe": self.recipe.entries,
        }

    @property
    def epoch_steps(self) -> int:
        """Steps in which every training picture is seen once."""
        return self.train.steps(self.batch)

    def advance(self, until: int, report: Callable[[int, Mapping[str, float]], None] | None = None) -> None:
        """Train up to a step; a checkpoint is written on the way and at the end.

        Args:
            until: At most `steps`.
            report: Told of (step, numbers) after every step.

        Raises:
            TrainingError: The loss is no number.
        """
        saved_s = time.monotonic()
        self.module.train(not self.recipe.frozen_norms)
        while self.step < min(until, self.steps):
            began_s, size = time.monotonic(), self.recipe.size_at(self.step, self.steps, self.size)
            loss = self._one(size)
            self.step += 1
            took_s = time.monotonic() - began_s
            self.seconds[size] = took_s if self.step == 1 else 0.9 * self.seconds.get(size, took_s) + 0.1 * took_s
            self._loss, self._since = self._loss + loss, self._since + 1
            if self.step % self.epoch_steps == 0 or self.step == self.steps:
                self.history.append({"step": self.step, "loss": self._loss / self._since})
                self._loss, self._since = 0.0, 0
            if report:
                report(self.step, {"loss": loss})
            if time.monotonic() - saved_s >= CHECKPOINT_S:
                self.save()
                saved_s = time.monotonic()
        self.save()

    def _one(self, size: Resolution) -> float:
        epoch, i = divmod(self.step, self.epoch_steps)
        order = self.train.order(self.seed, epoch)[i * self.batch : (i + 1) * self.batch]
        recipe, rng = self.recipe, np.random.default_rng([self.seed, 31, self.step])
        (x,), target, _ = self.train.augmented(order, recipe.augmentation, recipe.smoothing, rng, [size])
        with torch.random.fork_rng(devices=[]):  # dropout and stochastic depth of a published network
            torch.manual_seed(int(rng.integers(2**62)))
            loss = F.cross_entropy(self.module(x).float(), target)
            self._optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.steps, recipe)
        self._optimizer.step()
        self._average.add(recipe.decay_at(self.step, self.steps))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"fine-tuning: diverged at step {self.step + 1} of {self.steps}, got a loss of {value}. "
                f"Do this: a learning rate below {recipe.learning_rate:g}."
            )
        return value

    def forecast_s(self, steps: int) -> float:
        """Return the seconds that a schedule of so many steps still takes, by the steps that were timed; sizes not met go by their pixels."""
        if not self.seconds:
            raise ValueError("no step was timed")
        known = max(self.seconds, key=lambda size: size[0] * size[1])
        total, step = 0.0, self.step
        while step < steps:
            size, run = self.recipe.size_at(step, steps, self.size), max(1, steps // 50)
            each = self.seconds.get(size, self.seconds[known] * size[0] * size[1] / (known[0] * known[1]))
            total += each * min(run, steps - step)
            step += run
        return total

    def fit_into(self, seconds: float, most_epochs: float = math.inf) -> None:
        """Choose the number of steps so that the schedule ends after so many more seconds, by the steps that were timed, or after so many epochs in all."""
        low, high = self.step + 1, self.step + 2
        while high < 10**7 and self.forecast_s(high) < seconds:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.forecast_s(middle) <= seconds else (low, middle)
        self.steps = int(min(low, max(self.step + 1, most_epochs * self.epoch_steps)))

    def averaged(self) -> nn.Module:
        """Return a network with the averaged weights, in evaluation mode; its norm statistics are taken anew unless they are frozen."""
        network = copy.deepcopy(self.module).eval()
        self._average.copy_to(network)
        if not self.recipe.frozen_norms:
            recalibrate(network, pictures(self.train.plain(128, calibration_indices(self.train))))
        return network

    def save(self) -> None:
        """Write the checkpoint."""
        progress = {"epoch": self.step, "epochs": self.steps, "history": self.history, "loss": self._loss, "since": self._since}
        tensors = {_LAST + name: value for name, value in self.module.state_dict().items()}
        tensors |= {_AVERAGE + name: value for name, value in self._average.weights.items()}
        tensors |= optimizer_tensors(self._optimizer.state_dict()["state"])
        write_checkpoint(self.path, Checkpoint("member", self.identity, progress, tensors))

    def _restore(self) -> None:
        checkpoint = read_checkpoint(self.path, "member")
        check_identity(self.path, checkpoint.identity, self.identity)
        self.step, self.steps = int(checkpoint.progress["epoch"]), int(checkpoint.progress["epochs"])
        self.history = list(checkpoint.progress["history"])
        self._loss, self._since = float(checkpoint.progress.get("loss", 0.0)), int(checkpoint.progress.get("since", 0))
        state = {name.removeprefix(_LAST): value for name, value in checkpoint.tensors.items() if name.startswith(_LAST)}
        self.module.load_state_dict(state)
        for name, value in self._average.weights.items():
            value.copy_(checkpoint.tensors[_AVERAGE + name])
        restore_optimizer(self._optimizer, checkpoint.tensors)


def right_on_validation(network: nn.Module, dataset: Dataset, size: Resolution, device: str = "cpu") -> npt.NDArray[np.bool_]:
    """Return for each validation picture whether a network in evaluation mode names its class."""
    validation = Batches(dataset, "validation", size, torch.device(device))
    right: npt.NDArray[np.bool_] = np.equal(predictions(network, validation, 64), validation.labels.numpy())
    return right


def keeps_norms(network: nn.Module, dataset: Dataset, size: Resolution, right: npt.NDArray[np.bool_], device: str = "cpu") -> bool:
    """Return whether a network is to be fine-tuned with its norm statistics as they are, since it is worth much less with those of the user's pictures.

    Small pictures that are scaled up have other statistics than photographs. EfficientNet-Lite's probes lose 12 to 15 points when theirs are taken
    anew (``experiments/021_own_pictures/norms.py``); others lose little, and gain from statistics of batches. A step is a quarter quicker with those that are kept.

    Args:
        network: In evaluation mode; its statistics are changed.
        dataset: Normalised as the network expects.
        size: Of the pictures.
        right: For each validation picture, whether the network as it was names its class.
        device: Where to run.
    """
    train, validation = (Batches(dataset, split, size, torch.device(device)) for split in ("train", "validation"))
    recalibrate(network, pictures(train.plain(64, calibration_indices(train, _COMPARED))))
    few = calibration_indices(validation, _COMPARED)
    with torch.no_grad():
        named = torch.cat([network(x).argmax(1).cpu() for x, _ in validation.plain(64, few)])
    now_pct = 100 * float((named == validation.labels[few]).double().mean())
    return 100 * float(right[few.numpy()].mean()) - now_pct > _LOST_PCT


def write_member(path: Path, network: nn.Module, identity: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> None:
    """Write a finished network as `nas.training.supernet.finetune.load_member` reads it.

    Args:
        path: Replaced where it exists.
        network: As it is shipped.
        identity: ``architecture`` (JSON), ``classes`` and ``resolution`` at least.
        history: Of its training.
    """
    tensors = {_AVERAGE + name: value for name, value in network.state_dict().items()}
    steps = len(history)
    write_checkpoint(path, Checkpoint("member", identity, {"epoch": steps, "epochs": steps, "history": list(history)}, tensors))
