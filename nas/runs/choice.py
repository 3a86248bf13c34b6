"""Which network of a front is taken: whether two can be told apart on the same images, and what more budget would buy."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nas.results import Compared, Record, WhyNotMore
from nas.runs.explain import why_not_more
from nas.runs.problem import Problem
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture
from nas.spaces.precision import INHERIT
from nas.training.evaluator import FAILURES, Evaluator

log = logging.getLogger(__name__)

Correct = npt.NDArray[np.bool_]

LEADER = "best of its kind"
"""How the network by which a kind of search stands is called, where several kinds share a run."""

LEVEL = 0.10
"""Two candidates that a test at this level cannot tell apart count as equally accurate. Set by hand."""


def mcnemar_p(a: Correct, b: Correct) -> float:
    """Return the two-sided p-value that two networks are equally accurate, given which of the same images each gets right.

    Args:
        a: Shape (images,).
        b: Shape (images,).

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions", 1947; the exact binomial
        form: of the images on which they disagree, each is as likely to be right.
    """
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def choose(latency_ms: Sequence[float], correct: Sequence[Correct], *, budgeted: bool) -> tuple[int, int, float]:
    """Return (choice, the candidate it is told apart from, p-value between them).

    Where a budget says what time may cost, the most accurate is taken, and the fastest that cannot be told apart from it is the other. Without one the
    fastest such candidate is taken, and the most accurate is the other. Where there is no such candidate, both are the most accurate.

    Args:
        latency_ms: Of each candidate.
        correct: Which of the same images each gets right.
        budgeted: Whether a budget bounds the latency.

    Source:
        What taking the faster costs within a budget, and how much of the budget it leaves: ``experiments/032_choice_among_equals``.
    """
    accuracy = [float(np.mean(c)) for c in correct]
    best = min(range(len(correct)), key=lambda i: (-accuracy[i], latency_ms[i]))
    p_values = [mcnemar_p(correct[best], c) for c in correct]
    alike = [i for i in range(len(correct)) if i == best or (latency_ms[i] < latency_ms[best] and p_values[i] >= LEVEL)]
    fastest = min(alike, key=lambda i: (latency_ms[i], -accuracy[i]))
    return (best, fastest, p_values[fastest]) if budgeted else (fastest, best, p_values[fastest])


def bounds_latency(problem: Problem) -> bool:
    """Return whether a budget says what time may cost."""
    return any(budget.limit.quantity in ("latency", "throughput") for budget in problem.goal.budgets)


_COMPARED = 8
"""Front points of the highest accuracy whose pictures are compared one by one. Set by hand."""


_BEYOND = 6
"""Networks beyond the budget that are scored once the search is over, to say what more budget would buy. Set by hand."""


def blocks(problem: Problem, architecture: Architecture) -> list[str]:
    """Return the choices that have an effect, one line for what precedes the stages (or blocks) and one a stage."""
    active = [label for label, _ in problem.space.segments(architecture, problem.judge.resolution)]
    lines: dict[str, list[str]] = {}
    for name, gene in problem.space.describe(architecture).items():
        stage, *rest = name.split(".")
        place = name.rpartition(".")[0]
        if gene == INHERIT or (place and not any(label.startswith(f"{place}.") for label in active)):
            continue
        lines.setdefault(stage if rest else "input", []).append(f"{' '.join(rest) or stage} {gene}")
    return [f"{stage}: {', '.join(genes)}" for stage, genes in lines.items()]


class Decision(Record):
    """Which network of a front is taken, and why.

    Attributes:
        genes: Of the choice.
        why: In words.
        compared: The choice, and the candidate that it was told apart from (see `choose`), where that is another.
        p_value: That the two are equally accurate.
        why_not_more: What more or less budget would have changed.
    """

    genes: tuple[int | str, ...]
    why: str
    compared: tuple[Compared, ...]
    p_value: float
    why_not_more: WhyNotMore


def decide(problem: Problem, evaluator: Evaluator, front: Sequence[Trial], trials: Sequence[Trial]) -> Decision:
    """Choose from the front: by the validation pictures where there are any, else by the accuracies alone.

    Args:
        problem: Of the search.
        evaluator: That scored it.
        front: Most accurate first.
        trials: All of the search.
    """
    latency = f"latency_ms/{problem.device}"
    best = list(front[:_COMPARED])
    speeds = [problem.judge.verdicts([trial.architecture])[0].values[latency] for trial in best]
    right = [evaluator.right(trial.architecture) if evaluator.paired else None for trial in best]
    pictures = [row for row in right if row is not None]
    budgeted = bounds_latency(problem)
    chosen, other, p_value = choose(speeds, pictures, budgeted=budgeted) if len(pictures) == len(best) else (0, 0, 1.0)
    shown = sorted({chosen, other})
    compared = [_compared(best[i], right[i]) for i in shown]
    scored = "on validation" if pictures else "by the scores of the search"
    why = f"the most accurate {scored}" + (" within every budget" if problem.goal.budgets else "; no budget was given")
    if chosen != other:
        fast, slow = (other, chosen) if budgeted else (chosen, other)
        first, second = (compared[shown.index(i)] for i in (fast, slow))
        alike = (
            f"({speeds[fast]:.3g} against {speeds[slow]:.3g} ms), and a McNemar test on {len(pictures[0])} validation images cannot tell them apart "
            f"at {LEVEL:.0%} (p = {p_value:.2f}; {first.supernet_accuracy_pct:.2f} against {second.supernet_accuracy_pct:.2f} %)"
        )
        why = f"{why}; {first.key} is faster {alike}" if budgeted else f"faster than {second.key} {alike}"
    winner = best[chosen].architecture
    explained = explain(problem, evaluator, trials, winner)
    return Decision(genes=winner.genes, why=why, compared=tuple(compared), p_value=p_value, why_not_more=explained)


def _compared(trial: Trial, right: Correct | None) -> Compared:
    accuracy_pct = trial.values["accuracy_pct"] if right is None else 100 * float(np.mean(right))
    return Compared(key=trial.architecture.key, supernet_accuracy_pct=accuracy_pct)


def explain(problem: Problem, evaluator: Evaluator, trials: Sequence[Trial], winner: Architecture) -> WhyNotMore:
    """Score a few proposals beyond the budget, the nearest first and the largest, and compare; those that cannot be scored are left out."""
    judge = problem.judge
    scored = {
        t.architecture.key: (t.architecture, judge.verdicts([t.architecture])[0], t.values["accuracy_pct"]) for t in trials if t.evaluated
    }
    beyond = {t.architecture.key: t.architecture for t in trials if t.state == "infeasible"}
    excluded = [(a, v) for a, v in zip(beyond.values(), judge.verdicts(list(beyond.values())), strict=True)]
    excluded = [(a, v) for a, v in excluded if not any(e.unsupported for e in v.estimates.values())]
    near = [pair for pair in excluded if max(pair[1].violations.values()) <= 0.1]
    near.sort(key=lambda pair: (-pair[1].values["macs"], pair[0].key))
    large = sorted(excluded, key=lambda pair: (-pair[1].values["macs"], pair[0].key))
    for architecture, verdict in [*near[: _BEYOND // 2], *large[: _BEYOND // 2]]:
        if architecture.key in scored:
            continue
        try:
            accuracy_pct = evaluator.evaluate(architecture).accuracy_pct
        except FAILURES as error:
            log.info("%s, which is beyond the budget, cannot be scored: %s", architecture.key, error)
            continue
        scored[architecture.key] = (architecture, verdict, accuracy_pct)
    return why_not_more(judge, list(scored.values()), winner)
