"""The protocol of few-shot latency transfer: time a few architectures on a target device, predict the others.

HELP's split is a pool of the first rows, a query of the next ones, and the fastest and slowest tenth of both dropped by the target's own
latencies; NASFLAT's is the whole table for both. All timings taken on the target count, however they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.devices.latency_table import LatencyTable
from nas.devices.predictor import Floats, predictors
from nas.devices.scores import rank_correlation
from nas.errors import UsageError
from nas.results.listings import TransferComparison, TransferScores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferProtocol:
    """Settings of one run.

    Attributes:
        samples: Timings on the target.
        train_samples: Rows of the pool, from the table's beginning; None for the whole table.
        query: Rows after the pool that are predicted; None for the whole table.
        trim: Share of fastest and of slowest rows dropped from both, by the target's latencies.
        repeats: Repetitions; each considers another half of the pool.
        confidence: Of the intervals.
        seed: Of the repetitions.
    """

    samples: int = 10
    train_samples: int | None = None
    query: int | None = None
    trim: float = 0.0
    repeats: int = 20
    confidence: float = 0.9
    seed: int = 0


@dataclass
class Score:
    """Figures of one device over the repetitions."""

    rows: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Note the figures of one repetition."""
        for name, value in figures.items():
            self.rows.setdefault(name, []).append(float(value))

    def means(self) -> dict[str, float]:
        """Return the mean of each figure."""
        return {name: float(np.mean(values)) for name, values in self.rows.items()}


def figures(predicted: Floats, measured: Floats) -> dict[str, float]:
    """Return rank correlations and errors of predictions; predictions that are all alike rank nothing and count as 0 in a mean."""
    from scipy.stats import kendalltau

    error = np.abs(predicted / measured - 1)
    flat = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    return {
        "spearman": rank_correlation(predicted, measured) or 0.0,
        "kendall": 0.0 if flat else float(kendalltau(predicted, measured).statistic),
        "mean_error_pct": 100 * float(error.mean()),
        "median_error_pct": 100 * float(np.median(error)),
        "within_10_pct": 100 * float((error <= 0.10).mean()),
        "within_25_pct": 100 * float((error <= 0.25).mean()),
    }


def split(latency_ms: Floats, protocol: TransferProtocol) -> tuple[list[int], list[int]]:
    """Return the rows of pool and query for a target.

    Raises:
        UsageError: The table has too few rows.
    """
    total = len(latency_ms)
    pool_end = total if protocol.train_samples is None else protocol.train_samples
    begin = 0 if protocol.query is None else pool_end
    end = total if protocol.query is None else pool_end + protocol.query
    if pool_end > total or end > total or begin >= end:
        raise UsageError(f"latency transfer: the table has {total} rows, too few for a pool of {pool_end} and a query up to {end}.")
    return _trim(latency_ms, range(pool_end), protocol.trim), _trim(latency_ms, range(begin, end), protocol.trim)


def _trim(latency_ms: Floats, rows: Sequence[int], trim: float) -> list[int]:
    order = np.asarray(rows)[np.argsort(latency_ms[np.asarray(rows)], kind="stable")]
    return [int(i) for i in order[int(len(order) * trim) : int(len(order) * (1 - trim))]]


def bench_latency_transfer(
    table: LatencyTable,
    train_devices: Sequence[str],
    test_devices: Sequence[str],
    protocol: TransferProtocol,
    tell: Callable[[str], None] = lambda _: None,
    predictor: str = "transfer",
) -> TransferComparison:
    """Run the protocol and return its result (see DESIGN.md), with the settings, the spread and the table's defects beside the figures.

    Args:
        table: Latencies of many networks on many devices.
        train_devices: Whose latencies are known.
        test_devices: That are predicted.
        protocol: Settings.
        tell: Told what is worked on.
        predictor: Name of the predictor under test; see `nas.devices.predictor.Predictor.few_shot`.

    Raises:
        UsageError: Unknown devices, a device on both sides, or impossible sizes.
    """
    if not test_devices:
        raise UsageError("latency transfer: no test device.")
    if both := set(train_devices) & set(test_devices):
        raise UsageError(f"latency transfer: a device on both sides of the split, got {min(both)!r}.")
    if not 0 <= protocol.trim < 0.5:
        raise UsageError(f"latency transfer: trim must be at least 0 and less than 0.5, got {protocol.trim}.")
    for device in (*train_devices, *test_devices):
        table.column(device)
    few_shot = predictors.get(predictor).few_shot()
    whole = TransferProtocol(train_samples=protocol.train_samples, query=protocol.query)
    pool, query = split(next(iter(table.ms.values())), whole)
    rows = sorted({*pool, *query})
    place = {row: i for i, row in enumerate(rows)}
    tell(f"{len(rows)} graphs of {table.space.name}")
    candidates = [table.space.segments(table.architectures[row]) for row in rows]
    pool_places = [place[row] for row in sorted(pool)]
    sources = {name: (pool_places, table.ms[name][sorted(pool)]) for name in train_devices}
    prepared = few_shot.prepare(candidates, pool_places, sources)
    macs, counts = few_shot.columns(prepared)
    devices: dict[str, TransferScores] = {}
    baselines: dict[str, list[float]] = {"macs": [], "op_count_ridge": [], "nnls": []}
    for device in test_devices:
        tell(device)
        y = table.ms[device]
        local = y[rows]
        timeable, tested = ([place[row] for row in part] for part in split(y, protocol))
        if protocol.samples > len(timeable):
            raise UsageError(f"latency transfer: more timings than rows in the pool, got {protocol.samples} of {len(timeable)}.")
        score, plain = Score(), {name: Score() for name in baselines}
        truth = local[tested]
        for repeat in range(protocol.repeats):
            rng = np.random.default_rng([protocol.seed, repeat])
            timed = few_shot.choose(prepared, timeable, protocol.samples, rng)
            mean, half, notes = few_shot.predict(prepared, timed, local[timed], tested, protocol.confidence)
            inside = np.abs(truth - mean) <= half
            score.add(**figures(mean, truth), coverage_pct=100 * inside.mean(), halfwidth_pct=100 * np.median(half / mean), **notes)
            for name, guess in baseline_predictions(macs, counts, timed, local[timed], tested).items():
                plain[name].add(spearman=rank_correlation(guess, truth) or 0.0)
        top = figures(few_shot.ceiling(prepared, timeable, local[timeable], tested), truth)
        own = {
            "spearman_sd": float(np.std(score.rows["spearman"])),
            "ceiling": {"spearman": top["spearman"], "within_10_pct": top["within_10_pct"]},
            "baselines": {name: scores.means()["spearman"] for name, scores in plain.items()},
        }
        devices[device] = TransferScores.model_validate(score.means() | own)
        for name, scores in plain.items():
            baselines[name].append(scores.means()["spearman"])
    return TransferComparison(
        devices=devices,
        mean_spearman=float(np.mean([d.spearman for d in devices.values()])),
        mean_ceiling_spearman=float(np.mean([d.ceiling["spearman"] for d in devices.values()])),
        baselines={name: {"mean_spearman": float(np.mean(values))} for name, values in baselines.items()},
        protocol={
            "predictor": predictor,
            "table": table.path.name,
            "space": table.space.name,
            "train_devices": list(train_devices),
            "samples": protocol.samples,
            "train_samples": protocol.train_samples,
            "query": protocol.query,
            "trim": protocol.trim,
            "repeats": protocol.repeats,
            "confidence": protocol.confidence,
            "seed": protocol.seed,
        },
        defects=tuple(table.defects([*train_devices, *test_devices])),
    )


def baseline_predictions(macs: Floats, counts: Floats, timed: Sequence[int], latency_ms: Floats, query: Sequence[int]) -> dict[str, Floats]:
    """Return what three plain models say, from the same timings: MACs, ridge on operator counts, non-negative least squares on them."""
    from scipy.optimize import nnls

    ratio = float(np.median(latency_ms / macs[timed]))
    x = np.concatenate([counts, macs[:, None] / macs.mean()], axis=1)
    spread = x.std(0)
    x = x[:, spread > 0] / spread[spread > 0]
    a, b = x[timed] - x[timed].mean(0), latency_ms - latency_ms.mean()
    ridge = np.linalg.solve(a.T @ a + np.eye(a.shape[1]), a.T @ b)
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    prices = nnls(design[timed], latency_ms)[0]
    return {
        "macs": macs[query] * ratio,
        "op_count_ridge": np.maximum((x[query] - x[timed].mean(0)) @ ridge + latency_ms.mean(), 1e-3 * latency_ms.mean()),
        "nnls": np.maximum(design[query] @ prices, 1e-3 * latency_ms.mean()),
    }
