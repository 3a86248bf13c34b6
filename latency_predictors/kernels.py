"""``kernels``: what PyTorch launches for a graph as it is written, at prices drawn to what the hardware would ask.

For devices timed under PyTorch with hundreds of networks. Quantities are those of `latency_predictors._kernels`: the bytes that every kernel
moves at the size its numbers really have, multiply-adds by kind, starts. A price is a factor on a common one (of a byte, of a multiply-add, of a
start, all three from the timings alone), and a factor is drawn to what a kernel of that sort should ask: so work that few networks contain
is priced as bytes are, not as the one odd network would have it. Fits with several strengths of that belief are averaged.

Graphs are priced as they are: a network whose batch norms are folded is estimated without them, one in training form with its branches.
Published networks are priced as their libraries build them, which is what was timed.

Source: roofline (Williams et al. 2009) for the columns; ridge regression towards a prior mean with non-negative factors (Lawson & Hanson).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from latency_predictors._kernels import COLUMNS, Kernels, State, kernels_of
from latency_predictors.additive import (
    FEWEST,
    MANY,
    Prices,
    conformal_quantile,
    folds_of,
    load_prices,
    priced,
    priced_batch,
    runs_whole,
    save_prices,
)
from nas.devices.predictor import Estimate, Estimates, Floats, Predictor, Sample, Segments, fitted_key, predictors
from nas.devices.profile import Profile
from nas.errors import UsageError
from nas.graphs.graph import Graph

FORMAT_VERSION = 1
NAMES = tuple(COLUMNS)
AUTOCAST = frozenset({"fp16"})
"""Precisions at which PyTorch casts automatically; at the others numbers are floats throughout."""
STRENGTHS: Mapping[bool, tuple[float, ...]] = {True: (0.3, 1.0), False: (0.05, 0.1, 0.2)}
"""How strongly factors are drawn to what is expected, in standard deviations of a network's error over those of a factor: under autocast a GPU's
largest batch keeps to its bytes and multiply-adds, a processor at batch 1 less so. Set by hand."""
SHARING = (0.5, 1.0), (0.0, 0.5)
"""By how much families share their say (0: a network has a vote, 1: a family), under autocast and in floats. Set by hand."""
_START_MS = 1e-5  # a frame's share of a kernel's start at a batch of a thousand; by hand
Fit = Callable[[Floats, Floats, Sequence[str], bool], Floats]
_LEAST = 0.01  # of the expected price, that nothing is free; by hand
_ELEMENT_BYTES = {True: 2.0, False: 4.0}  # by autocast: halves, else floats


def common_prices(x: Floats, latency_ms: Floats, autocast: bool) -> Floats:
    """Return the price of one of each column's unit, (columns,), from all bytes, all multiply-adds and all starts alone."""
    from scipy.optimize import nnls

    names = list(COLUMNS)
    moved = x[:, [i for i, unit in enumerate(COLUMNS.values()) if unit.of == "MB" and (unit.autocast if autocast else unit.floats)]].sum(
        axis=1
    )
    macs = x[:, [i for i, name in enumerate(names) if name.endswith("/macs")]].sum(axis=1)
    totals = np.stack([moved, macs, x[:, names.index("start")]], axis=1)
    byte, mac, start = np.maximum(
        nnls(totals / latency_ms[:, None], np.ones(len(x)))[0], 1e-3 / (totals.mean(axis=0) + 1e-9) * latency_ms.mean()
    )
    price = {
        "MB": byte,
        "MMAC": mac,
        "20 MMAC": 20 * mac,
        "M": _ELEMENT_BYTES[autocast] * byte,
        "start": _START_MS if autocast else start,
        "ms": 1.0,
    }
    return np.array([price[unit.of] for unit in COLUMNS.values()])


def fit_prices(x: Floats, latency_ms: Floats, families: Sequence[str], autocast: bool) -> Floats:
    """Return prices, (columns,), averaged over `STRENGTHS` and `SHARING`.

    Args:
        x: Quantities, shape (n, columns).
        latency_ms: Shape (n,).
        families: Of the networks, n.
        autocast: Whether they ran under automatic mixed precision.
    """
    common = common_prices(x, latency_ms, autocast)
    expected = np.array([unit.autocast if autocast else unit.floats for unit in COLUMNS.values()])
    rows = x / latency_ms[:, None] * common
    count = dict(zip(*np.unique(families, return_counts=True), strict=True))
    size = np.array([count[family] for family in families], dtype=float)
    fits = [
        _factors(rows, expected, strength, size ** (-sharing / 2)) for strength in STRENGTHS[autocast] for sharing in SHARING[not autocast]
    ]
    return np.asarray(np.maximum(np.mean(fits, axis=0), _LEAST * expected) * common)


def _factors(rows: Floats, expected: Floats, strength: float, say: Floats) -> Floats:
    """Return factors ≥ 0 that bring every row to one, drawn to what is expected; robust to single networks (relative error 5 %)."""
    from scipy.optimize import nnls

    used = (rows > 0).any(axis=0)
    factors = expected.copy()
    say = say / np.sqrt(np.mean(say**2))
    trust, pull = say, strength * np.eye(int(used.sum()))
    for _ in range(4):
        design = np.concatenate([rows[:, used] * trust[:, None], pull])
        factors[used] = nnls(design, np.concatenate([trust, strength * expected[used]]), maxiter=100 * len(pull))[0]
        trust = say / np.sqrt(np.maximum(np.abs(rows @ factors - 1), 0.05) / 0.05)
    return factors


def left_out(x: Floats, latency_ms: Floats, families: Sequence[str], autocast: bool, seed: int = 0, fit: Fit = fit_prices) -> Floats:
    """Return what each network is predicted when its fold of families is left out (its own family, where networks are few), shape (n,)."""
    folds = np.array(folds_of(families, seed=seed) if len(families) >= MANY else families)
    guess = np.empty(len(latency_ms))
    for fold in dict.fromkeys(folds.tolist()):
        out = folds == fold
        remaining = [family for family, left in zip(families, out.tolist(), strict=True) if not left]
        guess[out] = x[out] @ fit(x[~out], latency_ms[~out], remaining, autocast)
    return guess


@predictors.register("kernels")
class KernelPrices(Predictor):
    """See the module.

    Args:
        devices: Prices by (device, precision).
    """

    as_written: ClassVar[bool] = True

    def __init__(self, devices: Mapping[tuple[str, str], Prices] | None = None) -> None:
        self.devices = dict(devices or {})

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> KernelPrices:  # noqa: ARG002
        """Return prices of every device in `samples`; families are left out for the interval, in folds where networks are plenty."""
        timed: dict[tuple[str, str], dict[str, Sample]] = {}
        for s in samples:
            if not (math.isfinite(s.latency_ms) and s.latency_ms > 0):
                raise UsageError(f"kernels: a latency must be positive, got {s.latency_ms!r} ms for {s.name}.")
            timed.setdefault((s.device, s.precision), {})[s.name] = s
        if not timed:
            raise UsageError("kernels: no timings, got 0.")
        return KernelPrices({key: _fit_device(key, list(timings.values())) for key, timings in sorted(timed.items())})

    def _prices(self, profile: Profile, precision: str) -> Prices:
        return self.devices[fitted_key("kernels", self.devices, profile, precision)]

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`; families are left out together where networks are plenty."""
        prices = self.devices[device, precision]
        factor = math.exp(conformal_quantile(prices.scores, 0.9))
        rows = zip(prices.networks, prices.measured_ms.tolist(), prices.left_out_ms.tolist(), strict=True)
        return [(name, measured, guess, guess / factor, guess * factor) for name, measured, guess in rows]

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; the breakdown sums to the latency."""
        prices = self._prices(profile, precision)
        counted = kernels_of(graph, precision in AUTOCAST)
        width = conformal_quantile(prices.scores, confidence)
        return priced(prices, graph, (counted.names, counted.ops, counted.rows), NAMES, width, profile.at(precision), confidence, _kinds)

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates; a segment is counted once for each state in which its input comes."""
        prices = self._prices(profile, precision)
        chains = [list(_chained(parts, precision in AUTOCAST)) for parts in candidates]
        x = np.array([np.sum([counted.total for counted in chain], axis=0) for chain in chains]).reshape(-1, len(NAMES))
        usable = [runs_whole(parts, profile.at(precision), _kinds) for parts in candidates]
        return priced_batch(prices, x, usable, NAMES, conformal_quantile(prices.scores, confidence))

    def save(self, path: Path) -> None:
        """Write an npz of numbers and one JSON text."""
        save_prices(path, "kernels", self.devices, NAMES, FORMAT_VERSION)

    @classmethod
    def load(cls, path: Path) -> KernelPrices:
        """Read what `save` wrote."""
        return cls(load_prices(path, "kernels", NAMES, FORMAT_VERSION)[0])


def _kinds(graph: Graph) -> frozenset[str]:
    return graph.kinds  # as it is written


def _chained(parts: Segments, autocast: bool) -> list[Kernels]:
    chain: list[Kernels] = []
    entering: State | None = None
    for _, graph in parts:
        chain.append(kernels_of(graph, autocast, entering))
        entering = chain[-1].leaving
    return chain


def _fit_device(key: tuple[str, str], samples: Sequence[Sample]) -> Prices:
    device, precision = key
    if len(samples) < FEWEST:
        raise UsageError(f"kernels: too few networks of {device}, got {len(samples)}. Expected at least {FEWEST}.")
    autocast = precision in AUTOCAST
    x = np.array([kernels_of(s.graph, autocast).total for s in samples])
    y = np.array([s.latency_ms for s in samples])
    families = [s.family or s.name for s in samples]
    guess = left_out(x, y, families, autocast)
    most = np.sort(x, axis=0)[-2].astype(np.float32).astype(float)
    return Prices(fit_prices(x, y, families, autocast), tuple(s.name for s in samples), y, guess, most)
