"""``quantised``: a member's accuracy in its quantised form, simulated; never the float accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nas.arch import Architecture
from nas.dataset import Dataset, Split
from nas.evaluator import Evaluator, Metrics, evaluators
from nas.mixer import fuse
from nas.quantisation.simulate import simulate
from nas.quantiser import DEFAULT_RECIPE
from nas.supernet.batches import Batches
from nas.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.supernet.weights import Supernet

CALIBRATION_PICTURES = 256
_BATCH = 64


@evaluators.register("quantised")
class QuantisedEvaluator(Evaluator):
    """Takes a member out, recalibrates its statistics, fuses it, quantises it from training pictures, and scores it.

    Args:
        supernet: The weights; they are not changed.
        dataset: Calibrated on ``train``, scored on `split`.
        precision: ``w8a8`` or ``w8a16``.
        recipe: Methods by name, see `nas.quantiser`.
        split: ``validation``; ``test`` only for a report.
    """

    def __init__(
        self,
        supernet: Supernet,
        dataset: Dataset,
        precision: str = "w8a8",
        recipe: Sequence[str] = DEFAULT_RECIPE,
        split: Split = "validation",
    ) -> None:
        self.supernet, self.dataset, self.precision, self.recipe, self.split = supernet, dataset, precision, tuple(recipe), split

    @cached_property
    def key(self) -> str:
        """Hash of weights, data, split, precision and recipe."""
        text = f"{self.supernet.key} {self.dataset.key} {self.split} {self.precision} {' '.join(self.recipe)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture."""
        right = self.right(architecture)
        return Metrics(100 * float(right.mean()), self.split, {"pictures": float(len(right))})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        """Return for each picture whether the quantised member names its class, shape (n,)."""
        size = self.supernet.space.proxy(architecture, self.supernet.resolution)
        train = Batches(self.dataset, "train", size, self.supernet.device)
        member = self.supernet.extract(architecture, size)
        recalibrate(member, pictures(train.plain(256, calibration_indices(train))))
        shown: list[Tensor] = list(pictures(train.plain(_BATCH, calibration_indices(train, CALIBRATION_PICTURES))))
        network = simulate(fuse(member), shown, self.precision, self.recipe)
        return np.equal(
            predictions(network, Batches(self.dataset, self.split, size, self.supernet.device)), self.dataset.labels(self.split)
        )
