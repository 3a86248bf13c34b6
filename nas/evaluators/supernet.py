"""``supernet``: a member's accuracy with the weights that it shares, on the validation pictures.

Source:
    Weight sharing as a proxy: "Understanding and Simplifying One-Shot Architecture Search" (Bender et al., ICML 2018);
    batch-norm statistics are taken anew for each member, as in BigNAS (arXiv 2003.11142). `nas rank` measures how well
    such scores order networks that were trained alone.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nas.arch import Architecture
from nas.dataset import Dataset, Split
from nas.evaluator import Evaluator, Metrics, evaluators
from nas.supernet.batches import Batches
from nas.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.supernet.weights import Supernet


@evaluators.register("supernet")
class SupernetEvaluator(Evaluator):
    """Scores members at the proxy resolution.

    Args:
        supernet: The weights; they are not changed.
        dataset: Statistics are taken from ``train``, scores from `split`.
        split: ``validation``; ``test`` only for a report.
    """

    def __init__(self, supernet: Supernet, dataset: Dataset, split: Split = "validation") -> None:
        self.supernet, self.dataset, self.split = supernet, dataset, split
        self._scored = Batches(dataset, split, supernet.resolution, supernet.device)

    @cached_property
    def key(self) -> str:
        """Hash of weights, data, split and proxy resolution."""
        text = f"{self.supernet.key} {self.dataset.key} {self.split}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _calibration(self) -> list[Tensor]:
        train = Batches(self.dataset, "train", self.supernet.resolution, self.supernet.device)
        return list(pictures(train.plain(256, calibration_indices(train))))

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture: statistics from training pictures, then accuracy."""
        right = self.right(architecture)
        return Metrics(100 * float(right.mean()), self.split, {"pictures": float(len(right))})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        """Return for each picture whether the member names its class, shape (n,): what a paired test needs."""
        path = self.supernet.path(architecture)
        recalibrate(path, self._calibration)
        return np.equal(predictions(path, self._scored), self.dataset.labels(self.split))
