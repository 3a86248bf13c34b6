"""What to measure next: the choice of timings that leaves least doubt about all others."""

from __future__ import annotations

import numpy as np

from nas.devices.predictor import Floats


def most_telling(share: Floats, variance: Floats, noise: float, count: int) -> list[int]:
    """Return the rows whose measurement most reduces the mean variance over all rows, best first.

    Args:
        share: Of each price in each network's latency, shape (networks, prices).
        variance: Of the logarithm of each price before any measurement, shape (prices,).
        noise: Variance of the logarithm of one measurement.
        count: How many rows are wanted.

    Source:
        Bayesian A-optimal design (Chaloner & Verdinelli 1995), greedy.
    """
    covariance = np.diag(variance)
    chosen: list[int] = []
    for _ in range(min(count, len(share))):
        reach = share @ covariance @ share.T
        gain = (reach**2).mean(axis=0) / (noise + np.diag(reach))
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        direction = covariance @ share[best]
        covariance = covariance - np.outer(direction, direction) / (noise + share[best] @ direction)
    return chosen
