"""How good predictions are: errors, coverage and rank correlation against timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nas.devices.predictor import Floats
from nas.results import HeldOut, Scores

_RESAMPLES = 2000  # of the bootstrap; by hand


@dataclass(frozen=True, slots=True)
class Prediction:
    """One tested network."""

    name: str
    measured_ms: float
    latency_ms: float
    lower_ms: float
    upper_ms: float


def errors_pct(predictions: Sequence[Prediction]) -> Floats:
    """Return |predicted / measured − 1| in percent, (networks,)."""
    return np.array([abs(p.latency_ms / p.measured_ms - 1) * 100 for p in predictions])


def score(predictions: Sequence[Prediction], seed: int = 0, groups: Mapping[str, str] | None = None) -> Scores:
    """Return the figures of merit with a 90 % bootstrap interval for the mean and the median error.

    Args:
        predictions: Of networks that the fit had not seen.
        seed: Of the bootstrap.
        groups: Network -> what is drawn by the bootstrap in its place: its lineage, whose members err alike.
    """
    errors = errors_pct(predictions)
    group = [(groups or {}).get(p.name, p.name) for p in predictions]
    names = sorted(set(group))
    where = [np.array([i for i, name in enumerate(group) if name == wanted]) for wanted in names]
    rng = np.random.default_rng(seed)
    means, medians = [], []
    for _ in range(_RESAMPLES):
        drawn = errors[np.concatenate([where[i] for i in rng.integers(len(names), size=len(names))])]
        means.append(drawn.mean())
        medians.append(np.median(drawn))
    covered = [p.lower_ms <= p.measured_ms <= p.upper_ms for p in predictions]
    widths = [100 * (np.sqrt(p.upper_ms / p.lower_ms) - 1) for p in predictions if p.lower_ms > 0]
    return Scores(
        networks=tuple(HeldOut(**asdict(p)) for p in predictions),
        networks_tested=len({p.name for p in predictions}),
        lineages_tested=None if groups is None else len(names),
        mean_error_pct=float(errors.mean()),
        mean_error_interval_pct=_interval(means),
        median_error_pct=float(np.median(errors)),
        median_error_interval_pct=_interval(medians),
        within_10_pct=float((errors <= 10).mean() * 100),
        within_25_pct=float((errors <= 25).mean() * 100),
        spearman=rank_correlation([p.latency_ms for p in predictions], [p.measured_ms for p in predictions]),
        coverage_pct=float(np.mean(covered) * 100),
        above_upper_pct=float(np.mean([p.measured_ms > p.upper_ms for p in predictions]) * 100),
        halfwidth_pct=float(np.median(widths)) if widths else None,
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)


def rank_correlation(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float | None:
    """Return Spearman's ρ, values that are alike at their mean rank; None where one side is constant or there are fewer than three values."""
    from scipy.stats import spearmanr

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
