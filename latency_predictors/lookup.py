"""``lookup``: a table with one price for every operator at its exact shapes, for the fixed spaces that a table can cover.

A space whose blocks stand at fixed places has a few hundred distinct operators; a block's price is the sum of its operators', so a table of
operators is a table of blocks. Prices are fitted to timings of whole networks, of blocks or of single operators, whatever `fit` is given, are never
negative, and lean on what operators of their family cost where the timings leave them open. An operator that the table lacks is priced like
its family and named as extrapolated; one whose family the table lacks is unsupported.

Source: Cai et al., "ProxylessNAS" (ICLR 2019) and Wu et al., "FBNet" (CVPR 2019) for latency as a sum of table entries; Lawson & Hanson's
non-negative least squares with reweighting (relative error 5 %).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors._operator_counts import RUNTIMES, Catalogue, Kind, catalogue
from latency_predictors.additive import conformal_quantile
from nas.devices.artifact import check_log_errors, check_shapes, read_artifact, write_artifact
from nas.devices.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, fitted_key, predictors
from nas.devices.profile import Profile
from nas.errors import UsageError
from nas.graphs.graph import Graph

FORMAT_VERSION = 1
FEWEST = 5
_FOLDS = 5
_LEANINGS = (0.03, 0.2, 1.0)
"""Weights of the family's price against a timing; cross-validation takes one."""
# Source of these three: set by hand.
_LEAST_UNIT = 0.3  # of the median timing
_ROOM = 2.0  # how far beyond the timings a latency may be before it is extrapolated
_BEYOND = 2.0  # by so much the interval's logarithm grows there


@dataclass(frozen=True, eq=False)
class Table:
    """Prices of one device at one precision.

    Attributes:
        runtime: Index into `RUNTIMES`: which graph the device executes.
        start_ms: Cost of a network besides its operators.
        entries_ms: By kind of operator.
        families_ms: By family, prices of an operator, a MAC, an activation byte and a weight byte, shape (4,).
        scores: Log residuals (predicted over measured) of timings left out, by ascending size.
        range_ms: Fastest and slowest timing.
    """

    runtime: int
    start_ms: float
    entries_ms: Mapping[tuple[str, str], float]
    families_ms: Mapping[str, Floats]
    scores: Floats
    range_ms: tuple[float, float]

    def price_ms(self, kind: Kind) -> float | None:
        """Return what an operator costs; None where not even its family is known."""
        known = self.entries_ms.get((kind.family, kind.shape))
        if known is not None:
            return known
        family = self.families_ms.get(kind.family)
        return None if family is None else float(family @ np.array([1, kind.macs, kind.activation_bytes, kind.weight_bytes]))


@predictors.register("lookup")
class Lookup(Predictor):
    """See the module.

    Args:
        tables: By (device, precision).
    """

    def __init__(self, tables: Mapping[tuple[str, str], Table] | None = None) -> None:
        self.tables = dict(tables or {})

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Lookup:  # noqa: ARG002
        """Return a table of each device and precision in `samples`; which graph a device executes, cross-validation says."""
        grouped: dict[tuple[str, str], list[Sample]] = {}
        for s in samples:
            if not (math.isfinite(s.latency_ms) and s.latency_ms > 0):
                raise UsageError(f"lookup: a latency must be positive, got {s.latency_ms!r} ms for {s.name}.")
            grouped.setdefault((s.device, s.precision), []).append(s)
        if not grouped:
            raise UsageError(f"lookup: no timings, got 0. Expected at least {FEWEST}.")
        tables = {}
        for key, rows in sorted(grouped.items()):
            if len(rows) < FEWEST:
                raise UsageError(f"lookup: too few timings of {key[0]}, got {len(rows)}. Expected at least {FEWEST}.")
            tables[key] = fit_table(catalogue([[(s.name, s.graph)] for s in rows]), np.array([s.latency_ms for s in rows]))
        return Lookup(tables)

    def _table(self, profile: Profile, precision: str) -> Table:
        return self.tables[fitted_key("lookup", self.tables, profile, precision)]

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; the first part of the breakdown is what a network costs besides its operators."""
        table = self._table(profile, precision)
        forbidden = frozenset(profile.at(precision).unsupported_ops)
        read = _Priced(table, catalogue([[("graph", graph)]]), forbidden)
        latency, lower, upper = (float(column[0]) for column in read.intervals(confidence))
        parts = [OperatorLatency("start", "Start", table.start_ms)]
        parts += [
            OperatorLatency(kind.shape, kind.family, n * ms)
            for kind, n, ms in zip(read.networks.kinds, read.counts[0], read.prices, strict=True)
            if n
        ]
        return Estimate(
            latency,
            lower,
            upper,
            confidence,
            unsupported=tuple(sorted({*graph.unknown, *read.missing(0), *(graph.kinds & forbidden)})),
            extrapolated=tuple(read.reasons(0)),
            operators=tuple(parts),
        )

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates; a segment is read once however often it stands."""
        table = self._table(profile, precision)
        forbidden = frozenset(profile.at(precision).unsupported_ops)
        read = _Priced(table, catalogue(candidates), forbidden)
        known = [not any(graph.unknown or not graph.kinds.isdisjoint(forbidden) for _, graph in parts) for parts in candidates]
        return Estimates(
            *read.intervals(confidence),
            usable=np.array([fine and not read.missing(i) for i, fine in enumerate(known)], dtype=bool),
            extrapolated=read.doubtful,
        )

    def save(self, path: Path) -> None:
        """Write JSON."""
        rows = [
            {
                "device": device,
                "precision": precision,
                "runtime": RUNTIMES[table.runtime][0],
                "start_ms": table.start_ms,
                "entries_ms": [[*key, ms] for key, ms in table.entries_ms.items()],
                "families_ms": {name: prices.tolist() for name, prices in table.families_ms.items()},
                "scores": table.scores.tolist(),
                "range_ms": table.range_ms,
            }
            for (device, precision), table in self.tables.items()
        ]
        write_artifact(path, "lookup", FORMAT_VERSION, {"tables": rows}, {})

    @classmethod
    def load(cls, path: Path) -> Lookup:
        """Read what `save` wrote."""
        with read_artifact(path, "lookup", FORMAT_VERSION) as artifact:
            return cls({(str(row["device"]), str(row["precision"])): _table_of(row) for row in artifact.header["tables"]})


def _table_of(row: Mapping[str, Any]) -> Table:
    table = Table(
        [name for name, _ in RUNTIMES].index(row["runtime"]),
        float(row["start_ms"]),
        {(str(family), str(shape)): float(ms) for family, shape, ms in row["entries_ms"]},
        {str(name): np.array(prices, dtype=float) for name, prices in row["families_ms"].items()},
        np.array(row["scores"], dtype=float),
        (float(row["range_ms"][0]), float(row["range_ms"][1])),
    )
    numbers = np.array([table.start_ms, *table.entries_ms.values(), *table.range_ms])
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not table.scores.size:
        raise ValueError("a price is no positive number")
    check_shapes({name: (prices, (4,)) for name, prices in table.families_ms.items()})
    check_shapes({"scores": (table.scores, (table.scores.size,))})
    check_log_errors(table.scores)
    return table


class _Priced:
    """Candidates under a table: sums, and what is doubtful about them."""

    def __init__(self, table: Table, networks: Catalogue, forbidden: frozenset[str]) -> None:
        self.table, self.networks, self.counts = table, networks, networks.counts[table.runtime]
        priced = [table.price_ms(kind) for kind in networks.kinds]
        self.unknown = [
            kind.family if ms is None or kind.family in forbidden else "" for kind, ms in zip(networks.kinds, priced, strict=True)
        ]
        self.prices: Floats = np.array([0.0 if name else ms or 0.0 for name, ms in zip(self.unknown, priced, strict=True)])
        self.entered = np.array([(kind.family, kind.shape) in table.entries_ms for kind in networks.kinds], dtype=bool)
        self.sums: Floats = table.start_ms + self.counts @ self.prices
        low, high = table.range_ms
        outside = (self.sums < low / _ROOM) | (self.sums > high * _ROOM)
        self.doubtful = outside | ((self.counts[:, ~self.entered] > 0).any(axis=1))

    def intervals(self, confidence: float) -> tuple[Floats, Floats, Floats]:
        """Return latencies and the ends of their intervals in ms, each of shape (n,)."""
        factor = np.exp(conformal_quantile(self.table.scores, confidence) * np.where(self.doubtful, _BEYOND, 1.0))
        return self.sums, self.sums / factor, self.sums * factor

    def missing(self, row: int) -> list[str]:
        """Return families without a price, and operators that the device cannot run."""
        return sorted({name for name, n in zip(self.unknown, self.counts[row], strict=True) if name and n})

    def reasons(self, row: int) -> list[str]:
        """Return in words what lies outside the table."""
        open_ = sorted({k.family for k, n, e in zip(self.networks.kinds, self.counts[row], self.entered, strict=True) if n and not e})
        words = [
            f"{family}: at shapes that the table lacks, priced like its family" for family in open_ if family in self.table.families_ms
        ]
        low, high = self.table.range_ms
        if not low / _ROOM <= self.sums[row] <= high * _ROOM:
            words.append(f"{self.sums[row]:.3g} ms is far from the table's {low:.3g} to {high:.3g} ms")
        return words or (["operators that the table lacks"] if self.doubtful[row] else [])


def fit_table(networks: Catalogue, latency_ms: Floats) -> Table:
    """Fit a table to timings of graphs that were counted."""
    y = np.asarray(latency_ms, dtype=float)
    families = {name: i for i, name in enumerate(sorted({kind.family for kind in networks.kinds}))}
    sizes = np.zeros((len(networks.kinds), 4 * len(families)))
    for i, (kind, row) in enumerate(zip(networks.kinds, networks.quantities(), strict=True)):
        sizes[i, 4 * families[kind.family] : 4 * families[kind.family] + 4] = row
    folds = np.arange(len(y)) % min(_FOLDS, len(y))
    best: tuple[float, int, float, Floats] | None = None
    distinct: list[Floats] = []
    for runtime, counts in enumerate(networks.counts):
        if any(np.array_equal(counts, other) for other in distinct):
            continue
        distinct.append(counts)
        for leaning in _LEANINGS:
            guess = np.empty(len(y))
            for fold in range(folds.max() + 1):
                out = folds == fold
                start, prices, _ = _prices(counts[~out], sizes, y[~out], leaning)
                guess[out] = start + counts[out] @ prices
            score = np.log(np.maximum(guess, 1e-3 * y) / y)
            error = float(np.mean(np.minimum(np.abs(guess - y) / _unit(y), 1.0)))
            if best is None or error < best[0] - 1e-12:
                best = error, runtime, leaning, score
    assert best is not None
    _, runtime, leaning, score = best
    start, prices, by_family = _prices(networks.counts[runtime], sizes, y, leaning)
    present = (networks.counts[runtime] > 0).any(axis=0)
    return Table(
        runtime,
        start,
        {(kind.family, kind.shape): float(ms) for kind, ms, there in zip(networks.kinds, prices, present, strict=True) if there},
        {name: by_family[4 * i : 4 * i + 4] for name, i in families.items()},
        score[np.argsort(np.abs(score), kind="stable")],
        (float(y.min()), float(y.max())),
    )


def _prices(counts: Floats, sizes: Floats, y: Floats, leaning: float) -> tuple[float, Floats, Floats]:
    """Return (start, prices of the kinds, prices of the families' quantities), all in ms.

    Args:
        counts: Operators of each kind, shape (n, kinds).
        sizes: Quantities of each kind in its family's columns, shape (kinds, 4·families).
        y: Timings in ms, shape (n,).
        leaning: Weight of the family's price against a timing.
    """
    totals = counts @ sizes
    mean = totals.mean(axis=0)
    share = float(np.median(y)) / max(1, int((mean > 0).sum()))  # an equal share each of the quantities that occur
    usual = np.divide(share, mean, out=np.zeros_like(mean), where=mean > 0)  # what no timed network has, has no price
    start, free = _leaning_nnls(totals, y, usual, 0.1)
    by_family = np.maximum(free, 0.01 * usual)
    centre = sizes @ by_family
    _, prices = _leaning_nnls(counts, y, centre, leaning, start)
    return start, np.maximum(prices, 0.01 * centre), by_family


def _unit(y: Floats) -> Floats:
    """Return what errors are relative to: the timing, but not for the few that are next to nothing (networks that fold away)."""
    return np.asarray(np.maximum(y, _LEAST_UNIT * np.median(y)))


def _leaning_nnls(x: Floats, y: Floats, centre: Floats, leaning: float, start: float | None = None) -> tuple[float, Floats]:
    """Return (start, prices) of robust non-negative least squares of relative errors, each price drawn to its centre."""
    from scipy.optimize import nnls

    constant = np.ones((len(y), 1)) * (0.05 * float(np.median(y)) if start is None else max(start, 1e-9))
    unit = _unit(y)
    scaled = np.concatenate([constant, x * centre], axis=1) / unit[:, None]
    target = y / unit
    pull = leaning * np.eye(scaled.shape[1])
    trust: Floats = np.ones(len(y))
    solution: Floats = np.ones(scaled.shape[1])
    for _ in range(3):
        design = np.concatenate([scaled * trust[:, None], pull])
        solution = np.asarray(
            nnls(design, np.concatenate([target * trust, np.full(len(pull), leaning)]), maxiter=30 * len(pull))[0], dtype=float
        )
        trust = 1 / np.sqrt(np.maximum(np.abs(scaled @ solution - target), 0.05) / 0.05)
    return float(solution[0] * constant[0, 0]), solution[1:] * centre
