"""``ssld``: the other members learn from the largest member's outputs alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.training.recipe import Teaching, recipes


@recipes.register("ssld")
class Ssld(Teaching):
    """The Jensen-Shannon divergence of a member's answers from those of the member that teaches it; no labels."""

    source = Source(
        "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve Backbones",
        "arXiv 2103.05959",
        "the teacher is the supernet's largest member, which learns at the same time",
    )

    def loss(self, scores: Tensor, target: Tensor, teacher: Tensor, share: float) -> Tensor:  # noqa: ARG002
        """Return the divergence of softmax(scores) and the teacher's distributions, in nats, (n,)."""
        log_student = scores.log_softmax(1)
        log_teacher = teacher.clamp_min(1e-12).log()
        log_middle = torch.logaddexp(log_student, log_teacher) - math.log(2)
        of_student = (log_student.exp() * (log_student - log_middle)).sum(1)
        of_teacher = (teacher * (log_teacher - log_middle)).sum(1)
        return 0.5 * (of_student + of_teacher)
