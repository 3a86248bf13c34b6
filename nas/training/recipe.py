"""The contract of a recipe of supernet training: one idea of which members a step trains, what they learn from, or which pictures they see.

Life of a recipe::

    compose(names)                  once a training: one recipe an aspect; what nobody names is the default's
            │
    Order.order, .weights           which pictures an epoch sees, and how much each counts
    Members.members(moment)         which members the step trains, the teacher first where there is one
    Sharing.copy_of                 with which copy of the weights
    Pictures.size, .augmentation    at which size they are shown the batch, and how it is changed
    Teaching.loss                   what each member but the first learns from
            │
    watch(seen)                     what the step has found, for recipes that follow it

The pictures' part serves a network that is trained by itself, too (`nas.training.supernet.finetune`).

A recipe is one file in ``nas/training/recipes/``. What it does follows from (seed, step), the weights and the tensors in `SupernetRecipe.kept`, which a
checkpoint has, so that an interrupted training goes on to the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from nas.errors import UsageError
from nas.registry import Registry
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.operator_family import Source
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.supernet.batches import Augmentation

MULTIPLE = 4
"""Of pixels, that a smaller picture's sides are. Set by hand."""

Aspect = Literal["members", "teaching", "pictures", "order", "sharing"]


@dataclass(frozen=True)
class Moment:
    """A step of a training.

    Attributes:
        space: Whose members are trained.
        step: Its number, from 0.
        steps: Of the whole training.
        seed: Of everything random.
        count: Random members that a step is to train.
        draw: Gives so many members, every setting equally often over the steps: (step, count) -> members.
        loss_of: Gives a member's loss on the step's pictures; nothing is learned from it.
    """

    space: ElasticSpace
    step: int
    steps: int
    seed: int
    count: int
    draw: Callable[[int, int], Sequence[Architecture]]
    loss_of: Callable[[Architecture], float]

    @property
    def progress(self) -> float:
        """The share of the steps that is done, 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class Seen:
    """What a step has found, over all processes.

    Attributes:
        members: That it trained.
        slopes: Norm of the gradient of each one's loss by its weights, (members,).
        pictures: Their numbers, (n,).
        residuals: For each picture, the norm of the gradient of its loss by the scores, the mean of the members that saw it, (n,).
        last: Whether it is the last step of an epoch.
    """

    members: Sequence[Architecture]
    slopes: Tensor
    pictures: Tensor
    residuals: Tensor
    last: bool


class SupernetRecipe(ABC):
    """A recipe; of one of the aspects below.

    Attributes:
        aspect: What it decides.
        source: The paper, and what differs from it.
        watches: Whether it is to be told what steps find.
        kept: Its tensors by name, changed in place; a checkpoint has them.
    """

    aspect: ClassVar[Aspect]
    source: ClassVar[Source]
    watches: ClassVar[bool] = False

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def begin(self, space: ElasticSpace, pictures: int) -> None:  # noqa: B027 - most recipes keep nothing
        """Make `kept` ready for a training on so many pictures."""

    def watch(self, seen: Seen) -> None:  # noqa: B027 - and follow nothing
        """Take up what a step has found."""


class Members(SupernetRecipe):
    """Which members a step trains.

    Attributes:
        teaches: Whether the first is the largest, and may teach the others.
        shares: Whether each member sees a share of the batch of its own; otherwise each sees all of it.
    """

    aspect: ClassVar[Aspect] = "members"
    teaches: ClassVar[bool] = False
    shares: ClassVar[bool] = False

    @abstractmethod
    def members(self, moment: Moment) -> Sequence[Architecture]:
        """Return the members of a step, at least one."""


class Teaching(SupernetRecipe):
    """What the members of a step learn from.

    Attributes:
        taught: Whether they learn from a teacher, so that there must be one.
    """

    aspect: ClassVar[Aspect] = "teaching"
    taught: ClassVar[bool] = True

    @abstractmethod
    def loss(self, scores: Tensor, target: Tensor, teacher: Tensor, share: float) -> Tensor:
        """Return the loss of a member that is not the teacher on each picture, (n,).

        Args:
            scores: Its scores, (n, classes).
            target: Distributions by the labels, (n, classes).
            teacher: The teacher's distributions, (n, classes); empty where there is none.
            share: Of the loss that comes from the teacher, 0 to 1 (`nas.training.supernet.train.Recipe.distillation`).
        """


class Pictures(SupernetRecipe):
    """Which pictures the members of a step see; as they are by default.

    Attributes:
        schedule: Until which share of the steps which share of a picture's side is seen; sides below the whole are multiples of `MULTIPLE`.
    """

    aspect: ClassVar[Aspect] = "pictures"
    schedule: ClassVar[Sequence[tuple[float, float]]] = ((1.0, 1.0),)

    @property
    def _costs(self) -> tuple[list[float], list[float]]:
        """Shares of the steps at which the size changes, and the multiply-adds until then, of those of all steps on whole pictures."""
        ends = [0.0, *(end for end, _ in self.schedule)]
        parts = ((end - begin) * share**2 for begin, (end, share) in zip(ends, self.schedule, strict=False))
        return ends, [0.0, *accumulate(parts)]

    @property
    def cost(self) -> float:
        """The share that is left of the multiply-adds of a training on whole pictures."""
        return self._costs[1][-1]

    def time_at(self, progress: float) -> float:
        """Return the share of a training's time that the share `progress` of its steps takes, where time goes with multiply-adds."""
        ends, costs = self._costs
        return float(np.interp(progress, ends, costs)) / costs[-1]

    def progress_at(self, time: float) -> float:
        """Return the share of the steps that is done after a share of the time."""
        ends, costs = self._costs
        return float(np.interp(time * costs[-1], costs, ends))

    def size(self, progress: float, resolution: Resolution) -> Resolution:
        """Return the size of the pictures when the share `progress` of the steps is done."""
        share = next((share for end, share in self.schedule if progress < end), 1.0)
        height, width = (side if share == 1.0 else min(side, MULTIPLE * max(1, round(share * side / MULTIPLE))) for side in resolution)
        return height, width

    def augmentation(self, progress: float, augmentation: Augmentation) -> Augmentation:  # noqa: ARG002
        """Return the augmentation of a step."""
        return augmentation

    def shrink(self, x: Tensor, size: Resolution) -> Tensor:
        """Return pictures at a smaller size: (n, c, h, w) -> (n, c, *size)."""
        if tuple(x.shape[2:]) == tuple(size):
            return x
        import torch
        import torch.nn.functional as F

        small = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return small.contiguous(memory_format=torch.channels_last)


class Order(SupernetRecipe):
    """Which pictures an epoch sees, and how much each counts; by default each one once, alike."""

    aspect: ClassVar[Aspect] = "order"

    def order(self, shuffled: Tensor, seed: int, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the numbers of the pictures that an epoch sees, in order, from those of all pictures in random order, (n,) -> (n,)."""
        return shuffled

    def weights(self, indices: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return by how much the loss of each picture is multiplied, (n,); None where all count alike."""
        return None


class Sharing(SupernetRecipe):
    """Which members share weights; by default all of them.

    Attributes:
        together: Share of the steps in which all do; then each copy begins as the first is.
    """

    aspect: ClassVar[Aspect] = "sharing"
    together: ClassVar[float] = 1.0

    def copies(self, space: ElasticSpace) -> int:  # noqa: ARG002
        """Return how many copies of the weights there are."""
        return 1

    def copy_of(self, space: ElasticSpace, member: Architecture) -> int:  # noqa: ARG002
        """Return the number of the copy that a member uses, from 0."""
        return 0


recipes: Registry[type[SupernetRecipe]] = Registry("recipes", "nas.training.recipes")
"""Recipes of supernet training by name."""


@dataclass(frozen=True)
class Plan:
    """One recipe for each aspect."""

    members: Members
    teaching: Teaching
    pictures: Pictures
    order: Order
    sharing: Sharing

    @property
    def recipes(self) -> tuple[SupernetRecipe, ...]:
        """All of them."""
        return self.members, self.teaching, self.pictures, self.order, self.sharing

    @property
    def watchers(self) -> tuple[SupernetRecipe, ...]:
        """Those that are told what steps find."""
        return tuple(recipe for recipe in self.recipes if recipe.watches)

    @property
    def kept(self) -> dict[str, Tensor]:
        """What they keep, by aspect and name."""
        return {f"recipe/{recipe.aspect}/{name}": tensor for recipe in self.recipes for name, tensor in recipe.kept.items()}


def compose(names: Sequence[str]) -> Plan:
    """Return what recipes come to together.

    What is left open is the default: the sandwich rule; in-place distillation where its largest member can teach, else the labels; pictures as they are, each
    once an epoch; one set of weights for all.

    Raises:
        UnknownNameError: No such recipe.
        UsageError: Two recipes decide the same, or one needs a teacher that another does not train.
    """
    chosen: dict[Aspect, tuple[str, SupernetRecipe]] = {}
    for name in names:
        recipe = recipes.get(name)()
        if recipe.aspect in chosen:
            raise UsageError(
                f"recipe: two decide the {recipe.aspect} of a step, got {chosen[recipe.aspect][0]!r} and {name!r}. Do this: leave one out."
            )
        chosen[recipe.aspect] = name, recipe
    members_name, members = chosen.get("members") or ("sandwich", recipes.get("sandwich")())
    assert isinstance(members, Members)
    default = "distillation" if members.teaches else "labels"
    teaching_name, teaching = chosen.get("teaching") or (default, recipes.get(default)())
    assert isinstance(teaching, Teaching)
    if teaching.taught and not members.teaches:
        able = [name for name, kind in recipes.items() if issubclass(kind, Members) and kind.teaches]
        raise UsageError(
            f"recipe: {teaching_name} needs a teacher, got {members_name!r}, which trains none. Expected it with {' or '.join(able)}."
        )
    _, pictures = chosen.get("pictures") or ("", Pictures())
    _, order = chosen.get("order") or ("", Order())
    _, sharing = chosen.get("sharing") or ("", Sharing())
    assert isinstance(pictures, Pictures)
    assert isinstance(order, Order)
    assert isinstance(sharing, Sharing)
    return Plan(members, teaching, pictures, order, sharing)
