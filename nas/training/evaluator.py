"""The contract of an evaluator: how good an architecture is. It is pure given its arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas.registry import Registry
from nas.spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an evaluation found.

    Attributes:
        accuracy_pct: Top-1 in percent, on the split that `split` names.
        split: ``validation`` for anything a choice hangs on; ``test`` only in reports; ``published`` for the zoo.
        extra: Further numbers by name, each with its unit in the name.
    """

    accuracy_pct: float
    split: str
    extra: Mapping[str, float] = field(default_factory=dict)


class Evaluator(ABC):
    """Scores architectures of one space."""

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


evaluators: Registry[type[Evaluator]] = Registry("evaluators", "nas.training.evaluators")
"""Evaluators by name."""
