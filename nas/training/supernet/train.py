"""Training of the supernet by a recipe (`nas.training.recipe`), resumable to the bit.

Every random choice follows from (seed, epoch, step), so a checkpoint needs weights, the optimiser's moments and the
number of finished epochs, nothing else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from nas.errors import ArtifactError, NasError, TrainingError, UsageError
from nas.events import EventBus, PhaseFinished
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset
from nas.training.memory import keep_compiled_kernels, keep_freed_memory
from nas.training.recipe import Moment, Plan, Seen, compose
from nas.training.supernet.batches import Augmentation, Batches
from nas.training.supernet.checkpoint import (
    Checkpoint,
    check_identity,
    check_pictures,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from nas.training.supernet.draws import fair_members
from nas.training.supernet.epoch import Begun, Keeper, Length, Shown
from nas.training.supernet.fitting import fit, held_slots
from nas.training.supernet.footprint import check_memory
from nas.training.supernet.weights import Supernet

log = logging.getLogger(__name__)

Draw = Callable[[int, int], Sequence[Architecture]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights are trained.

    Attributes:
        epochs: Passes over the training pictures; 0 where weights that others have trained are left as they are.
        batch: Pictures a step, over all processes.
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum 0.9.
        learning_rate: At the peak of the one-cycle schedule.
        warmup: Share of the steps in which the rate rises; then it falls as a cosine to zero.
        weight_decay: On tensors of two or more axes.
        clip: Largest norm of the gradient.
        smoothing: Of the labels.
        distillation: Share of the loss that comes from a teacher's outputs, where one teaches: a supernet's largest member the others,
            a published network a choice that is fine-tuned (`nas.training.supernet.teacher`).
        random_members: Beside the largest and the smallest; recipes without those train two more.
        augmentation: Of the pictures.
        mixed_precision: ``no`` or ``bf16``.
        methods: Recipes of supernet training by name, see `nas.training.recipe.compose`; the default's where there are none.
        whitening: Whether a single network's first convolution starts with the principal components of the pictures (`nas.training.supernet.whitening`).
        window: Share of the steps over which the weights of a single network are averaged; the average is what is scored and exported. 0 averages nothing.
    """

    epochs: int = 30
    batch: int = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    warmup: float = 0.15
    weight_decay: float = 0.05
    clip: float = 5.0
    smoothing: float = 0.1
    distillation: float = 0.5
    random_members: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixed_precision: Literal["no", "bf16"] = "no"
    methods: tuple[str, ...] = ()
    window: float = 0.0
    whitening: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"training: batch must be positive, got {self.batch}.")
        if self.epochs < 0:
            raise UsageError(f"training: epochs must not be negative, got {self.epochs}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"training: the learning rate must be positive, got {self.learning_rate}.")

    @property
    def entries(self) -> dict[str, Any]:
        """The recipe as checkpoints have it: what came later is left out where it is not used, so that older ones still fit."""
        own = asdict(self)
        own["augmentation"] = self.augmentation.entries
        later = {"methods": list(own.pop("methods")), "window": own.pop("window"), "whitening": own.pop("whitening")}
        return own | {name: value for name, value in later.items() if value}

    def decay_at(self, step: int, steps: int) -> float:
        """Return the share that the averaged weights keep at a step: little at first, so that the start is forgotten.

        Source:
            TensorFlow's ``(1 + step) / (10 + step)`` at the start of an exponential average.
        """
        return min(1 - 1 / (1 + self.window * steps), (step + 1) / (step + 10))


PASSES = 3.25
"""Epochs of one member a step that take as long as one of four members, measured on ``hybrid-s`` (``experiments/014_rank``)."""


def default_recipe(dataset: Dataset, space: ElasticSpace | None = None) -> Recipe:
    """Return a recipe of shared weights for the amount of data and the machine: two CPU cores spend a quarter of an hour at most at 32 pixels.

    One member a step, drawn at random, orders members best for its minutes (``experiments/014_rank``, ``experiments/029_supernet_ranking``). A space of trained
    networks starts without training, since what is new in it is fitted; where it is trained, its slowest anchor teaches.
    """
    recipe = member_recipe(dataset)
    if isinstance(space, ChainSpace):
        return replace(recipe, epochs=0, learning_rate=1e-3)
    return replace(recipe, epochs=round(PASSES * recipe.epochs), methods=("single-path",))


def member_recipe(dataset: Dataset) -> Recipe:
    """Return a recipe of one network alone, as long as four members a step take in a quarter of an hour at most; on a GPU for more pictures."""
    presented = 8_000_000 if torch.cuda.is_available() else 160_000
    epochs = min(max(presented // dataset.count("train"), 4), 300 if torch.cuda.is_available() else 24)
    return Recipe(epochs=epochs, batch=64 if dataset.count("train") < 4096 else 128)


def default_resolution(dataset: Dataset, least: int = 32) -> Resolution:
    """Return the resolution at which a supernet trains: the data's own up to 128, at least `least`, a multiple of 32; square."""
    side = min(max(dataset.resolution), 128) if dataset.resolution else 128
    side = max(least, -(-side // 32) * 32)
    return side, side


@dataclass(frozen=True, slots=True)
class Trained:
    """A supernet with what is known of its training.

    Attributes:
        supernet: The weights.
        history: One entry an epoch, numbers by name.
        seconds: Of this session.
    """

    supernet: Supernet
    history: tuple[Mapping[str, float], ...]
    seconds: float


def train(
    space: ElasticSpace,
    dataset: Dataset,
    path: Path,
    recipe: Recipe,
    *,
    resolution: Resolution,
    seed: int = 0,
    bus: EventBus | None = None,
    device: str | None = None,
    stop_after: int | None = None,
    draw: Draw | None = None,
    left_s: Callable[[], float] | None = None,
) -> Trained:
    """Train a supernet, or go on with the training that `path` holds; the weights are the same either way.

    Started by ``torchrun``, each process takes its share of every batch; batch norms see the whole of it.

    Args:
        space: Whose members are trained.
        dataset: Of which ``train`` is used.
        path: The checkpoint, written after every epoch and twice a minute inside one.
        recipe: How.
        resolution: Proxy resolution.
        seed: Of everything random.
        bus: Told of the progress.
        device: Default: a GPU where there is one.
        stop_after: Stop when so many epochs are done, as an interruption would.
        draw: Gives the random members of a step, (step, count) -> members; by default every gene is drawn equally often.
        left_s: Returns the seconds that are left for the training: its schedule is cut so that it ends then, at `recipe.epochs` at the latest.

    Raises:
        UsageError: More pictures a step than there are, or not divisible among the processes.
        TrainingError: It would not fit into memory, diverged or collapsed.
        ArtifactError: `path` holds something else.
    """
    started = time.monotonic()
    keep_freed_memory()
    keep_compiled_kernels()
    bus = bus or EventBus()
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=recipe.mixed_precision)
    recipe = replace(recipe, batch=min(recipe.batch, dataset.count("train")))
    if recipe.batch % accelerator.num_processes:
        raise UsageError(f"training: {recipe.batch} pictures a step do not divide among {accelerator.num_processes} processes.")
    if left_s is not None and accelerator.num_processes > 1:
        raise UsageError("training: a time limit holds for one process, got several of torchrun. Do this: --epochs.")
    plan = compose(recipe.methods)
    if isinstance(space, ChainSpace) and plan.sharing.copies(space) > 1:
        raise UsageError(
            "training: a chain has the weights of its anchors, got a recipe that gives it several copies. Do this: leave it out."
        )
    check_memory(
        space, dataset.num_classes, recipe.batch, resolution, accelerator.device, accelerator.num_processes, plan.sharing.copies(space)
    )
    supernet = Supernet(space, dataset.num_classes, resolution, seed=seed, device=str(accelerator.device), sharing=plan.sharing)
    supernet.synchronised = accelerator.num_processes > 1
    identity = identity_of(supernet, dataset, recipe, seed)
    run = Training(supernet, Batches(dataset, "train", resolution, accelerator.device), recipe, seed, accelerator, draw, plan)
    run.length.left_s = left_s
    epoch, history, begun = 0, list[dict[str, float]](), Begun()
    if (found := checkpoint_of_first(path, identity, accelerator)) is not None:
        epoch, history = int(found.progress["epoch"]), list(found.progress["history"])
        begun = Begun.of(found.progress)
        run.length.go_on(found.progress, epoch * run.steps + begun.step)
        load_tensors(supernet, found.tensors, path)
        run.restore(found.tensors)
    elif isinstance(space, ChainSpace):
        fit(supernet, lambda size: Batches(dataset, "train", size, accelerator.device), bus)
        write_checkpoint(path, Checkpoint("supernet", identity, {"epoch": 0, "epochs": recipe.epochs, "history": []}, supernet.tensors))
        run.hold()
    shown = Shown("train", bus, recipe.epochs, run.length)
    shown.start(epoch, begun.step / run.steps, f"{space.name} at {resolution[0]}x{resolution[1]} on {dataset.name}")
    keep = Keeper(path, identity, recipe.epochs, supernet.tensors, run.state, shown) if accelerator.is_main_process else None
    while epoch < recipe.epochs and epoch != stop_after:
        numbers = run.epoch(epoch, begun, keep.within(epoch, history, run.steps) if keep else None)
        epoch, begun = recipe.epochs if run.length.over else epoch + 1, Begun()
        history.append(numbers)
        if epoch == recipe.epochs:
            run.part()
        if keep:
            keep.save(epoch, history, begun)
        accelerator.wait_for_everyone()
        shown.advance(epoch, numbers)
    supernet.history = tuple(history)
    done = Trained(supernet, supernet.history, time.monotonic() - started)
    bus.emit(PhaseFinished("train", done.seconds))
    return done


def checkpoint_of_first(path: Path, identity: Mapping[str, Any], accelerator: Accelerator) -> Checkpoint | None:
    """Return what the first process has at `path`, in every process: on several hosts the others may have nothing there, or something older.

    Raises:
        ArtifactError: It is damaged, or of another training.
    """
    found: list[Any] = [None]
    if accelerator.is_main_process and path.is_file():
        try:
            found = [read_checkpoint(path, "supernet")]
            check_identity(path, found[0].identity, identity)
        except ArtifactError as error:
            found = [str(error)]
    if accelerator.num_processes > 1:
        found = broadcast_object_list(found)
    if isinstance(found[0], str):
        raise ArtifactError(found[0])
    return cast("Checkpoint | None", found[0])


def identity_of(supernet: Supernet, dataset: Dataset, recipe: Recipe, seed: int) -> dict[str, object]:
    """Return what a checkpoint says of itself."""
    return _anchors_of(supernet.space) | {
        "space": supernet.space.name,
        "layout": supernet.layout,
        "classes": supernet.num_classes,
        "resolution": list(supernet.resolution),
        "data": dataset.key,
        "seed": seed,
        "recipe": recipe.entries,
    }


def _anchors_of(space: ElasticSpace) -> dict[str, object]:
    """Return what a checkpoint says of the networks that a chain is made of; nothing for other spaces."""
    if not isinstance(space, ChainSpace):
        return {}
    return {"anchors": [chain.key for chain in space.anchors], "frozen": space.frozen, "importance": space.importance}


def load_supernet(path: Path, space: ElasticSpace, dataset: Dataset | None = None, *, device: str = "cpu") -> Supernet:
    """Return the supernet of a file, for a space whose slots the file covers.

    Args:
        path: Of the file.
        space: Of the members.
        dataset: Whose pictures score and test members; None where others have seen to it that it was trained on these.
        device: Where the weights are to be.

    Raises:
        ArtifactError: Missing, damaged, unfinished, of another space or of other anchors, or trained on other pictures.
    """
    found = read_checkpoint(path, "supernet")
    if found.identity.get("space") != space.name:
        raise ArtifactError(f"checkpoint {path}: of another space, got {found.identity.get('space')!r}. Expected {space.name!r}.")
    anchors = _anchors_of(space)
    check_identity(path, {name: found.identity.get(name) for name in anchors}, anchors)
    if dataset is not None:
        seed = found.identity.get("seed", 0)
        check_pictures(path, found.identity, dataset, f"Do this: give what it was trained with: the same --data, and --seed {seed}.")
    if found.progress["epoch"] < found.progress["epochs"]:
        done = f"{found.progress['epoch']} of {found.progress['epochs']} epochs"
        raise ArtifactError(f"checkpoint {path}: the training is unfinished, got {done}. Do this: nas train with the same settings.")
    height, width = found.identity["resolution"]
    supernet = Supernet(space, int(found.identity["classes"]), (height, width), device=device, sharing=_plan_of(found, path).sharing)
    load_tensors(supernet, found.tensors, path)
    supernet.history = tuple(found.progress["history"])
    return supernet


def _plan_of(found: Checkpoint, path: Path) -> Plan:
    recipe = found.identity.get("recipe")
    methods = recipe.get("methods", []) if isinstance(recipe, dict) else []
    if not isinstance(methods, list):
        raise ArtifactError(f"checkpoint {path}: its recipes are no list of names, got {str(methods)[:100]!r}.")
    try:
        return compose([str(name) for name in methods])
    except UsageError as error:
        raise ArtifactError(f"checkpoint {path}: trained by a recipe that is not here ({error}).") from None


def load_tensors(supernet: Supernet, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy the weights of a file into a supernet; tensors that the space does not need are ignored.

    Raises:
        ArtifactError: A tensor is missing or has another shape.
    """
    for name, own in supernet.tensors.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != tuple(own.shape):
            raise ArtifactError(f"checkpoint {path}: {name} does not fit the space, got {shape}. Expected {tuple(own.shape)}.")
    for name, own in supernet.tensors.items():
        own.copy_(tensors[name])


class Training:
    """The state of a training and its step.

    Args:
        supernet: Trained in place.
        batches: Training pictures.
        recipe: How.
        seed: Of everything random.
        accelerator: Device, precision and processes.
        draw: See `train`.
        plan: Recipes, composed; by default those that `recipe` names.
    """

    def __init__(
        self,
        supernet: Supernet,
        batches: Batches,
        recipe: Recipe,
        seed: int,
        accelerator: Accelerator,
        draw: Draw | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.supernet, self.batches, self.recipe, self.seed, self.accelerator = supernet, batches, recipe, seed, accelerator
        self._draw, self.plan = draw, plan or compose(recipe.methods)
        if supernet.copies != (wanted := self.plan.sharing.copies(supernet.space)):
            raise NasError(f"training: the supernet has {supernet.copies} copies of its weights. Expected {wanted}, as its recipe has.")
        for one in self.plan.recipes:
            one.begin(supernet.space, len(batches))
        supernet.apart = supernet.copies == 1
        self._held: tuple[Tensor, Tensor] | None = None
        border = supernet.decayed
        self.parameters = [nn.Parameter(supernet.flat[:border]), nn.Parameter(supernet.flat[border:])]
        self.parameters[0].grad, self.parameters[1].grad = supernet.gradient[:border], supernet.gradient[border:]
        self.optimizer = optimizer_of(recipe, [[p] for p in self.parameters])
        self.largest, self.smallest = supernet.space.extreme(True), supernet.space.extreme(False)
        self.steps = batches.steps(recipe.batch)
        self.length = Length(self.steps * recipe.epochs, pictures=self.plan.pictures)
        self._same_class_epochs = 0
        least = 2 * (2 + recipe.random_members) * accelerator.num_processes
        if self.plan.members.shares and recipe.batch < least:
            raise UsageError(
                f"training: too few pictures a step to be shared among members, got {recipe.batch}. Expected at least {least}."
            )

    def state(self) -> dict[str, Tensor]:
        """Return as named tensors what the optimiser and recipes keep, and whether the copies of the weights are apart."""
        own = {"apart": torch.tensor(self.supernet.apart)} if self.supernet.copies > 1 else {}
        return optimizer_tensors(self.optimizer.state_dict()["state"]) | self.plan.kept | own

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned.

        Raises:
            ArtifactError: Something of a recipe's is missing or has another shape.
        """
        restore_optimizer(self.optimizer, tensors)
        for name, own in self.plan.kept.items():
            if name in tensors and tensors[name].shape == own.shape:
                own.copy_(tensors[name])
            elif any(found.startswith("optimizer/") for found in tensors):
                raise ArtifactError(f"checkpoint: {name} is missing or does not fit the training.")
        self.supernet.apart = self.supernet.copies == 1 or bool(tensors.get("apart", True))
        self.hold()

    def part(self) -> None:
        """Let every member use the copy of the weights that the recipe says; until then all have trained the first."""
        if not self.supernet.apart:
            moments = self.optimizer.state_dict()["state"]
            names = [name for name, tensor in moments.get(0, {}).items() if tensor.shape == self.parameters[0].shape]
            self.supernet.spread(*((moments[0][name], moments[1][name]) for name in names))
            self.supernet.apart = True

    def hold(self) -> None:
        """Hold the weights that a space of trained networks does not want to move, as they are now."""
        space = self.supernet.space
        if isinstance(space, ChainSpace) and space.frozen:
            mask = held_slots(self.supernet)
            self._held = mask, self.supernet.flat[mask].clone()

    def members(self, step: int, indices: Tensor) -> Sequence[Architecture]:
        """Return the members of a step, as the recipe has them."""
        space, seed = self.supernet.space, self.seed
        draw = self._draw or partial(fair_members, space, seed)
        return self.plan.members.members(
            Moment(space, step, self.length.steps, seed, self.recipe.random_members, draw, partial(self._loss_of, step, indices))
        )

    def _loss_of(self, step: int, indices: Tensor, architecture: Architecture) -> float:
        """Return a member's loss on the pictures of a step; nothing is learned."""
        recipe, size = self.recipe, self.supernet.space.proxy(architecture, self.supernet.resolution)
        rng = np.random.default_rng([self.seed, 14, step])
        (x,), target, _ = self.batches.augmented(indices, recipe.augmentation, recipe.smoothing, rng, [size])
        with torch.no_grad(), self.accelerator.autocast():
            return float(F.cross_entropy(self.supernet.path(architecture).train()(x).float(), target))

    def epoch(self, epoch: int, begun: Begun | None = None, watch: Callable[[Begun], None] | None = None) -> dict[str, float]:
        """Train for one epoch, or for the rest of one, and return its numbers.

        Args:
            epoch: Its number.
            begun: How far it has come; brought up to date after each step.
            watch: Told of `begun` after each step.

        Raises:
            TrainingError: The loss is not a number, or the largest member gives every picture one class.
        """
        order, begun = self.plan.order.order(self.batches.order(self.seed, epoch), self.seed, epoch), begun or Begun()
        for i in range(begun.step, self.steps):
            step = epoch * self.steps + i
            self.length.fit(step)
            if step >= self.length.steps and begun.step:
                break
            if step >= self.plan.sharing.together * self.length.steps:
                self.part()
            chosen = order[i * self.recipe.batch : (i + 1) * self.recipe.batch]
            losses, right, seen = self.step(step, chosen)
            if not math.isfinite(sum(losses)):
                raise TrainingError(
                    f"training: diverged in epoch {epoch + 1}, step {i + 1}, got a loss of {sum(losses)}. "
                    f"Do this: a learning rate below {self.recipe.learning_rate:g}."
                )
            begun.classes |= seen
            second = losses[min(1, len(losses) - 1)]
            begun.sums = [total + new for total, new in zip(begun.sums, (losses[0], second, right, len(chosen)), strict=True)]
            begun.step += 1
            if watch:
                watch(begun)
        sums, classes = begun.sums, begun.classes
        first, second_name = ("largest", "smallest") if self.plan.members.teaches else ("first", "second")
        self.length.done = epoch * self.steps + begun.step
        self._same_class_epochs = self._same_class_epochs + 1 if len(classes) == 1 else 0
        if self._same_class_epochs == 2:
            raise TrainingError(
                f"training: collapsed by epoch {epoch + 1}, the {first} member gives every picture class {min(classes)}. "
                f"Do this: a learning rate below {self.recipe.learning_rate:g}, or more data."
            )
        return {
            f"loss_{first}": sums[0] / begun.step,
            f"loss_{second_name}": sums[1] / begun.step,
            "train_accuracy_pct": 100 * sums[2] / sums[3],
        }

    def step(self, step: int, indices: Tensor) -> tuple[list[float], float, set[int]]:
        """Train all members of a step on one batch.

        Returns:
            Each member's loss, how often the largest was right, and which classes it gave.
        """
        recipe, accelerator = self.recipe, self.accelerator
        rng = np.random.default_rng([self.seed, 12, step])
        members, plan = self.members(step, indices), self.plan
        progress = step / self.length.steps
        space, whole, augmentation = self.supernet.space, self.supernet.resolution, recipe.augmentation
        resolution, augmentation = plan.pictures.size(progress, whole), plan.pictures.augmentation(progress, augmentation)
        sizes = [space.proxy(member, whole) for member in members]
        inputs, target, labels = self.batches.augmented(indices, augmentation, recipe.smoothing, rng, sizes)
        inputs = [plan.pictures.shrink(x, space.proxy(member, resolution)) for x, member in zip(inputs, members, strict=True)]
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        inputs, target, labels = [x[mine] for x in inputs], target[mine], labels[mine]
        self.supernet.gradient.zero_()
        losses, teacher, weights = [], torch.empty(0), plan.order.weights(indices[mine])
        slopes, residuals = list[Tensor](), torch.zeros(len(indices), device=labels.device)
        right, seen = torch.zeros((), device=labels.device), set[int]()
        shares = _shares(len(target), len(members)) if plan.members.shares else [slice(None)] * len(members)
        for i, (architecture, x, own) in enumerate(zip(members, inputs, shares, strict=True)):
            path = self.supernet.path(architecture, gradients=True, resolution=resolution).train().follow(progress)
            with accelerator.autocast():
                scores = path(x[own]).float()
                if i == 0:
                    each = F.cross_entropy(scores, target[own], reduction="none")
                    teacher = scores.detach().softmax(1)
                    given = scores.detach().argmax(1)
                    right, seen = (given == labels[own]).sum() * len(labels) / len(given), set(given.tolist())
                else:
                    each = plan.teaching.loss(scores, target[own], teacher, recipe.distillation)
                loss = (each if weights is None else each * weights[own].to(each)).mean()
                if plan.members.shares:
                    loss = loss * (len(scores) / len(target))
            loss.backward()
            path.follow(1.0).add_gradients()
            if plan.watchers:
                slopes.append(path.slope())
                found = (scores.detach().softmax(1) - target[own]).norm(dim=1)
                residuals[mine][own] += found if plan.members.shares else found / len(members)
            losses.append(loss.detach())
        shared = torch.stack([*losses, right.float()])
        if accelerator.num_processes > 1:
            self.supernet.gradient.copy_(accelerator.reduce(self.supernet.gradient, "mean"))
            shared = accelerator.reduce(shared, "mean")
            shared[-1] *= accelerator.num_processes
        if plan.watchers:
            self._tell(Seen(members, torch.stack(slopes), indices, residuals, (step + 1) % self.steps == 0))
        if (norm := float(self.supernet.gradient.norm())) > recipe.clip:
            self.supernet.gradient.mul_(recipe.clip / norm)
        rate = learning_rate_at(step, self.length.steps, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self._held is not None:
            self.supernet.flat[self._held[0]] = self._held[1]
        *means, right_all = shared.tolist()
        return means, right_all, seen

    def _tell(self, seen: Seen) -> None:
        """Tell the recipes that watch what the step has found, the same in all processes."""
        if self.accelerator.num_processes > 1:
            slopes, residuals = self.accelerator.reduce(seen.slopes, "mean"), self.accelerator.reduce(seen.residuals, "sum")
            seen = replace(seen, slopes=slopes, residuals=residuals)
        for recipe in self.plan.watchers:
            recipe.watch(replace(seen, slopes=seen.slopes.cpu(), residuals=seen.residuals.cpu()))


def _shares(pictures: int, members: int) -> list[slice]:
    """Return which pictures each member of a step sees where they share the batch."""
    edges = np.linspace(0, pictures, members + 1).round().astype(int).tolist()
    return [slice(low, high) for low, high in pairwise(edges)]


def optimizer_of(recipe: Recipe, parameters: Sequence[list[nn.Parameter]]) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe for (decaying, other) parameters."""
    groups: list[dict[str, object]] = [
        {"params": parameters[0], "weight_decay": recipe.weight_decay},
        {"params": parameters[1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)


def learning_rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine to zero (Smith, arXiv 1708.07120)."""
    rise = max(1, round(recipe.warmup * steps))
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))
