"""What every searcher must do, as functions that take one; third parties call them on theirs.

`ToySpace` and `ToyJudge` are small stand-ins whose values are arithmetic on the genes, so that a whole search takes milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from nas.errors import NasError
from nas.graphs.graph import Graph
from nas.searching.objective import Budget, Goal, Objective
from nas.searching.searcher import Prescreen, Searcher, Trial
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.space import Choice, Resolution, SearchSpace
from nas.training.evaluator import Evaluator, Metrics
from nas.units import parse_limit

ACCURACY = Objective("accuracy_pct", "maximize")
LATENCY = Objective("latency_ms/toy", "minimize")


class ToySpace(SearchSpace):
    """Widths and operators in blocks; the operator of a block of width 0 has no effect.

    Args:
        blocks: Pairs of genes.
    """

    def __init__(self, blocks: int = 3) -> None:
        self.name = f"toy-{blocks}"
        self.choices = tuple(
            choice
            for i in range(blocks)
            for choice in (Choice(f"block{i}.width", (0, 8, 16, 32), ordered=True), Choice(f"block{i}.op", ("conv", "mlp", "attention")))
        )

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> ToySpace:  # noqa: ARG003
        """Return the toy of a number of blocks."""
        return cls(int(preset or 3))

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """An absent block has the first operator."""
        return tuple("conv" if i % 2 and genes[i - 1] == 0 else gene for i, gene in enumerate(genes))

    def features(self, architecture: Architecture) -> Mapping[str, float]:
        """Count the operators of the blocks that are there."""
        widths, ops = architecture.genes[::2], architecture.genes[1::2]
        return Counter(str(op) for width, op in zip(widths, ops, strict=True) if width)

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:  # noqa: ARG002
        """The toy has no graph."""
        raise NasError("toy: has no graph.")

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> Any:  # noqa: ARG002
        """The toy has no module."""
        raise NasError("toy: cannot be built.")


class ToyEvaluator(Evaluator):
    """Wide blocks are accurate, alternating operators more so; the best keeps within no tight budget.

    Args:
        broken: Genes whose evaluation fails.
    """

    def __init__(self, broken: frozenset[tuple[Gene, ...]] = frozenset()) -> None:
        self.broken = broken
        self.evaluated: list[Architecture] = []

    @property
    def key(self) -> str:
        """The toy depends on nothing."""
        return "toy"

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score by arithmetic."""
        self.evaluated.append(architecture)
        if architecture.genes in self.broken:
            raise NasError("toy: broken on purpose.")
        return Metrics(toy_accuracy_pct(architecture), "validation")


class ToyJudge(Prescreen):
    """Prices width by operator.

    Args:
        goal: Its budgets are judged.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal

    def judge(self, architectures: list[Architecture]) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
        """Return the latency, and by how much it breaks each budget."""
        judged: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
        for architecture in architectures:
            latency_ms = toy_latency_ms(architecture)
            judged.append(({"latency_ms/toy": latency_ms}, {b.name: b.violation(latency_ms) for b in self.goal.budgets}))
        return judged


def toy_accuracy_pct(architecture: Architecture) -> float:
    """Return the accuracy of a toy."""
    gain = {"conv": 0.5, "mlp": 0.6, "attention": 1.0}
    blocks = list(zip(architecture.genes[::2], architecture.genes[1::2], strict=True))
    score = sum(math.sqrt(int(width)) * gain[str(op)] for width, op in blocks)
    changes = sum(a[1] != b[1] for a, b in pairwise(blocks))
    return 90.0 * score / (score + len(blocks)) + changes / len(blocks)


def toy_latency_ms(architecture: Architecture) -> float:
    """Return the latency of a toy."""
    cost = {"conv": 1.0, "mlp": 1.5, "attention": 3.0}
    blocks = zip(architecture.genes[::2], architecture.genes[1::2], strict=True)
    return 0.1 + sum(int(width) * cost[str(op)] for width, op in blocks) / 32


def toy_goal(*, objectives: int = 1, budget: str = "3ms") -> Goal:
    """Return a goal on the toy: accuracy, and with two objectives latency."""
    budgets = (Budget("latency/toy", parse_limit(budget), "toy"),) if budget else ()
    return Goal((ACCURACY, LATENCY)[:objectives], budgets)


def simulate(
    searcher: Searcher, goal: Goal, count: int, *, history: Sequence[Trial] = (), evaluator: Evaluator | None = None
) -> list[Trial]:
    """Tell the trials of an earlier session, then ask and tell up to `count` trials in all; return all of them."""
    judge, evaluator, trials = ToyJudge(goal), evaluator or ToyEvaluator(), list(history)
    for trial in history:
        searcher.tell(trial)
    known = {trial.architecture: trial for trial in history if trial.state == "complete"}
    for number in range(len(trials), count):
        architecture = searcher.ask(number)
        if architecture is None:
            break
        cheap, violations = judge.judge([architecture])[0]
        if any(v > 0 for v in violations.values()):
            trial = Trial(number, architecture, "infeasible", cheap, violations)
        elif architecture in known:
            trial = Trial(number, architecture, "duplicate", known[architecture].values, violations)
        else:
            try:
                metrics = evaluator.evaluate(architecture)
            except NasError as error:
                trial = Trial(number, architecture, "failed", cheap, violations, str(error))
            else:
                trial = Trial(number, architecture, "complete", {**cheap, "accuracy_pct": metrics.accuracy_pct}, violations)
                known[architecture] = trial
        searcher.tell(trial)
        trials.append(trial)
    return trials


def check_proposes_members(make: type[Searcher], *, objectives: int = 1, count: int = 60) -> None:
    """Every proposal is a canonical member of the space."""
    space, goal = ToySpace(), toy_goal(objectives=objectives)
    for trial in simulate(make(space, goal, 0, ToyJudge(goal)), goal, count):
        space.validate(trial.architecture)


def check_follows_the_seed(make: type[Searcher], *, objectives: int = 1, count: int = 60) -> None:
    """The same seed gives the same sequence, and asking twice for one trial the same answer."""
    space, goal = ToySpace(), toy_goal(objectives=objectives)
    whole, again = (simulate(make(space, goal, 3, ToyJudge(goal)), goal, count) for _ in range(2))
    assert whole == again
    searcher = make(space, goal, 3, ToyJudge(goal))
    for trial in whole[: count * 3 // 4]:
        searcher.tell(trial)
    assert searcher.ask(count * 3 // 4) == searcher.ask(count * 3 // 4) == whole[count * 3 // 4].architecture


def check_resumes(
    make: type[Searcher], *, objectives: int = 1, blocks: int = 3, count: int = 60, cuts: tuple[int, ...] = (1, 17, 33, 47, 55)
) -> None:
    """A fresh searcher that is told the first trials proposes what the old one would have."""
    space, goal = ToySpace(blocks), toy_goal(objectives=objectives)
    whole = simulate(make(space, goal, 5, ToyJudge(goal)), goal, count)
    assert len(whole) == count
    for cut in cuts:
        assert simulate(make(space, goal, 5, ToyJudge(goal)), goal, count, history=whole[:cut]) == whole


def check_works_without_prescreen(make: type[Searcher], *, count: int = 50) -> None:
    """Without cheap judgements a searcher learns from the violations that it is told."""
    goal = toy_goal()
    assert len(simulate(make(ToySpace(), goal, 0), goal, count)) == count


def check_survives_failures(make: type[Searcher], *, count: int = 60) -> None:
    """Failed evaluations do not stop a searcher, and it goes on to find others."""
    space, goal = ToySpace(), toy_goal()
    probe = [trial for trial in simulate(make(space, goal, 2, ToyJudge(goal)), goal, count * 2 // 3) if trial.evaluated]
    broken = frozenset(trial.architecture.genes for trial in probe[::3])
    trials = simulate(make(space, goal, 2, ToyJudge(goal)), goal, count, evaluator=ToyEvaluator(broken))
    assert {trial.state for trial in trials} >= {"failed", "complete"}
    assert len({trial.architecture for trial in trials if trial.evaluated}) >= count // 4


def check_beats_the_average(make: type[Searcher], *, evaluations: int = 60) -> None:
    """Sixty evaluations find a network better than four fifths of what the budget allows."""
    space, goal = ToySpace(), toy_goal()
    judge = ToyJudge(goal)
    able = sorted(toy_accuracy_pct(a) for a in space.enumerate() if judge.judge([a])[0][1]["latency/toy"] <= 0)
    trials = simulate(make(space, goal, 1, judge), goal, 2 * evaluations)
    best = max(trial.values["accuracy_pct"] for trial in [t for t in trials if t.evaluated][:evaluations])
    assert best >= able[len(able) * 4 // 5]
