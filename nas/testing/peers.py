"""What every peer of a comparison must do; each check takes a peer and one of its algorithms."""

from __future__ import annotations

from nas.bench.peer import Peer, Run
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture
from nas.testing.searchers import ToyJudge, ToySpace, toy_accuracy_pct, toy_goal


class Over(Exception):  # noqa: N818  # ends a run, nothing is wrong
    """The evaluations of a run are used up."""


def proposals(peer: type[Peer], algorithm: str, *, objectives: int, count: int, seed: int = 3) -> list[Architecture]:
    """Return the first proposals of a run on the toy; the run must end when no more is measured."""
    space, goal = ToySpace(), toy_goal(objectives=objectives)
    judge, made = ToyJudge(goal), list[Architecture]()

    def measure(architecture: Architecture) -> Trial:
        if len(made) == count:
            raise Over
        made.append(architecture)
        cheap, violations = judge.judge([architecture])[0]
        if any(v > 0 for v in violations.values()):
            return Trial(len(made), architecture, "infeasible", cheap, violations)
        return Trial(len(made), architecture, "complete", {**cheap, "accuracy_pct": toy_accuracy_pct(architecture)}, violations)

    try:
        peer().run(algorithm, Run(space, goal, seed, count, measure))
    except Over:
        return made
    raise AssertionError(f"{algorithm} ended after {len(made)} of {count} proposals.")


def check_proposes_members(peer: type[Peer], algorithm: str, *, objectives: int = 1, count: int = 50) -> None:
    """Every proposal is a member of the space, and most are new."""
    made = proposals(peer, algorithm, objectives=objectives, count=count)
    for architecture in made:
        ToySpace().validate(architecture)
    assert len(set(made)) > count / 3


def check_follows_the_seed(peer: type[Peer], algorithm: str, *, objectives: int = 1, count: int = 50) -> None:
    """The same seed gives the same sequence, another one another."""
    made, again = (proposals(peer, algorithm, objectives=objectives, count=count) for _ in range(2))
    assert made == again
    assert proposals(peer, algorithm, objectives=objectives, count=count, seed=4) != made
