"""Training of one network: a member taken out of the supernet, at its deployment resolution, or a fresh one.

Resumable to the bit, as the supernet's. The epoch that validation likes best is kept. Batch-norm statistics are taken anew from a few training pictures
before each epoch is scored, and from more of them at the end; those that the training gathers lag behind its weights.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ArtifactError, TrainingError
from nas.events import EventBus, PhaseFinished
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.operator_family import follow, is_scheduled
from nas.spaces.space import Resolution, SearchSpace
from nas.training.dataset import Dataset
from nas.training.memory import keep_compiled_kernels, keep_freed_memory
from nas.training.recipe import compose
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
from nas.training.supernet.epoch import CHECKPOINT_S, REPORT_S, Length, Shown
from nas.training.supernet.statistics import (
    CALIBRATION_PICTURES,
    SCORING_PICTURES,
    calibration_indices,
    pictures,
    predictions,
    recalibrate,
    recalibrated,
)
from nas.training.supernet.teacher import Teacher, distillation_loss
from nas.training.supernet.train import Recipe, learning_rate_at, optimizer_of
from nas.training.supernet.whitening import whiten
from nas.training.threads import kept_threads, quickest_threads

FINETUNING = Recipe(epochs=6, batch=64, learning_rate=1e-3, warmup=0.1, weight_decay=0.02)
"""The default recipe after a supernet."""

ALONE = Recipe(epochs=60, batch=64, learning_rate=3e-3, warmup=0.15, weight_decay=0.05)
"""The default recipe of a network that starts from nothing, at least; a time limit may allow more epochs. Its epochs are set by hand."""

PLAIN = replace(ALONE, epochs=20, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, methods=("low-resolution",), whitening=True)
"""That of a plain convolutional network, which takes pictures of any size: as He et al. train theirs (arXiv 1512.03385, section 4.2), with small pictures first and
a whitening start, which is not told apart from a random one (``experiments/021_own_pictures``)."""

AUGMENTED = replace(PLAIN, augmentation=replace(PLAIN.augmentation, operations=2))
"""That of one that sees few pictures often: varied by two operations of RandAugment. Set by hand, after 8,000 pictures (``experiments/021_own_pictures``)."""

_CPU_MACS = 5e12
"""Multiply-adds that a fine-tuning may take on a CPU: some five minutes of two cores. Set by hand."""


_SHOWN, _MOST_EPOCHS = 540_000, 200
"""Pictures that a network from nothing sees at least, as often as `_MOST_EPOCHS` each: where there are few, more epochs. Set by hand, after 76 and 36 epochs of 8,000 in equal
seconds (``experiments/021_own_pictures``, `short_trainings.py`)."""

_FEW_PICTURES = 27_000
"""Training pictures below which a plain network's are augmented: those that are seen more than 20 times. Set by hand, after 8,000."""


def alone_recipe(space: SearchSpace, dataset: Dataset) -> Recipe:
    """Return `PLAIN` where the networks of a space take pictures of any size, `AUGMENTED` where there are few, else `ALONE`; with more epochs where pictures are few."""
    pictures, plain = dataset.count("train"), isinstance(space, ElasticSpace) and space.any_size
    recipe = (AUGMENTED if pictures < _FEW_PICTURES else PLAIN) if plain else ALONE
    return replace(recipe, epochs=max(recipe.epochs, min(_SHOWN // pictures, _MOST_EPOCHS)))


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
_AVERAGE = "average/"


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


@kept_threads()
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
    left_s: Callable[[], float] | None = None,
    teacher: Teacher | None = None,
    keep_start: bool = False,
) -> Finetuned:
    """Train a network, or go on with the training that `path` holds; the weights are the same either way.

    Args:
        module: The network as it starts; trained in place.
        architecture: What it is.
        dataset: ``train`` gives weights and statistics, ``validation`` the choice of the epoch.
        path: The checkpoint, written after every epoch and twice a minute inside one; at the end it holds the network that is returned.
        recipe: How; of its methods those count that decide the pictures.
        resolution: Of the pictures.
        seed: Of everything random.
        bus: Told of the progress.
        device: Where to train.
        stop_after: Stop when so many epochs are done, as an interruption would.
        left_s: Returns the seconds that are left: the schedule is cut so that it ends then, at `recipe.epochs` at the latest.
        teacher: From whose scores of the training pictures it learns beside the labels.
        keep_start: Whether its weights are trained already: they are not whitened, parts that change with their training keep the form at its end, and the network
            stays as it starts where validation likes no epoch as well.

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
    } | ({"teacher": teacher.key} if teacher else {})
    if scheduled := not keep_start and is_scheduled(module):
        identity["follows"] = True  # which nothing did that was trained alone by 0.1.0
    train, validation = (Batches(dataset, split, resolution, torch.device(device)) for split in ("train", "validation"))
    # after the start was hashed: processors differ in the last bits of components
    if recipe.whitening and not keep_start and not path.is_file():
        whiten(module, _calibration(train, SCORING_PICTURES))
    tuning = _Finetuning(module, train, recipe, seed, teacher, scheduled=scheduled)
    tuning.length.left_s = left_s
    shown = Shown("finetune", bus, recipe.epochs, tuning.length)
    epoch, history, start_pct = 0, list[dict[str, float]](), -1.0
    best = _state(module)

    def accuracy() -> float:
        with recalibrated(module, _calibration(train, SCORING_PICTURES)):
            return 100 * float(np.mean(_right(module, validation)))

    if path.is_file():
        found = read_checkpoint(path, "member")
        check_identity(path, found.identity, identity)
        epoch, history = int(found.progress["epoch"]), list(found.progress["history"])
        best = _under(_BEST, found.tensors)
        module.load_state_dict(_under(_LAST, found.tensors) if epoch < recipe.epochs else best)
        restore_optimizer(tuning.optimizer, found.tensors)
        if tuning.average and epoch < recipe.epochs:
            for name, value in _under(_AVERAGE, found.tensors).items():
                tuning.average.weights[name].copy_(value)
        tuning.threads = {(h, w): count for h, w, count in found.progress.get("threads", []) if count <= torch.get_num_threads()}
        tuning.step, tuning.loss = int(found.progress.get("step", 0)), float(found.progress.get("loss", 0.0))
        start_pct = float(found.progress.get("start_pct", -1.0))
        tuning.length.go_on(found.progress, epoch * tuning.steps + tuning.step)
    elif keep_start:
        start_pct = accuracy()

    def save() -> None:
        tensors = {_BEST + name: tensor for name, tensor in best.items()}
        if epoch < recipe.epochs:
            tensors |= {_LAST + name: tensor for name, tensor in _state(module).items()}
            tensors |= optimizer_tensors(tuning.optimizer.state_dict()["state"])
            if tuning.average:
                tensors |= {_AVERAGE + name: tensor for name, tensor in tuning.average.weights.items()}
        inside: dict[str, float] = {"step": tuning.step, "loss": tuning.loss} if tuning.step else {}
        inside |= ({"start_pct": start_pct} if keep_start else {}) | tuning.length.progress
        threads = [[*size, count] for size, count in tuning.threads.items()]
        write_checkpoint(
            path,
            Checkpoint(
                "member", identity, {"epoch": epoch, "epochs": recipe.epochs, "history": history, "threads": threads, **inside}, tensors
            ),
        )

    shown.start(epoch, tuning.step / tuning.steps, f"{architecture.key} at {resolution[0]}x{resolution[1]} on {dataset.name}")
    while epoch < recipe.epochs and epoch != stop_after:
        loss = tuning.epoch(epoch, shown, save)
        epoch = recipe.epochs if tuning.length.over else epoch + 1
        with tuning.average.in_place() if tuning.average else nullcontext():
            history.append({"loss": loss, "validation_accuracy_pct": accuracy()})
            if history[-1]["validation_accuracy_pct"] >= max(start_pct, *(entry["validation_accuracy_pct"] for entry in history)):
                best = _state(module)
        if epoch == recipe.epochs:
            module.load_state_dict(best)
            recalibrate(module, _calibration(train, CALIBRATION_PICTURES))
            best = _state(module)
        save()
        shown.advance(epoch, history[-1])
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


class _Finetuning:
    """A network's training, step by step.

    Attributes:
        length: Of the whole, in steps.
        scheduled: Whether parts of the network change with this training; between steps they have the form at its end.
        average: Of the weights; None where the recipe averages none.
        threads: Of an operator, for each size of the pictures; those with which a step was quickest when the size came first. Under a time limit alone:
            otherwise the weights are to follow from the seed.
        step: Steps of the present epoch that are done.
        loss: Their sum.
    """

    def __init__(self, module: nn.Module, train: Batches, recipe: Recipe, seed: int, teacher: Teacher | None, *, scheduled: bool) -> None:
        self.module, self.train, self.recipe, self.seed, self.teacher, self.scheduled = module, train, recipe, seed, teacher, scheduled
        self.pictures = compose(recipe.methods).pictures
        self.average = Average(module) if recipe.window else None
        self.optimizer = optimizer_of(recipe, [[p for p in module.parameters() if (p.ndim > 1) is decays] for decays in (True, False)])
        self.steps = train.steps(recipe.batch)
        self.length = Length(self.steps * recipe.epochs, pictures=self.pictures)
        self.threads: dict[Resolution, int] = {}
        self.step, self.loss = 0, 0.0
        self._saved_s = self._told_s = time.monotonic()

    def epoch(self, epoch: int, shown: Shown, save: Callable[[], None]) -> float:
        """Train for one epoch, or for the rest of one, and return its mean loss.

        Raises:
            TrainingError: The loss is no number.
        """
        order = self.train.order(self.seed, epoch)
        self.module.train()
        while self.step < self.steps:
            step = epoch * self.steps + self.step
            self.length.fit(step)
            if step >= self.length.steps and self.step:
                break
            self.loss += self._one(step, order[self.step * self.recipe.batch : (self.step + 1) * self.recipe.batch])
            self.step += 1
            self.length.done = step + 1
            if self.step < self.steps:
                self._watch(epoch, shown, save)
        loss, self.step, self.loss = self.loss / self.step, 0, 0.0
        return loss

    def _watch(self, epoch: int, shown: Shown, save: Callable[[], None]) -> None:
        if time.monotonic() - self._told_s >= REPORT_S:
            shown.within(epoch, self.step / self.steps, self.length.done)
            self._told_s = time.monotonic()
        if time.monotonic() - self._saved_s >= CHECKPOINT_S:
            save()
            self._saved_s = time.monotonic()

    def _one(self, step: int, indices: Tensor) -> float:
        recipe, rng = self.recipe, np.random.default_rng([self.seed, 21, step])
        soft_targets = self.teacher.soft_targets(indices) if self.teacher else None
        progress, whole = step / self.length.steps, self.train.resolution
        augmentation = self.pictures.augmentation(progress, recipe.augmentation)
        (x,), target, _ = self.train.augmented(indices, augmentation, recipe.smoothing, rng, soft_targets=soft_targets)
        x = self.pictures.shrink(x, self.pictures.size(progress, whole))
        if self.scheduled:
            follow(self.module, progress)
        if x.device.type == "cpu" and self.length.left_s is not None:
            self._take_threads(x, target)
        with torch.random.fork_rng(devices=[]):  # dropout and stochastic depth of a published network
            torch.manual_seed(int(rng.integers(2**62)))
            with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.mixed_precision == "bf16"):
                loss = self._loss(self.module(x).float(), target)
            self.optimizer.zero_grad()
            loss.backward()
        if self.scheduled:
            follow(self.module, 1.0)
        nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.length.steps, recipe)
        self.optimizer.step()
        if self.average:
            self.average.add(recipe.decay_at(step, self.length.steps))
        value = float(loss.detach())
        if not math.isfinite(value):
            epoch, i = divmod(step, self.steps)
            raise TrainingError(
                f"fine-tuning: diverged in epoch {epoch + 1}, step {i + 1}, got a loss of {value}. "
                f"Do this: a learning rate below {recipe.learning_rate:g}."
            )
        return value

    def _take_threads(self, x: Tensor, target: Tensor) -> None:
        height, width = x.shape[2:]
        if (height, width) not in self.threads:
            trial = copy.deepcopy(self.module)
            with torch.random.fork_rng(devices=[]):
                self.threads[height, width] = quickest_threads(lambda: self._loss(trial(x).float(), target).backward())
        torch.set_num_threads(self.threads[height, width])

    def _loss(self, scores: Tensor, target: Tensor) -> Tensor:
        if self.teacher is None:
            return F.cross_entropy(scores, target)
        by_labels, soft_targets = target.split(scores.shape[1], 1)
        return distillation_loss(scores, by_labels, soft_targets, self.recipe.distillation)


def _right(module: nn.Module, batches: Batches) -> npt.NDArray[np.bool_]:
    return np.equal(predictions(module, batches), batches.labels.numpy())


def _calibration(train: Batches, count: int) -> Iterable[Tensor]:
    return pictures(train.plain(128, calibration_indices(train, count)))


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
