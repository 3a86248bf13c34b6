"""``supernet-in-time``: scores with shared weights, weighed by what a network's cost takes from its fine-tuning under a time limit.

Shared weights say what members are worth after equal training. Under a time limit the choice is not trained equally: one of twice the multiply-adds sees its pictures
half as often. How much that is worth the supernet's own training says: its accuracy has grown by so many points for each e-fold of pictures seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution, SearchSpace
from nas.training.evaluator import Assignment, Evaluator, Metrics, Need, evaluators, needed

FEWEST_EPOCHS = 4
"""From which on a training says how fast its accuracy grows. Set by hand."""

POINTS = 10.0
"""By which accuracy grows for an e-fold of pictures seen, where the training is too short to say. Set by hand, from 11.8 and 11.5 of two supernets (``experiments/031_resolution_scores``)."""

_DRAWN = 15
"""Members whose middle multiply-adds leave a score as it is. Set by hand."""


def points_by_time(history: Sequence[Mapping[str, float]]) -> float:
    """Return by how many points accuracy on training pictures grows for an e-fold of epochs, from the second half of a training; never below zero.

    Source:
        Accuracy as a line in the logarithm of the training that it has had, a simple form of learning curve (Domhan et al., "Speeding up automatic hyperparameter
        optimization of deep neural networks by extrapolation of learning curves", IJCAI 2015, whose set of curves has it among eleven).
    """
    accuracies = [entry["train_accuracy_pct"] for entry in history if "train_accuracy_pct" in entry]
    if len(accuracies) < FEWEST_EPOCHS:
        return POINTS
    epochs = np.arange(1, len(accuracies) + 1)
    late = epochs > len(epochs) // 2
    return max(0.0, float(np.polyfit(np.log(epochs[late]), np.array(accuracies)[late], 1)[0]))


@evaluators.register("supernet-in-time")
class SupernetInTime(Evaluator):
    """Scores members as another evaluator does, less what their cost takes from a fine-tuning that ends by the clock.

    Args:
        shared: Scores with shared weights.
        space: Of the members.
        points: That accuracy grows for an e-fold of training.
        seed: Of the members whose middle is the reference.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"data", "supernet"})
    scored: ClassVar[str] = "score for the time"
    paired: ClassVar[bool] = False
    caution: ClassVar[str] = (
        "under a time limit scores of shared weights are weighed by how often the network could be trained in it: they order networks and are no accuracy"
    )

    @classmethod
    def make(cls, assignment: Assignment) -> SupernetInTime:
        """Return the evaluator of a space whose members share weights; candidates that will run quantised are scored quantised."""
        needed(assignment, "supernet-in-time", "data", "supernet")
        shared = evaluators.get("supernet").make(assignment)
        return cls(shared, assignment.space, points_by_time(assignment.supernet.history), assignment.seed)

    def __init__(self, shared: Evaluator, space: SearchSpace, points: float, seed: int = 0) -> None:
        self.shared, self.space, self.points = shared, space, points
        rng = np.random.default_rng([seed, 52])
        self._middle = math.log(float(np.median([space.lower(space.sample(rng)).cost.macs for _ in range(_DRAWN)])))

    @cached_property
    def key(self) -> str:
        """Hash of what the other evaluator depends on, and of the weighing."""
        return hashlib.sha256(f"{self.shared.key} {self.points:.6g} {self._middle:.6g}".encode()).hexdigest()[:16]

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture; ``shared_accuracy_pct`` is what it is with shared weights."""
        found = self.shared.evaluate(architecture)
        lost = self.points * (math.log(self.space.lower(architecture).cost.macs) - self._middle)
        weighed = min(max(found.accuracy_pct - lost, 0.0), 100.0)
        return Metrics(weighed, found.split, {**found.extra, "shared_accuracy_pct": found.accuracy_pct})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_] | None:
        """Return which pictures it names rightly with shared weights."""
        return self.shared.right(architecture)

    def module(self, architecture: Architecture, resolution: Resolution) -> Any:
        """Return the member with the shared weights."""
        return self.shared.module(architecture, resolution)
