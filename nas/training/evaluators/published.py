"""Accuracies that others have published: looked up, not computed."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from nas.errors import UsageError
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace
from nas.training.evaluator import Assignment, Evaluator, Metrics, evaluators


@runtime_checkable
class Published(Protocol):
    """A space whose members come with an accuracy."""

    def published(self, architecture: Architecture) -> Metrics:
        """Return the published accuracy."""


@evaluators.register("published")
class PublishedAccuracy(Evaluator):
    """Looks up what the space knows.

    Args:
        space: Whose members are scored.

    Raises:
        UsageError: The space knows no accuracies.
    """

    surveys: ClassVar[bool] = True

    @classmethod
    def make(cls, assignment: Assignment) -> PublishedAccuracy:
        """Return the evaluator of a space."""
        return cls(assignment.space)

    def __init__(self, space: SearchSpace) -> None:
        if not isinstance(space, Published):
            raise UsageError(f"evaluator published: space {space.name} has no published accuracies.")
        self._space, self._key = space, f"published-{space.name}-{space.version}"

    @property
    def key(self) -> str:
        """Name and version of the space."""
        return self._key

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Return the published accuracy."""
        return self._space.published(architecture)
