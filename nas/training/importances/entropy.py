"""``entropy``: what the entropy of the network's answers would change by if a channel went, to first order; no labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.surgery.narrowing import Channels
from nas.training.importance import Follows, Importance, importances, slopes


@importances.register("entropy")
class Entropy(Importance):
    """Needs pictures, not their labels."""

    follows: ClassVar[Follows] = "entropy"
    source = Source(
        "Adaptive MLP Pruning for Large Vision Transformers (AMP)",
        "arXiv 2603.08100, the label-free score of an MLP's neurons",
        "for inner channels of every kind, not of MLPs alone; how many stay is a gene, where AMP searches each ratio by bisection",
    )

    def scores(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:
        """See `Importance.scores`."""
        return slopes(tensors, gradients, channels).abs()
