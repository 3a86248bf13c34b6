"""The evaluator of a search in another process, perhaps on another machine: from the same weights and the same data, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nas.errors import ArtifactError
from nas.runs.problem import Problem
from nas.spaces.elastic import ElasticSpace
from nas.training.evaluator import Evaluator


def evaluator_elsewhere(problem: Problem, facts: Mapping[str, str]) -> Evaluator:
    """Return a search's evaluator.

    Args:
        problem: The search's, posed here.
        facts: Hashes of what the search believes: ``data``, and ``weights`` where there are some.

    Raises:
        ArtifactError: The data or the weights here are others, or the weights are missing.
    """
    _agree("data", problem.dataset.key if problem.dataset else "none", facts["data"])
    weights = facts.get("weights")
    if weights is None:
        return problem.evaluator.make(problem.assignment())
    from nas.training.supernet.train import load_supernet

    if not problem.request.supernet:
        raise ArtifactError(f"worker: lacks the weights {weights} of the search. Do this: --supernet RUN_DIR/supernet.safetensors.")
    assert isinstance(problem.space, ElasticSpace)
    supernet = load_supernet(Path(problem.request.supernet), problem.space.plain)
    _agree("weights", supernet.key, weights)
    return problem.evaluator.make(problem.assignment(supernet))


def _agree(what: str, here: str, expected: str) -> None:
    if here != expected:
        raise ArtifactError(f"worker: has other {what} than the search, got {here}. Expected {expected}.")
