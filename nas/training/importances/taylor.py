"""``taylor``: the square of what the loss would change by if a channel went, to first order; the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.surgery.narrowing import Channels
from nas.training.importance import Follows, Importance, importances, slopes


@importances.register("taylor")
class Taylor(Importance):
    """Needs labelled pictures."""

    follows: ClassVar[Follows] = "loss"
    source = Source(
        "Global Vision Transformer Pruning with Hessian-Aware Saliency (NViT)",
        "arXiv 2110.04869, the saliency of a structural group; first in Importance Estimation for Neural Network Pruning, arXiv 1906.10771",
        "channels are compared inside a layer; between layers the search compares widths by accuracy and by each device's prices, where NViT subtracts "
        "a share of the latency",
    )

    def scores(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:
        """See `Importance.scores`."""
        return slopes(tensors, gradients, channels).square()
