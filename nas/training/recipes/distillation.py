"""``distillation``: the other members learn from the labels and from the largest member's outputs; the default where there is one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.training.recipe import Teaching, recipes


@recipes.register("distillation")
class Distillation(Teaching):
    """Cross entropy with the labels and with the teacher, weighted by `share`."""

    source = Source(
        "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models",
        "arXiv 2003.11142, in-place distillation",
        "the others learn from the labels too, since a short training cannot wait for its teacher",
    )

    def loss(self, scores: Tensor, target: Tensor, teacher: Tensor, share: float) -> Tensor:
        """See `Teaching.loss`."""
        by_labels = F.cross_entropy(scores, target, reduction="none")
        return torch.lerp(by_labels, F.cross_entropy(scores, teacher, reduction="none"), share) if share > 0 else by_labels
