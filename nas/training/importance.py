"""The contract of an importance: how much each inner channel of a trained network weighs, so that a narrower one keeps those that weigh most.

An importance is one file in ``nas/training/importances/``. It puts the channels of one layer in order; how narrow each layer is to be is a gene, and what a
width saves on a device is that device's price.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from nas.registry import Registry
from nas.spaces.operator_family import Source

Follows = Literal["nothing", "loss", "entropy"]

if TYPE_CHECKING:
    from torch import Tensor

    from nas.spaces.surgery.narrowing import Channels


class Importance(ABC):
    """An importance.

    Attributes:
        source: The paper, and what differs from it.
        follows: Of what gradients are taken: ``loss`` by the labels, ``entropy`` of the network's own answers, or ``nothing``.
    """

    source: ClassVar[Source]
    follows: ClassVar[Follows] = "nothing"

    @abstractmethod
    def scores(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:
        """Return how much each channel weighs, (size,) of 64 bits; the sum over batches is what counts.

        Args:
            tensors: Weights and statistics by name.
            gradients: Of the weights, on one batch; empty where nothing is followed.
            channels: Which of their axes belong to the channels.
        """


importances: Registry[type[Importance]] = Registry("importances", "nas.training.importances")
"""Importances by name."""


def slopes(tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:
    """Return by how much what is followed changes where a channel goes, to first order: the sum of gradient times weight over all its weights, (size,)."""
    import torch

    total = torch.zeros(channels.size, dtype=torch.float64)
    for name, axis in channels.axes:
        if name in gradients:
            product = (tensors[name].detach() * gradients[name]).double().cpu()
            total += product.movedim(axis, 0).reshape(channels.size, -1).sum(1)
    return total
