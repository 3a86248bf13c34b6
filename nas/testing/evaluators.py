"""What every evaluator must satisfy; each check takes an evaluator and members of its space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution
from nas.training.evaluator import Assignment, Evaluator


def check_scores(evaluator: Evaluator, members: Sequence[Architecture]) -> None:
    """A score is a percentage on a split that a choice may hang on, and is the same whenever and in whatever order it is asked for."""
    first = [evaluator.evaluate(member) for member in members]
    assert all(0 <= metrics.accuracy_pct <= 100 for metrics in first)
    assert all(metrics.split and metrics.split != "test" for metrics in first), "test pictures are for the report"
    again = [evaluator.evaluate(member) for member in reversed(members)]
    assert [m.accuracy_pct for m in first] == [m.accuracy_pct for m in reversed(again)], "a score must not depend on those before"


def check_key(kind: type[Evaluator], assignment: Assignment) -> None:
    """The key is a short text that follows from what the evaluator is made from, in this process and in the next."""
    one, other = kind.make(assignment), kind.make(assignment)
    assert one.key == other.key
    assert one.key
    assert one.key.isprintable()


def check_pictures(evaluator: Evaluator, members: Sequence[Architecture]) -> None:
    """Where pictures can be compared, their mean is the accuracy, and all members are asked the same pictures."""
    rights = [evaluator.right(member) for member in members]
    if any(right is None for right in rights):
        assert all(right is None for right in rights)
        return
    counts = [right for right in rights if right is not None]
    assert all(right.dtype == np.bool_ and right.shape == counts[0].shape for right in counts)
    for member, right in zip(members, counts, strict=True):
        if evaluator.paired:
            assert abs(100 * float(right.mean()) - evaluator.evaluate(member).accuracy_pct) < 1e-6


def check_module(evaluator: Evaluator, member: Architecture, resolution: Resolution) -> None:
    """Where it has weights, it hands over a network of its own that takes pictures; changing it changes no score."""
    import torch

    module = evaluator.module(member, resolution)
    if module is None:
        return
    before = evaluator.evaluate(member).accuracy_pct
    with torch.no_grad():
        scores = module.eval()(torch.zeros(2, 3, *resolution))
        assert scores.ndim == 2
        assert scores.shape[0] == 2
        for parameter in module.parameters():
            parameter.zero_()
    assert evaluator.evaluate(member).accuracy_pct == before, "the module must be a copy"
