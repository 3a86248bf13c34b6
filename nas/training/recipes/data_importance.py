"""``data-importance``: pictures are drawn the more often, the further their answers are from their labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nas.spaces.elastic import ElasticSpace
from nas.spaces.operator_family import Source
from nas.training.recipe import Order, Seen, recipes

MOST = 0.5
"""Share of the draws of an epoch that follow what was found of the pictures. Set by hand."""


@recipes.register("data-importance")
class DataImportance(Order):
    """Pictures drawn with replacement; the loss is divided by their probability, so that its gradient is that of all pictures alike on average."""

    watches: ClassVar[bool] = True
    source = Source(
        "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS",
        "arXiv 2302.14772, data importance sampling; the norm of the gradient by the scores bounds the rest: arXiv 1803.00942",
        "a picture's norm is that of the last time it was seen, with its augmented label; the share of even draws stays the same",
    )

    def begin(self, space: ElasticSpace, pictures: int) -> None:  # noqa: ARG002
        """See `SupernetRecipe.begin`."""
        self.kept = {"norms": torch.ones(pictures), "probabilities": torch.full((pictures,), 1 / pictures, dtype=torch.float64)}

    def order(self, shuffled: Tensor, seed: int, epoch: int) -> Tensor:
        """See `Order.order`; each picture once where nothing is known of them."""
        odds = self.kept["probabilities"].numpy()
        if np.ptp(odds) == 0:
            return shuffled
        return torch.from_numpy(np.random.default_rng([seed, 17, epoch]).choice(len(odds), len(odds), p=odds / odds.sum()))

    def weights(self, indices: Tensor) -> Tensor:
        """See `Order.weights`; at most 1 / (1 - `MOST`)."""
        odds = self.kept["probabilities"]
        return (1 / (len(odds) * odds[indices])).float()

    def watch(self, seen: Seen) -> None:
        """See `SupernetRecipe.watch`."""
        norms = self.kept["norms"]
        norms[seen.pictures] = seen.residuals
        if seen.last:
            even = 1 / len(norms)
            self.kept["probabilities"].copy_((1 - MOST) * even + MOST * norms.double() / norms.double().sum())
