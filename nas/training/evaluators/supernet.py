"""``supernet``: a member's accuracy with the weights that it shares, on the validation pictures.

Source:
    Weight sharing as a proxy: "Understanding and Simplifying One-Shot Architecture Search" (Bender et al., ICML 2018);
    batch-norm statistics are taken anew for each member, as in BigNAS (arXiv 2003.11142). `nas rank` measures how well
    such scores order networks that were trained alone.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Split
from nas.training.evaluator import Assignment, Evaluator, Metrics, Need, evaluators, needed
from nas.training.supernet.batches import Batches
from nas.training.supernet.reconstruction import Members
from nas.training.supernet.scores import SharedScores, shared_scores
from nas.training.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.training.supernet.weights import Path, Supernet
from nas.units import QUANTISED


@evaluators.register("supernet")
class SupernetEvaluator(Evaluator):
    """Scores members at the proxy resolution.

    Args:
        supernet: The weights; they are not changed.
        dataset: Statistics are taken from ``train``, scores from `split`.
        split: ``validation``; ``test`` only for a report.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"data", "supernet"})
    scored: ClassVar[str] = "supernet score"
    in_time: ClassVar[tuple[str, ...]] = ("alone", "supernet-in-time")

    @classmethod
    def make(cls, assignment: Assignment) -> Evaluator:
        """Return the evaluator of a space; candidates that will run quantised are scored quantised."""
        needed(assignment, "supernet", "data", "supernet")
        assert assignment.dataset is not None
        if assignment.precision in QUANTISED or assignment.space is not assignment.supernet.space:
            return evaluators.get("quantised").make(assignment)
        return cls(assignment.supernet, assignment.dataset)

    def __init__(self, supernet: Supernet, dataset: Dataset, split: Split = "validation") -> None:
        self.supernet, self.dataset, self.split = supernet, dataset, split
        self._members = Members(supernet, dataset)
        self._scored: dict[Resolution, Batches] = {}
        self._calibration: dict[Resolution, list[Tensor]] = {}

    @cached_property
    def key(self) -> str:
        """Hash of weights, data, split and proxy resolution."""
        text = f"{self._members.key} {self.dataset.key} {self.split}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _pictures(self, size: Resolution) -> tuple[list[Tensor], Batches]:
        """Return the calibrating batches and the scored pictures at a size."""
        if size not in self._scored:
            train = Batches(self.dataset, "train", size, self.supernet.device)
            indices = calibration_indices(train, self.supernet.space.calibration_pictures)
            self._calibration[size] = list(pictures(train.plain(256, indices)))
            self._scored[size] = Batches(self.dataset, self.split, size, self.supernet.device)
        return self._calibration[size], self._scored[size]

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture: statistics from training pictures, then accuracy."""
        right = self.right(architecture)
        return Metrics(100 * float(right.mean()), self.split, {"pictures": float(len(right))})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        """Return for each picture whether the member names its class, shape (n,): what a paired test needs."""
        path, scored = self._path(architecture)
        return np.equal(predictions(path, scored), self.dataset.labels(self.split))

    def scores(self, architecture: Architecture) -> SharedScores:
        """Return all that its shared weights say of a member."""
        path, scored = self._path(architecture)
        return shared_scores(path, Batches(self.dataset, "train", scored.resolution, self.supernet.device), scored)

    def _path(self, architecture: Architecture) -> tuple[Path, Batches]:
        """Return a member whose statistics are those of training pictures, and the pictures that are scored at its size."""
        path = self._members.path(architecture)
        calibration, scored = self._pictures(self.supernet.space.proxy(architecture, self.supernet.resolution))
        recalibrate(path, calibration)
        return path, scored

    def module(self, architecture: Architecture, resolution: Resolution) -> nn.Module:
        """Return the member with the shared weights."""
        return self._members.module(architecture, resolution)
