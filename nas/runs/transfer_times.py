"""How often a published network can be trained in the time that is left, from what a forward run of a picture takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.runs.clock import Clock
from nas.runs.problem import Problem
from nas.spaces.architecture import Architecture

if TYPE_CHECKING:
    from nas.training.evaluators.probe import ProbeEvaluator

ENOUGH_EPOCHS = 4.0
"""How often each contestant is to see every picture by the end of its schedule, as long as two networks can: of two whose probes are alike, the one that can be
trained more often ends higher (``experiments/021_own_pictures``: 82.5 % after 3.2 epochs of EfficientNet-Lite1, 85.7 after 9.3 of MobileNetV2). Set by hand."""

ENOUGH_ALONE = 3.0
"""Likewise, of one that is trained alone, since schedules are too short for a comparison. Of 800 pictures EfficientNet-Lite1 gained ten points on its probe in 2.8 epochs, MobileNetV2
as many in 4.0 of 192 px and in 16 of 96 px; in 2.0 of 256 px it lost five (``experiments/021_own_pictures``, `budgets.py`). Set by hand."""

TELLING_STEPS = 50
"""Of a schedule that are done when contestants are compared for the last time, at least: before, those of a few hundred pictures say less of what they end at than their
probes do (``experiments/021_own_pictures``, `budgets.py`). Set by hand."""

_STEP_BY_FORWARD = 4.3
"""A training step takes as many times the forward run of its pictures (EfficientNet-Lite0 on two cores: 4.0 to 4.9)."""

_EXPORT_S, _TEST_BY_FORWARD = 30.0, 0.7
"""Seconds of the export itself; a picture in the file's runtime takes as long as so many forward runs of PyTorch (0.2 and 0.45 in two runs)."""


@dataclass(frozen=True)
class Times:
    """What is left of a run, in trainings.

    Attributes:
        problem: Of the run.
        evaluator: That probes.
        clock: Of the run.
    """

    problem: Problem
    evaluator: ProbeEvaluator
    clock: Clock

    @property
    def most_epochs(self) -> float:
        """How often a network sees every picture at most: as often as the user asks for."""
        return float(self.problem.request.finetune_epochs or math.inf)

    def reserve_s(self, member: Architecture, picture_s: float) -> float:
        """Return the seconds that are kept for the last look at validation, the export and the test.

        Args:
            member: Which is handed over.
            picture_s: Seconds of a forward run, a picture.
        """
        dataset = self.evaluator.dataset
        tests = (2 if self.problem.quantises(member) else 1) * dataset.count("test")
        return _EXPORT_S + _TEST_BY_FORWARD * picture_s * (tests + dataset.count("validation") + 1024)

    def epoch_s(self, picture_s: float) -> float:
        """Return the seconds of an epoch: pictures are smaller in the first half of the steps."""
        return 0.85 * _STEP_BY_FORWARD * picture_s * self.evaluator.dataset.count("train")

    def telling(self, epochs: float) -> bool:
        """Return whether contestants whose schedules have so many epochs can be compared on the way."""
        from nas.training.transfer.halving import RUNGS
        from nas.training.transfer.recipe import transfer_recipe

        pictures = self.evaluator.dataset.count("train")
        return RUNGS[-1] * epochs * pictures >= TELLING_STEPS * min(transfer_recipe(pictures, max(1, round(epochs))).batch, pictures)

    def trainable(self, member: Architecture, picture_s: float) -> bool:
        """Return whether a network could see every picture often enough: as one of two contestants, or alone where they could not be compared."""
        epochs = self.epochs(member, picture_s, 2)
        return epochs >= ENOUGH_EPOCHS if self.telling(epochs) else self.epochs(member, picture_s, 1) >= ENOUGH_ALONE

    def epochs(self, member: Architecture, picture_s: float, contestants: int) -> float:
        """Return how often each of so many contestants could see every picture by the end of its schedule, were they all like this one."""
        from nas.training.evaluators.probe import PROBED_PICTURES
        from nas.training.transfer.halving import RUNGS

        if self.clock.limit_s is None:
            return float(self.problem.request.finetune_epochs or (20 if self.evaluator.device == "cuda" else 6))
        lost = (contestants - 1) * RUNGS[0] + (min(contestants, 2) - 1) * (RUNGS[1] - RUNGS[0])  # what those train that do not win
        compared = min(self.evaluator.dataset.count("validation"), PROBED_PICTURES)
        scored_s = picture_s * (1024 + compared) * (contestants + 2 if contestants > 1 else 0)
        seconds = (self.clock.left_s - self.reserve_s(member, picture_s) - scored_s) / (1 + lost)
        return max(0.0, seconds / self.epoch_s(picture_s))
