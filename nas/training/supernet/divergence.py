"""How far a member's answers are from those of the member that teaches it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def jensen_shannon(scores: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean divergence of softmax(scores), (n, classes), and a distribution, (n, classes), in nats."""
    log_student = scores.log_softmax(1)
    log_teacher = teacher.clamp_min(1e-12).log()
    log_middle = torch.logaddexp(log_student, log_teacher) - math.log(2)
    of_student = (log_student.exp() * (log_student - log_middle)).sum(1)
    of_teacher = (teacher * (log_teacher - log_middle)).sum(1)
    return 0.5 * (of_student + of_teacher).mean()
