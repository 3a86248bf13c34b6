"""The contract of an operator family: token mixers, channel mixers and reparameterised blocks.

A family is one file holding a frozen dataclass of knobs. The dataclass *is* the request: it lowers itself to a graph in
its deploy form, and it builds a module in its training form. A search space offers instances of it as genes.

Life of a family in a space::

    mixers.get(name)            the class: `npu_grade` and `source`
            │
    choices(), searched(stage)  when a space is made: which knobs there are, and which of them are searched unless a user says so
            │
    Family(**knobs)             one instance a setting that is offered; `grade` is its own
            │
    lower(builder, x)           when a space is made, to see what fits; then for each position, width and map size that is priced
            │
    build(channels, resolution) for each slot of a supernet and for each member that stands alone
            │
    fuse()                      of the built module (see `Fusible`), after training and before it is exported
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.registry import Registry
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn

Grade = Literal["green", "amber", "red"]

EXPANSION, ACTIVATION = "expansion", "activation"
"""Knobs that spaces settle themselves where a family has them: a gene of its own, one for the whole space."""


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of an operator.

    Attributes:
        title: Title of the paper.
        reference: arXiv number, venue or repository.
        differs: How this implementation differs from it; empty where it does not.
    """

    title: str
    reference: str
    differs: str = ""


@dataclass(frozen=True)
class OperatorFamily(ABC):
    """A map (n, c, h, w) -> (n, c, h, w) with knobs. It has no residual connection and no outer normalisation; the block adds both.

    Attributes:
        npu_grade: ``green`` plain and dominated by convolutions and matrix products; ``amber`` plain, yet heavy in
            layout, normalisation or softmax; ``red`` needs operators that NPUs lack.
        source: The paper.
        usual: Values of knobs for spaces with few choices, where `choices` has more of them.
    """

    npu_grade: ClassVar[Grade]
    source: ClassVar[Source]
    usual: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @property
    def grade(self) -> Grade:
        """The grade of this setting: the family's, unless a knob rewrites what NPUs lack."""
        return self.npu_grade

    @classmethod
    @abstractmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return, for each knob that can be searched, the values that make sense; every combination must be valid."""

    @classmethod
    def searched(cls, stage: int, *, wide: bool = False) -> Mapping[str, tuple[Any, ...]]:  # noqa: ARG003
        """Return the knobs that a space searches unless a user asks for more (``--knobs family.knob``), with their values.

        By default the first of `choices` that the space does not settle itself. A family overrides this where it wants more knobs, or other
        values in each stage of a pyramid.

        Args:
            stage: Of a pyramid, 0 the finest.
            wide: Whether the space takes every value; else those of `usual`.
        """
        knob = next((name for name in cls.choices() if name not in (EXPANSION, ACTIVATION)), None)
        if knob is None:
            return {}
        every = cls.choices()[knob]
        return {knob: every if wide else cls.usual.get(knob, every)}

    @abstractmethod
    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form to `builder` and return the output's name; channels and size are those of `x`.

        Raises:
            UsageError: This operator does not support that number of channels or that size.
        """

    @abstractmethod
    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        """Return the training form with fresh weights for inputs (n, channels, *resolution).

        A module with a deploy form of its own has ``fuse()`` (see `Fusible`), and so may any of its children.
        Parameters whose leading axis stacks several equal parts (fused q, k and v) name the number of parts in a class
        or instance attribute ``elastic_parts: dict[str, int]``, so that a narrower member slices each part. Parameters other
        than kernels whose last two axes are a window stand in ``elastic_windows: tuple[str, ...]``; a smaller one is the centre.

        Raises:
            UsageError: As `lower`.
        """


@runtime_checkable
class Fusible(Protocol):
    """A module whose training form has an equal, smaller deploy form."""

    def fuse(self) -> nn.Module:
        """Return the deploy form as a new module, computed in float64; `self` is left as it is.

        Raises:
            UsageError: The module is in training mode.
        """


def refuse_training(training: bool) -> None:
    """Refuse to fuse a module in training mode: batch norms then use the statistics of the batch, and dropout is drawn.

    Raises:
        UsageError: It is in training mode.
    """
    if training:
        raise UsageError("fuse: the module is in training mode. Do this: call .eval() first.")


@runtime_checkable
class Scheduled(Protocol):
    """A module whose form depends on how far its training has come; at 1, and by itself, it is what is deployed."""

    def set_progress(self, progress: float) -> None:
        """Take the form of a training of which the share `progress` is done, 0 to 1."""


def is_scheduled(module: nn.Module) -> bool:
    """Return whether some part of a module changes with its training."""
    return any(isinstance(part, Scheduled) for part in module.modules())


def follow(module: nn.Module, progress: float) -> None:
    """Tell every part of a module that changes with its training how far that has come."""
    for part in module.modules():
        if isinstance(part, Scheduled):
            part.set_progress(progress)


mixers: Registry[type[OperatorFamily]] = Registry("mixers", "search_spaces.mixers")
"""Token mixers by name."""

reparam: Registry[type[OperatorFamily]] = Registry("reparam", "search_spaces.reparam")
"""Reparameterised blocks by name: many branches in training, one convolution when deployed."""

channel_mixers: Registry[type[OperatorFamily]] = Registry("channel_mixers", "search_spaces.channel_mixers")
"""Channel mixers by name."""


def fuse(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in evaluation mode with every `Fusible` part replaced by its deploy form.

    Parts are replaced from the outside in, so a block that fuses its children together does so first.
    """
    import copy

    return _fused(copy.deepcopy(module).eval())


def _fused(module: nn.Module) -> nn.Module:
    if isinstance(module, Fusible):
        return module.fuse().eval()
    for name, child in module.named_children():
        module.register_module(name, _fused(child))
    return module
