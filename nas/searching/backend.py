"""The contract of where trials are stored: a journal file, or a database; both hold an Optuna study that `optuna-dashboard` opens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, slots=True)
class Record:
    """A trial as a backend holds it.

    Attributes:
        trial_id: The storage's own name of it.
        number: Position in the study.
        state: Name of Optuna's state: RUNNING, COMPLETE, PRUNED, FAIL, WAITING.
        params: Gene by choice.
        attributes: What the project stores with it.
        violations: By budget.
        values: One an objective, of a complete trial.
    """

    trial_id: int
    number: int
    state: str
    params: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    violations: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[float] | None = None


def one_line(text: object, longest: int = 200) -> str:
    """Return what a storage or a library says as part of a message: one line of what can be printed."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


CONSTRAINT = "constraints:"
"""How Optuna marks a system attribute as a constraint."""


def constraints(violations: Mapping[str, float]) -> dict[str, Any]:
    """Return violations as Optuna's system attributes: one a budget, and all as a list, which is what `optuna-dashboard` reads."""
    single = {CONSTRAINT + name: value for name, value in violations.items()}
    return single | ({CONSTRAINT.rstrip(":"): list(violations.values())} if violations else {})


class Backend(ABC):
    """Studies and their trials in one storage.

    Every method may be called from several threads, and is repeated where the storage is away for a while.

    Attributes:
        label: Name of the storage in messages.
    """

    label: str

    @property
    @abstractmethod
    def outages(self) -> int:
        """How often the storage was away so far."""

    @property
    @abstractmethod
    def optuna_storage(self) -> optuna.storages.BaseStorage:
        """Optuna's object for the same storage."""

    @abstractmethod
    def studies(self) -> dict[str, int]:
        """Return the studies by name."""

    @abstractmethod
    def open_study(self, name: str, directions: Sequence[str], titles: Sequence[str]) -> int:
        """Return a study by its name, made where it is absent; `titles` are what charts call its objectives."""

    @abstractmethod
    def directions(self, study_id: int) -> list[str]:
        """Return the directions of a study's objectives."""

    @abstractmethod
    def study_attributes(self, study_id: int) -> Mapping[str, object]:
        """Return the facts stored with a study."""

    @abstractmethod
    def set_study_attribute(self, study_id: int, key: str, value: str) -> None:
        """Store a fact of a study."""

    @abstractmethod
    def records(self, study_id: int, first: int, known: set[int]) -> list[Record]:
        """Return the trials from number `first` on, but for the numbers in `known`, in order."""

    @abstractmethod
    def create(self, study_id: int, record: Record, distributions: Mapping[str, BaseDistribution], token: str) -> Record:
        """Append a trial.

        Args:
            study_id: To which study.
            record: The trial; its name and number do not count.
            distributions: What each parameter may be.
            token: No other trial has it; it tells whether a call whose answer was lost has been done.

        Returns:
            The record with its name and number.
        """

    @abstractmethod
    def claim(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Set a waiting trial running with its owner; False where another process was faster."""

    @abstractmethod
    def close(self, trial_id: int, state: str, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> bool:
        """End a trial; False where it had ended, otherwise than this, and nothing is written."""

    @abstractmethod
    def set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Store attributes of a trial that is not closed; False where it is."""

    @abstractmethod
    def clock_s(self) -> float | None:
        """Return the storage's time in seconds since 1970; None where it has no clock of its own."""
