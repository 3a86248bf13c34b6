"""The contract of an evaluator: how good an architecture is. It is pure given its arguments.

Life of an evaluator in a search::

    evaluators.get(name)          the class: `needs` says what the search must have ready, `surveys` how it goes
            │
    Evaluator.make(assignment)    once a process, when data are read and shared weights are trained
            │
    key                           stored with the study; a worker with another key is refused
            │
    evaluate(architecture)  ◀──   for every candidate within the budgets, in any order, possibly in several processes
            │
    right(architecture)           for the best few of the front, where pictures can be compared one by one
    module(architecture)          for the choice: what is fine-tuned and exported; None where there are no weights
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nas.errors import NasError, UsageError
from nas.quantisation.method import DEFAULT_RECIPE
from nas.registry import Registry
from nas.spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nas.spaces.space import Resolution, SearchSpace
    from nas.training.dataset import Dataset

Need = Literal["data", "supernet", "table"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of an evaluation.

    Attributes:
        accuracy_pct: Top-1 in percent, on the split that `split` names.
        split: Split of the pictures: ``validation`` for every choice, ``test`` in reports alone, ``published`` for the zoo.
        extra: Further numbers by name, each with its unit in the name.
    """

    accuracy_pct: float
    split: str
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an evaluator is made from: everything that a search knows before the first score.

    Attributes:
        space: Space of the candidates.
        seed: Seed of the run.
        precision: Precision of everything that a candidate leaves open; one of `nas.units.Precision`.
        dataset: The data, if any. ``validation`` is for scores, ``test`` for the report alone.
        supernet: Trained shared weights (`nas.training.supernet.weights.Supernet`), where the evaluator needs them.
        recipe: Names of quantisation methods, see `nas.quantisation.method`.
        table: File of known accuracies, where the evaluator needs one.
        column: Column of that table.
    """

    space: SearchSpace
    seed: int = 0
    precision: str = "fp32"
    dataset: Dataset | None = None
    supernet: Any = None
    recipe: tuple[str, ...] = DEFAULT_RECIPE
    table: Path | None = None
    column: str | None = None


class Evaluator(ABC):
    """An evaluator scores architectures of one space.

    Attributes:
        needs: What `make` must be given: ``data``, a trained ``supernet`` of the space (which needs data too), a ``table``.
        surveys: Whether scores cost nothing and every member has one. All members are scored then, without a searcher.
        scored: Name of the scores in one or two words, for the headings of tables.
        caution: Warning for those who read the scores as accuracies; empty where they are.
        transfers: Whether members have trained weights. They are fine-tuned against each other then, without a searcher.
        fresh: Whether `module` returns fresh weights: the choice is trained from nothing, and has all the time that its search leaves.
        paired: Whether a score is the share of the pictures of `right`, so that two candidates can be compared picture by picture.
        in_time: Names of evaluators that stand in for this one under a time limit, the first that has a use for all that was asked; none where it stays.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    surveys: ClassVar[bool] = False
    scored: ClassVar[str] = "score"
    caution: ClassVar[str] = ""
    transfers: ClassVar[bool] = False
    fresh: ClassVar[bool] = False
    paired: ClassVar[bool] = True
    in_time: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def make(cls, assignment: Assignment) -> Evaluator:  # noqa: ARG003
        """Return the evaluator of a search. One without arguments need not override this.

        Raises:
            UsageError: It cannot score this space, or lacks something.
        """
        return cls()

    @property
    @abstractmethod
    def key(self) -> str:
        """Content address of everything that the scores depend on (weights, data, precision); caches use it."""

    @abstractmethod
    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture.

        Raises:
            NasError: It cannot be scored; the message is recorded with the trial.
        """

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_] | None:  # noqa: ARG002
        """Return for each picture whether the network names its class correctly, shape (n,); None where no pictures are scored."""
        return None

    def module(self, architecture: Architecture, resolution: Resolution) -> Any:  # noqa: ARG002
        """Return the network as it was scored, a `torch.nn.Module` for pictures of this size; None where there are no weights."""
        return None


FAILURES: tuple[type[Exception], ...] = (NasError, RuntimeError, ValueError, ArithmeticError, MemoryError, OSError)
"""What `Evaluator.evaluate` raises for an architecture that cannot be scored: a search goes on without it."""


evaluators: Registry[type[Evaluator]] = Registry("evaluators", "nas.training.evaluators")
"""Evaluators by name."""


def needed(assignment: Assignment, name: str, *what: Need) -> None:
    """Check that an assignment holds what an evaluator needs.

    Raises:
        UsageError: It does not; the message says which option gives it.
    """
    available = {"data": assignment.dataset, "supernet": assignment.supernet, "table": assignment.table}
    remedy = {"data": "--data NAME|DIR", "supernet": "--data NAME|DIR, for a space that a supernet serves", "table": "--table FILE.npz"}
    if missing := [need for need in what if available[need] is None]:
        raise UsageError(f"evaluator {name}: needs a {missing[0]} that is not there. Do this: {remedy[missing[0]]}.")
