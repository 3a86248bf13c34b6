"""``quantised``: a member's accuracy in its quantised form, simulated; never the float accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from nas.quantisation.method import CALIBRATION_PICTURES, DEFAULT_RECIPE
from nas.quantisation.simulate import simulate
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace, children
from nas.spaces.operator_family import fuse
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Split
from nas.training.evaluator import Assignment, Evaluator, Metrics, Need, evaluators, needed
from nas.training.supernet.batches import Batches
from nas.training.supernet.reconstruction import Members
from nas.training.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.training.supernet.weights import Supernet
from nas.units import QUANTISED

_BATCH = 64  # by hand
_SCORED = 128  # rounding is bound by memory: smaller batches stay in the cache; by hand


@evaluators.register("quantised")
class QuantisedEvaluator(Evaluator):
    """Takes a member out, recalibrates its statistics, fuses it, quantises it from training pictures, and scores it.

    Args:
        supernet: The weights; they are not changed.
        dataset: Calibrated on ``train``, scored on `split`.
        precision: Of what a member leaves open; parts in ``fp16`` are scored in fp32.
        recipe: Methods by name, see `nas.quantisation.method`.
        split: ``validation``; ``test`` only for a report.
        space: Of the members, where they choose precisions; the supernet's own by default.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"data", "supernet"})
    scored: ClassVar[str] = "quantised supernet score"

    @classmethod
    def make(cls, assignment: Assignment) -> QuantisedEvaluator:
        """Return the evaluator of a space whose members are scored as they will run, at chosen precisions or at the devices'."""
        needed(assignment, "quantised", "data", "supernet")
        assert assignment.dataset is not None
        assert isinstance(assignment.space, ElasticSpace)
        return cls(assignment.supernet, assignment.dataset, assignment.precision, assignment.recipe, space=assignment.space)

    def __init__(
        self,
        supernet: Supernet,
        dataset: Dataset,
        precision: str = "w8a8",
        recipe: Sequence[str] = DEFAULT_RECIPE,
        split: Split = "validation",
        space: ElasticSpace | None = None,
    ) -> None:
        self.supernet, self.dataset, self.precision, self.recipe, self.split = supernet, dataset, precision, tuple(recipe), split
        self.space = space or supernet.space
        self._members = Members(supernet, dataset)
        self._scored: dict[Resolution, Batches] = {}
        self._shown: dict[Resolution, tuple[list[Tensor], list[Tensor]]] = {}

    @cached_property
    def key(self) -> str:
        """Hash of weights, data, split, precision, recipe and space."""
        text = f"{self._members.key} {self.dataset.key} {self.split} {self.precision} {' '.join(self.recipe)} {self.space.name}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture."""
        right = self.right(architecture)
        return Metrics(100 * float(right.mean()), self.split, {"pictures": float(len(right))})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        """Return for each picture whether the quantised member names its class, shape (n,)."""
        plain = self.space.without_precisions(architecture)
        size = self.supernet.space.proxy(plain, self.supernet.resolution)
        statistics, shown, scored = self._pictures(size)
        member = self._members.module(plain, size)
        recalibrate(member, statistics)
        parts = children(self.space, architecture)
        used = set(parts.values()) or {self.precision}
        network = member
        if len(used) == 1:
            uniform = next(iter(used))
            network = simulate(fuse(member), shown, uniform, self.recipe) if uniform in QUANTISED else member
        elif used & QUANTISED:
            network = simulate(fuse(member), shown, self.precision, self.recipe, parts)
        return np.equal(predictions(network, scored, _SCORED), self.dataset.labels(self.split))

    def module(self, architecture: Architecture, resolution: Resolution) -> nn.Module:
        """Return the member with the shared weights, in float."""
        return self._members.module(self.space.without_precisions(architecture), resolution)

    def _pictures(self, size: Resolution) -> tuple[list[Tensor], list[Tensor], Batches]:
        """Return what sets batch norms, what sets ranges, and what is scored, at a size."""
        if size not in self._scored:
            train = Batches(self.dataset, "train", size, self.supernet.device)
            indices = calibration_indices(train, self.space.calibration_pictures)
            statistics = list(pictures(train.plain(256, indices)))
            self._shown[size] = statistics, list(pictures(train.plain(_BATCH, calibration_indices(train, CALIBRATION_PICTURES))))
            self._scored[size] = Batches(self.dataset, self.split, size, self.supernet.device)
        return *self._shown[size], self._scored[size]
