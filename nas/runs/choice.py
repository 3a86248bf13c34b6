"""Whether two networks can be told apart on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
