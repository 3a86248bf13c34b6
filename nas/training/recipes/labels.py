"""``labels``: every member learns from the labels alone; the default where no member teaches."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.training.recipe import Teaching, recipes


@recipes.register("labels")
class Labels(Teaching):
    """Cross entropy."""

    taught: ClassVar[bool] = False
    source = Source("Single Path One-Shot Neural Architecture Search with Uniform Sampling", "arXiv 1904.00420")

    def loss(self, scores: Tensor, target: Tensor, teacher: Tensor, share: float) -> Tensor:  # noqa: ARG002
        """See `Teaching.loss`."""
        return F.cross_entropy(scores, target, reduction="none")
