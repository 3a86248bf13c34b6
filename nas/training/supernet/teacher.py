"""What a trained network teaches another: its scores of the training pictures, softened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 2.0
"""By which scores are divided before they become distributions, so that wrong classes have their say."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network's scores of the training pictures, as they are, without augmentation.

    Attributes:
        name: Of the network.
        scores: Shape (n, classes), in the order of the split.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2: both scores are divided by a temperature,
        and the loss is multiplied by its square, so that its gradients are as large as those of the labels' loss. Differs: a picture is scored once,
        not anew for each augmentation, which would take a run of the teacher a step.
    """

    name: str
    scores: Tensor

    @classmethod
    def of(cls, name: str, scores: npt.NDArray[np.float32]) -> Teacher:
        """Return a teacher from an array of its scores."""
        return cls(name, torch.from_numpy(scores))

    @cached_property
    def key(self) -> str:
        """Hash of the scores."""
        return hashlib.sha256(self.scores.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]

    def soft_targets(self, indices: Tensor) -> Tensor:
        """Return the softened distributions of some training pictures, (len(indices), classes)."""
        return (self.scores[indices] / TEMPERATURE).softmax(1)


def distillation_loss(scores: Tensor, target: Tensor, soft_targets: Tensor, share: float) -> Tensor:
    """Return the loss of a network that learns from labels and from a teacher.

    Args:
        scores: Its scores, (n, classes).
        target: Distributions by the labels, (n, classes).
        soft_targets: The teacher's softened distributions, (n, classes).
        share: Of the loss that comes from the teacher.
    """
    from_teacher = TEMPERATURE**2 * F.cross_entropy(scores / TEMPERATURE, soft_targets)
    return (1 - share) * F.cross_entropy(scores, target) + share * from_teacher
