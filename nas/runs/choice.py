"""Which network of a front is taken: whether two can be told apart on the same images, and what more budget would buy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.runs.explain import why_not_more
from nas.runs.problem import Problem
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture
from nas.spaces.precision import INHERIT

if TYPE_CHECKING:
    from nas.training.evaluators.quantised import QuantisedEvaluator
    from nas.training.evaluators.supernet import SupernetEvaluator

    MemberEvaluator = SupernetEvaluator | QuantisedEvaluator

Correct = npt.NDArray[np.bool_]

LEVEL = 0.10
"""Two candidates that a test at this level cannot tell apart count as equally accurate."""


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


def choose(latency_ms: Sequence[float], correct: Sequence[Correct]) -> tuple[int, int, float]:
    """Return (choice, most accurate, p-value between them).

    The most accurate wins, unless a faster one cannot be told apart from it; then the fastest such one does.

    Args:
        latency_ms: Of each candidate.
        correct: Which of the same images each gets right.
    """
    accuracy = [float(np.mean(c)) for c in correct]
    best = min(range(len(correct)), key=lambda i: (-accuracy[i], latency_ms[i]))
    p_values = [mcnemar_p(correct[best], c) for c in correct]
    alike = [i for i in range(len(correct)) if i == best or (latency_ms[i] < latency_ms[best] and p_values[i] >= LEVEL)]
    choice = min(alike, key=lambda i: (latency_ms[i], -accuracy[i]))
    return choice, best, p_values[choice]


_COMPARED = 8
"""Front points of the highest accuracy whose pictures are compared one by one."""


_BEYOND = 6
"""Networks beyond the budget that are scored once the search is over, to say what more budget would buy."""


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


def decide(problem: Problem, evaluator: MemberEvaluator, front: Sequence[Trial], trials: Sequence[Trial]) -> dict[str, Any]:
    """Choose from the front on the validation pictures, and say what more or less budget would have changed."""
    latency = f"latency_ms/{problem.device}"
    best = list(front[:_COMPARED])
    right = [evaluator.right(trial.architecture) for trial in best]
    chosen, top, p_value = choose([trial.values[latency] for trial in best], right)
    why = "the most accurate on validation within every budget"
    compared = [{"key": best[i].architecture.key, "supernet_accuracy_pct": 100 * float(np.mean(right[i]))} for i in sorted({chosen, top})]
    if chosen != top:
        first, other = compared[sorted({chosen, top}).index(chosen)], compared[sorted({chosen, top}).index(top)]
        why = (
            f"faster than {other['key']} ({best[chosen].values[latency]:.3g} against {best[top].values[latency]:.3g} ms), and a McNemar test on "
            f"{len(right[0])} validation images cannot tell them apart at {LEVEL:.0%} (p = {p_value:.2f}; "
            f"{first['supernet_accuracy_pct']:.2f} against {other['supernet_accuracy_pct']:.2f} %)"
        )
    winner = best[chosen].architecture
    return {
        "genes": list(winner.genes),
        "why": why,
        "compared": compared,
        "p_value": p_value,
        "why_not_more": explain(problem, evaluator, trials, winner),
    }


def explain(problem: Problem, evaluator: MemberEvaluator, trials: Sequence[Trial], winner: Architecture) -> dict[str, Any]:
    """Score a few proposals beyond the budget, the nearest first and the largest, and compare."""
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
        if architecture.key not in scored:
            scored[architecture.key] = (architecture, verdict, evaluator.evaluate(architecture).accuracy_pct)
    return why_not_more(judge, list(scored.values()), winner)
