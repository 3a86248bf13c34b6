"""The contract of a reference system: published networks by name, built exactly and counted.

A system is a file in ``search_spaces/references/``. Its variants carry what was published or counted of them; the contract
tests hold every built network to those integers, so a listing needs to build nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nas.errors import UnknownNameError
from nas.graphs.graph import Graph
from nas.registry import Registry
from nas.spaces.operator_family import Source, fuse
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Variant:
    """One published network.

    Attributes:
        system: The catalogue's name of its system (``RepVGG``).
        name: Unique among all references; timm's name where timm has it (``repvgg_a0``).
        params: Parameters with a 1000-class head, as published: of the deploy form where the system is reparameterised.
        macs: Multiply-adds of the deploy form at `resolution`, by the convention of `nas.graphs.operators`.
        resolution: (height, width) in pixels of the published figures.
        timm_name: timm's name, empty where timm lacks it.
        train_params: Parameters of the training form of a reparameterised system; None elsewhere.
        top1_pct: Published ImageNet-1k top-1 accuracy; None where none is known.
        source: Where the accuracy and `printed` come from and under what recipe.
        printed: Parameters in 10⁶ and multiply-adds in 10⁹ as the source prints them, to which the counts round; None where they do not,
            and where a count to the last digit is published instead.
    """

    system: str
    name: str
    params: int
    macs: int
    resolution: Resolution = (224, 224)
    timm_name: str = ""
    train_params: int | None = None
    top1_pct: float | None = None
    source: str = ""
    printed: tuple[str, str] | None = None


class ReferenceSystem(ABC):
    """The named variants of one system.

    Attributes:
        source: The paper.
        table: What was published or counted of each variant.
    """

    source: ClassVar[Source]
    table: ClassVar[tuple[Variant, ...]]

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return every variant by its name."""
        return {variant.name: variant for variant in cls.table}

    @classmethod
    @abstractmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        """Return the training form of a variant with fresh weights, (n, 3, h, w) -> (n, num_classes).

        Modules are registered in the order of timm's (or the official code's) parameters, so that weights load by order.
        """


references: Registry[type[ReferenceSystem]] = Registry("references", "search_spaces.references")
"""Reference systems by file name."""


def variants() -> Mapping[str, Variant]:
    """Return every published network by its name, in order of system and of variant."""
    return {name: variant for _, system in references.items() for name, variant in system.variants().items()}


def build(name: str, num_classes: int = 1000) -> nn.Module:
    """Return the training form of a published network with fresh weights.

    Raises:
        UnknownNameError: No system has a variant of that name.
    """
    for system in dict(references.items()).values():
        if name in system.variants():
            return system.build(name, num_classes)
    raise UnknownNameError(
        "reference", name, variants(), "A new reference is one file in search_spaces/references/, or an entry point nas.references."
    )


def lower(name: str, resolution: Resolution | None = None) -> Graph:
    """Return the deploy form of a published network as a graph at batch 1, by default at its published resolution.

    Raises:
        UnknownNameError: As `build`.
    """
    import torch

    from nas.graphs.frontends.torch_module import trace_module

    with torch.device("meta"):  # no weight is ever needed
        module = fuse(build(name))
    return trace_module(module, (1, 3, *(resolution or variants()[name].resolution)))
