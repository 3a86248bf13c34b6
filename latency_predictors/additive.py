"""``additive``: non-negative prices of a few dozen quantities, fitted to relative errors, shrunk to what alike devices pay.

The plain model for CPUs, GPUs and boards with public timings: an operator costs so much a MAC of its family, so much a byte it touches, so
much to start; narrow operators cost more a MAC. Prices are never negative and never zero, so a kind of work that the timings lack is priced
as the average of its sort and named as extrapolated. A device with plenty of networks is also given prices of what a finer count tells apart (padded
channels, few positions, attention's layout: `latency_predictors._quantities`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latency_predictors._calibration import Calibration, calibrated
from latency_predictors._design import most_telling
from latency_predictors._operator_counts import Kind, kind_of
from latency_predictors._quantities import QUANTITIES, quantities_of
from nas.devices.artifact import check_log_errors, check_shapes, other_version, read_artifact, write_artifact
from nas.devices.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, fitted_key, predictors
from nas.devices.profile import PrecisionProfile, Profile
from nas.errors import GraphError, UsageError, did_you_mean
from nas.graphs import workloads
from nas.graphs.graph import Graph, Operator
from nas.graphs.operators import spec_of
from nas.graphs.passes import normalise

FORMAT_VERSION = 2
FEWEST = 10  # by hand
MANY = 60  # by hand
FEWEST_FAMILIES = 5  # by hand
ALIKE = 5
"""Devices that are enough to lean on each other. Set by hand."""
_SWEEPS = 30  # by hand
_KNEE = 0.05  # relative error up to which residuals count by their square; by hand
_FIRMNESS = 0.1  # weight of the prior on the factor of each price; by hand
_SCALE_SD = 1.0  # of the logarithm of a new device's factor on all prices: a wide guess, which the first timing settles; by hand
BEYOND = 1.5  # by so much the interval's logarithm grows outside what was calibrated; by hand
_NARROW = (32, 64, 128, 256)  # geometric mean of input and output channels below which a MAC may cost more; by hand
_WORK = ("depthwise3", "depthwise5", "depthwise7", "grouped", "conv3", "conv", "pointwise", "gemm", "attention", "other")
_MOVES = ("relu", "smooth", "elementwise", "norm", "softmax", "layout", "transpose", "pool", "global", "rest")
_WIDE = ("pointwise", "gemm", "conv3", "conv", "grouped")
COARSE = (
    "operators",
    "weight_bytes",
    *(f"{work}/macs" for work in _WORK),
    *(f"{work}/bytes" for work in _WORK),
    *(f"{move}/bytes" for move in _MOVES),
    *(f"{work}/macs<{width}" for work in _WIDE for width in _NARROW),
    "smooth fused/bytes",
)
"""What every device is priced by."""
COLUMNS = (*COARSE, *QUANTITIES)
"""What a device with `MANY` networks is priced by."""
_VIEWS = (slice(len(COARSE)), slice(len(COARSE), None), slice(None))
"""Fits to the coarse, the fine and all columns are averaged: each errs on other networks."""
_AT = {name: i for i, name in enumerate(COLUMNS)}
_FREE = {"Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze"}
"""Another view of a tensor, for which no runtime starts or moves anything."""
_SMOOTH = {"Gelu", "Swish", "Sigmoid", "Tanh", "Mish", "Erf", "Softplus", "Elu", "Selu"}


def _work(kind: Kind) -> str:
    name = kind.family
    if name.startswith("depthwise"):
        size = int(name.removeprefix("depthwise"))
        return "depthwise3" if size <= 3 else "depthwise5" if size <= 5 else "depthwise7"
    if name.startswith("grouped"):
        return "grouped"
    if name in ("pointwise", "conv3"):
        return name
    if name.startswith("conv"):
        return "conv"
    return {"Gemm": "gemm", "MatMul": "gemm", "Attention": "attention"}.get(name, "other")


def _move(op: str) -> str:
    if op in _SMOOTH:
        return "smooth"
    if op == "Transpose" or op == "Roll":
        return "transpose"
    if op.startswith("Global"):
        return "global"
    category = spec_of(op).category
    return {
        "activation": "relu",
        "elementwise": "elementwise",
        "norm": "norm",
        "softmax": "softmax",
        "layout": "layout",
        "pool": "pool",
    }.get(category, "rest")


def _row(graph: Graph, op: Operator) -> dict[str, float]:
    if op.op in _FREE:
        return {}
    kind = kind_of(graph, op)
    row: dict[str, float] = {"operators": 1, "weight_bytes": kind.weight_bytes}
    if kind.macs:
        work = _work(kind)
        row[f"{work}/macs"], row[f"{work}/bytes"] = kind.macs, kind.activation_bytes
        if work in _WIDE and op.weights:
            taps = math.prod(op.weights[0].shape[2:])
            width = math.sqrt(op.weights[0].elements / taps)
            row |= {f"{work}/macs<{edge}": kind.macs for edge in _NARROW if width < edge}
        if op.attribute("activation") in _SMOOTH:
            row["smooth fused/bytes"] = kind.activation_bytes
    else:
        row[f"{_move(op.priced_as)}/bytes"] = kind.activation_bytes
    return row


@lru_cache(maxsize=65536)
def quantities(graph: Graph) -> tuple[float, ...]:
    """Return a graph's quantities in the order of `COLUMNS`."""
    return tuple(_rows(graph)[2].sum(axis=0).tolist())


def _rows(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...], Floats]:
    """Return names and kinds of the operators that a compiling runtime executes, and their quantities, shape (operators, columns)."""
    compiled = normalise(graph)
    fine = quantities_of(compiled, normalise)
    rows = np.zeros((len(compiled.operators), len(COLUMNS)))
    for at, op in enumerate(compiled.operators):
        if op.category == "unknown":
            continue
        for name, value in _row(compiled, op).items():
            rows[at, _AT[name]] += value
    rows[:, len(COARSE) :] = fine.rows
    return fine.names, fine.ops, rows


@dataclass(frozen=True, eq=False)
class Prices:
    """What one device pays.

    Attributes:
        prices_ms: A unit of each quantity, shape (columns,).
        networks: Names of the networks of the fit.
        measured_ms: Their latencies, shape (networks,).
        left_out_ms: What each is predicted when it, or its family, is left out, shape (networks,).
        most: Second largest amount of each quantity in a network of the fit, so zero where fewer than two had any.
    """

    prices_ms: Floats
    networks: tuple[str, ...]
    measured_ms: Floats
    left_out_ms: Floats
    most: Floats

    @cached_property
    def scores(self) -> Floats:
        """Log residuals (predicted over measured) of the networks left out, by ascending size."""
        residuals = np.log(self.left_out_ms / self.measured_ms)
        return np.asarray(residuals[np.argsort(np.abs(residuals), kind="stable")])

    @property
    def range_ms(self) -> tuple[float, float]:
        """Fastest and slowest network of the fit."""
        return float(self.measured_ms.min()), float(self.measured_ms.max())


def fit_prices(x: Floats, latency_ms: Floats, prior: Floats | None = None, penalty: float = 0.0) -> Floats:
    """Return non-negative prices that minimise robust relative errors, shrunk to `prior`, shape (columns,).

    Args:
        x: Quantities, shape (n, columns).
        latency_ms: Shape (n,).
        prior: Prices of an alike device; by default the average price of a MAC, a byte and a start.
        penalty: Weight of the prior where networks are few; `_FIRMNESS` where zero.

    Source:
        Lawson & Hanson's non-negative least squares; Huber-like weights (reweighted four times, relative error 5 %).
    """
    if prior is None and len(latency_ms) >= MANY:
        return np.asarray(np.mean([_shrunk_prices(x, latency_ms, view) for view in _VIEWS], axis=0))
    least = 0.01 * default_prices(x, latency_ms)
    centre = 100 * least if prior is None else prior
    fitted, priced = np.zeros(len(COLUMNS)), centre > 0  # what has no price at the centre has none where networks are few
    fitted[priced] = _robust_nnls((x / latency_ms[:, None] * centre)[:, priced], penalty or _FIRMNESS, 1.0) * centre[priced]
    return _never_zero(x, fitted, least)


def _shrunk_prices(x: Floats, latency_ms: Floats, view: slice) -> Floats:
    """Return prices from plenty of networks, of the columns in view; all are shrunk alike, to nothing."""
    rows = x[:, view] / latency_ms[:, None]
    centre = 1 / (rows.mean(0) + rows.std(0) + 1e-12)
    fitted = np.zeros(len(COLUMNS))
    fitted[view] = _robust_nnls(rows * centre, 0.05 * len(rows) ** 0.5, 0.0) * centre
    return _never_zero(x, fitted, 0.01 * default_prices(x, latency_ms))


def _never_zero(x: Floats, prices: Floats, least: Floats) -> Floats:
    """Return prices that are positive, and under which a larger window never takes less than a smaller one on the same map."""
    present = np.asarray((x > 0).any(axis=0))
    prices = np.where(present, np.maximum(prices, least), 100 * least)
    for small, large in itertools.pairwise((3, 5, 7)):
        for unit, share in (("macs", small**2 / large**2), ("bytes", 1.0)):
            i, j = _AT[f"depthwise{small}/{unit}"], _AT[f"depthwise{large}/{unit}"]
            prices[j] = max(
                prices[j], prices[i] * (share if present[j] else 1.0)
            )  # a window that nobody timed has the price of the next smaller one
    return np.asarray(prices, dtype=float)


def _robust_nnls(scaled: Floats, strength: float, target: float) -> Floats:
    """Return factors ≥ 0 that bring every row to one, drawn to `target` with `strength`."""
    from scipy.optimize import nnls

    pull = strength * np.eye(scaled.shape[1])
    trust = np.ones(len(scaled))
    solution: Floats = np.ones(len(pull))
    for _ in range(4):
        design = np.concatenate([scaled * trust[:, None], pull])
        solution = np.asarray(nnls(design, np.concatenate([trust, np.full(len(pull), strength * target)]), maxiter=60 * len(pull))[0])
        trust = 1 / np.sqrt(np.maximum(np.abs(scaled @ solution - 1), _KNEE) / _KNEE)
    return solution


def default_prices(x: Floats, latency_ms: Floats) -> Floats:
    """Return prices under which MACs, bytes, weights and starts take a quarter of the time each, whatever their family; fine counts are free."""
    sorts = {"macs": 0.0, "bytes": 0.0, "weight_bytes": 0.0, "operators": 0.0}
    totals = dict.fromkeys(sorts, np.zeros(len(x)))
    of = ["macs" if "macs" in name else name if name in sorts else "bytes" for name in COARSE]
    for i, name in enumerate(COARSE):
        if "<" not in name:
            totals[of[i]] = totals[of[i]] + x[:, i]
    unit = {sort: float(np.median(latency_ms / np.maximum(total, 1e-9))) / 4 for sort, total in totals.items()}
    coarse = [unit[sort] * (0.2 if "<" in name else 1.0) for name, sort in zip(COARSE, of, strict=True)]
    return np.array(coarse + [0.0] * len(QUANTITIES))


def left_out(x: Floats, latency_ms: Floats, groups: Sequence[Any], prior_of: Any = None, penalty: float = 0.0) -> Floats:
    """Return what each network is predicted when all networks of its group are left out, shape (n,); see `fit_prices` for `penalty`."""
    labels = np.array(groups)
    guess = np.empty(len(latency_ms))
    for label in dict.fromkeys(groups):
        out = labels == label
        prior = prior_of(label, x[~out], latency_ms[~out]) if prior_of else None
        guess[out] = x[out] @ fit_prices(x[~out], latency_ms[~out], prior, penalty)
    return guess


def folds_of(families: Sequence[str], count: int = 5, seed: int = 0) -> list[str]:
    """Return a fold for each network, families kept together where there are as many families as folds."""
    names = sorted(set(families))
    if len(names) < count:  # nothing to hold together
        return [str(i % count) for i in range(len(families))]
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[i]: str(place % count) for place, i in enumerate(order)}
    return [fold[family] for family in families]


@predictors.register("additive")
class Additive(Predictor):
    """See the module.

    Args:
        devices: Prices by (device, precision).
        penalty: How firmly the pool's typical device is drawn to prices that know no kind of work; more where timings are rough.
    """

    def __init__(self, devices: Mapping[tuple[str, str], Prices] | None = None, penalty: float = 0.05) -> None:
        self.devices, self.penalty = dict(devices or {}), penalty
        self._pools: dict[str, Calibration | None] = {}

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Additive:  # noqa: ARG002
        """Return prices of every device in `samples`; devices with few networks are shrunk to the pool's typical device.

        With 60 networks or more, five folds over families give the interval; with fewer, each family is left out in turn, on all devices.
        """
        prices: dict[tuple[str, str], Prices] = {}
        for precision in sorted({s.precision for s in samples}):
            chosen = [s for s in samples if s.precision == precision]
            prices |= _fit_pool(chosen, precision, self.penalty)
        if not prices:
            raise UsageError("additive: no timings, got 0.")
        return Additive(prices, self.penalty)

    def extended(self, samples: Sequence[Sample], looseness: float = 1.0) -> Additive:
        """See `Predictor.extended`: a new device gets prices as `fit` gives them to one with few networks; those of the others stay."""
        devices = dict(self.devices)
        for precision in sorted({s.precision for s in samples}):
            pool = {device: prices for (device, at), prices in self.devices.items() if at == precision}
            if not pool:
                fitted = sorted({at for _, at in self.devices})
                raise UsageError(f"additive: nothing is fitted at {precision!r}.{did_you_mean(precision, fitted)}")
            chosen = [s for s in samples if s.precision == precision]
            added = _new_prices(pool, chosen, self.penalty, _FIRMNESS / looseness)
            devices |= {(device, precision): prices for device, prices in added.items()}
        return Additive(devices, self.penalty)

    def choose_informative(self, candidates: Mapping[str, Graph], profile: Profile, precision: str, count: int) -> list[str]:
        """See `Predictor.choose_informative`: prices that differ from those of `profile` as freely as `fit_prices` lets them."""
        prices = self.devices[fitted_key("additive", self.devices, profile, precision)].prices_ms
        names = list(candidates)
        parts = np.array([quantities(candidates[name]) for name in names]) * prices
        share = np.concatenate([parts / parts.sum(axis=1, keepdims=True), np.ones((len(names), 1))], axis=1)
        variance = np.append(np.full(len(prices), (_KNEE / _FIRMNESS) ** 2), _SCALE_SD**2)
        return [names[i] for i in most_telling(share, variance, _KNEE**2, count)]

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`; families are left out together where networks are plenty."""
        prices = self.devices[device, precision]
        rows = zip(prices.networks, prices.measured_ms.tolist(), prices.left_out_ms.tolist(), strict=True)
        pool, alone = self._pool(precision), conformal_quantile(prices.scores, 0.9)
        scales = pool.without.get((device, precision)) if pool else None
        factors = {name: math.exp(pool.quantile(0.9) * scales[name] if pool and scales else alone) for name in prices.networks}
        return [(name, measured, guess, guess / factors[name], guess * factors[name]) for name, measured, guess in rows]

    def _pool(self, precision: str) -> Calibration | None:
        """Return what the devices of few networks make their intervals of together, None where there are fewer than `ALIKE`."""
        if precision not in self._pools:
            few = {key: p for key, p in self.devices.items() if key[1] == precision and len(p.networks) < MANY}
            networks = list(dict.fromkeys(name for p in few.values() for name in p.networks))
            residual = np.full((len(few), len(networks)), np.nan)
            for row, p in zip(residual, few.values(), strict=True):
                row[[networks.index(name) for name in p.networks]] = np.log(p.left_out_ms / p.measured_ms)
            enough = len(few) >= ALIKE
            self._pools[precision] = calibrated(list(few), networks, residual) if enough else None
        return self._pools[precision]

    def _width(self, key: tuple[str, str], confidence: float) -> float:
        """Return the logarithm of the interval's factor."""
        pool = self._pool(key[1])
        if pool is not None and key in pool.scale:
            return pool.width(key, confidence)
        return conformal_quantile(self.devices[key].scores, confidence)

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; the breakdown sums to the latency."""
        key = fitted_key("additive", self.devices, profile, precision)
        names, ops, rows = _rows(graph)
        return priced(
            self.devices[key], graph, (names, ops, rows), COLUMNS, self._width(key, confidence), profile.at(precision), confidence
        )

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates; a segment is priced once."""
        key = fitted_key("additive", self.devices, profile, precision)
        prices = self.devices[key]
        x = np.array([np.sum([quantities(graph) for _, graph in parts], axis=0) for parts in candidates]).reshape(-1, len(COLUMNS))
        usable = [runs_whole(parts, profile.at(precision)) for parts in candidates]
        return priced_batch(prices, x, usable, COLUMNS, self._width(key, confidence))

    def save(self, path: Path) -> None:
        """Write an npz of numbers and one JSON text."""
        save_prices(path, "additive", self.devices, COLUMNS, FORMAT_VERSION)

    @classmethod
    def load(cls, path: Path) -> Additive:
        """Read what `save` wrote."""
        return cls(load_prices(path, "additive", COLUMNS, FORMAT_VERSION)[0])


def compiled_kinds(graph: Graph) -> frozenset[str]:
    """Return the kinds of operators that a compiling runtime executes, and of the activations that it fuses into them."""
    return quantities_of(graph, normalise).kinds


def runs_whole(parts: Segments, at: PrecisionProfile, kinds_of: Callable[[Graph], frozenset[str]] = compiled_kinds) -> bool:
    """Return whether every operator of a candidate is known, and a device lacks none of its kinds."""
    lacking = at.unsupported_ops
    return not any(graph.unknown or (lacking and not kinds_of(graph).isdisjoint(lacking)) for _, graph in parts)


def priced(
    prices: Prices,
    graph: Graph,
    counted: tuple[Sequence[str], Sequence[str], Floats],
    columns: Sequence[str],
    width: float,
    at: PrecisionProfile,
    confidence: float,
    kinds_of: Callable[[Graph], frozenset[str]] = compiled_kinds,
) -> Estimate:
    """Estimate one graph; the breakdown sums to the latency.

    Args:
        prices: Of the device.
        graph: For what nobody can price.
        counted: Names and kinds of what is priced, and its quantities, (operators, columns).
        columns: Their names.
        width: Logarithm of the interval's factor inside what was calibrated.
        at: Of the device.
        confidence: Nominal coverage that `width` has.
        kinds_of: Returns the kinds of operators that a graph runs.
    """
    absent = {*graph.unknown, *kinds_of(graph).intersection(at.unsupported_ops)}
    runs = np.array([op not in absent for op in counted[1]], dtype=bool)
    names, ops = (tuple(itertools.compress(each, runs)) for each in counted[:2])
    rows = counted[2][runs]
    parts, total = rows @ prices.prices_ms, rows.sum(axis=0)
    latency = float(total @ prices.prices_ms)
    if not latency > 0:
        raise GraphError(f"estimate {graph.name}: no operator has a price there, got {', '.join(sorted(set(counted[1]))) or 'none'}.")
    beyond = reasons_beyond(prices, total, latency, columns)
    factor = math.exp(width * (BEYOND if beyond else 1))
    return Estimate(
        latency,
        latency / factor,
        latency * factor,
        confidence,
        unsupported=tuple(sorted(absent)),
        extrapolated=beyond,
        operators=tuple(OperatorLatency(name, op, float(ms)) for name, op, ms in zip(names, ops, parts, strict=True)),
    )


def priced_batch(prices: Prices, x: Floats, usable: Sequence[bool], columns: Sequence[str], width: float) -> Estimates:
    """Estimate candidates of quantities `x`, (candidates, columns); see `priced` for the rest."""
    latency = x @ prices.prices_ms
    extrapolated = [bool(reasons_beyond(prices, row, float(ms), columns)) for row, ms in zip(x, latency, strict=True)]
    factor = np.exp(width * np.where(extrapolated, BEYOND, 1))
    return Estimates(latency, latency / factor, latency * factor, np.array(usable, dtype=bool), np.array(extrapolated, dtype=bool))


def save_prices(
    path: Path,
    name: str,
    devices: Mapping[tuple[str, str], Prices],
    columns: Sequence[str],
    version: int,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write prices by (device, precision), and what else a predictor must know, as the artifact of the predictor `name`."""
    head = {"columns": list(columns), "devices": [list(key) for key in devices], "networks": [list(p.networks) for p in devices.values()]}
    head |= {"facts": dict(facts)} if facts else {}
    stacked = {
        "prices": np.array([p.prices_ms for p in devices.values()]),
        "most": np.array([p.most for p in devices.values()], dtype=np.float32),
    }
    ms = {f"ms/{i}": np.stack([p.measured_ms, p.left_out_ms]) for i, p in enumerate(devices.values())}
    write_artifact(path, name, version, head, stacked | ms)


def load_prices(path: Path, name: str, columns: Sequence[str], version: int) -> tuple[dict[tuple[str, str], Prices], dict[str, Any]]:
    """Read the prices and facts that `save_prices` wrote; columns that came later are free.

    Raises:
        ArtifactError: Missing, damaged, or of another version.
    """
    at = {column: i for i, column in enumerate(columns)}
    with read_artifact(path, name, version) as artifact:
        head, data = artifact.header, artifact.arrays
        if later := sorted(set(head["columns"]) - set(columns)):
            raise other_version(path, name, f"the column {later[0]}", version)
        place = [at[column] for column in head["columns"]]
        devices, networks = [(str(device), str(precision)) for device, precision in head["devices"]], head["networks"]
        shape = (len(devices), len(place))
        check_shapes({"prices": (data["prices"], shape), "most": (data["most"], shape)})
        check_shapes({f"ms/{i}": (data[f"ms/{i}"], (2, len(names))) for i, names in enumerate(networks)})
        timings = [data[f"ms/{i}"] for i in range(len(devices))]
        if len(networks) != len(devices) or any(not ms.size or (ms <= 0).any() for ms in timings) or (data["prices"] < 0).any():
            raise ValueError("prices and timings are not positive, or not of all devices")
        for ms in timings:
            check_log_errors(np.log(ms[1]) - np.log(ms[0]))
        prices, most = np.zeros((2, len(devices), len(columns)))
        prices[:, place], most[:, place] = data["prices"], data["most"]
        by_device = {
            key: Prices(prices[i], tuple(map(str, networks[i])), timings[i][0], timings[i][1], most[i]) for i, key in enumerate(devices)
        }
        return by_device, dict(head.get("facts", {}))


def _fit_pool(samples: Sequence[Sample], precision: str, penalty: float) -> dict[tuple[str, str], Prices]:
    graphs = {s.name: s.graph for s in samples}
    family = {s.name: s.family or s.name for s in samples}
    rows = {name: np.array(quantities(graph)) for name, graph in graphs.items()}
    timed: dict[str, dict[str, float]] = {}
    for s in samples:
        if not (math.isfinite(s.latency_ms) and s.latency_ms > 0):
            raise UsageError(f"additive: a latency must be positive, got {s.latency_ms!r} ms for {s.name}.")
        timed.setdefault(s.device, {})[s.name] = s.latency_ms
    typical = _Typical(timed, rows, family, penalty) if len(timed) >= ALIKE and len(graphs) < MANY else None
    for device, latencies in timed.items():
        if len(latencies) < FEWEST:
            raise UsageError(f"additive: too few networks of {device}, got {len(latencies)}. Expected at least {FEWEST}.")
    return {(device, precision): _prices_of(latencies, rows, family, typical) for device, latencies in sorted(timed.items())}


def _prices_of(
    latencies: Mapping[str, float], rows: Mapping[str, Floats], family: Mapping[str, str], typical: _Typical | None, penalty: float = 0.0
) -> Prices:
    """Return what one device pays; where there is a typical device, it is shrunk to that device's prices, as firmly as `penalty` says."""
    names = list(latencies)
    x, y = np.array([rows[n] for n in names]), np.array([latencies[n] for n in names])
    alone = typical is None and len(names) >= MANY
    groups = folds_of([family[n] for n in names]) if alone else left_out_together(names, family)
    return Prices(
        fit_prices(x, y, typical.scaled("", x, y) if typical else None, penalty),
        tuple(names),
        y,
        left_out(x, y, groups, typical.scaled if typical else None, penalty),
        np.sort(x, axis=0)[-2].astype(np.float32).astype(float),
    )


def _new_prices(pool: Mapping[str, Prices], samples: Sequence[Sample], penalty: float, firmness: float) -> dict[str, Prices]:
    """Return the prices of the devices in `samples`, shrunk to those of the device that is typical of them and of the pool.

    Args:
        pool: Devices that were timed before, by name. Their networks without a graph here say nothing.
        samples: Of one precision.
        penalty: See `Additive`.
        firmness: As `fit_prices` has it.
    """
    known = set(workloads.names())
    timed = {device: {n: ms for n, ms in zip(p.networks, p.measured_ms.tolist(), strict=True) if n in known} for device, p in pool.items()}
    own: dict[str, dict[str, float]] = {}
    for s in samples:
        own.setdefault(s.device, {})[s.name] = s.latency_ms
    graphs = {n: workloads.load(n) for latencies in timed.values() for n in latencies} | {s.name: s.graph for s in samples}
    rows = {name: np.array(quantities(graph)) for name, graph in graphs.items()}
    family = {name: workloads.describe(name).family if name in known else name for name in graphs}
    typical = _Typical({device: row for device, row in timed.items() if row} | own, rows, family, penalty)
    return {device: _prices_of(latencies, rows, family, typical, firmness) for device, latencies in own.items()}


class _Typical:
    """Prices of the device in the middle, with a family left out everywhere.

    A timing is a device's factor times a network's; networks that few devices were timed with shift neither.
    """

    def __init__(
        self, timed: Mapping[str, Mapping[str, float]], rows: Mapping[str, Floats], family: Mapping[str, str], penalty: float
    ) -> None:
        self.timed, self.rows, self.family, self.penalty = timed, rows, family, penalty
        self.known: dict[str, Floats] = {}

    def prices(self, without: str) -> Floats:
        """Return the prices, shape (columns,), without a network or a family; an empty text leaves none out."""
        if without not in self.known:
            names = sorted({name for latencies in self.timed.values() for name in latencies if without not in (name, self.family[name])})
            logs = np.array([[math.log(row[n]) if n in row else np.nan for n in names] for row in self.timed.values()])
            logs = logs[np.isfinite(logs).any(axis=1)]
            device = np.nanmean(logs, axis=1, keepdims=True)
            for _ in range(_SWEEPS):
                network = np.nanmedian(logs - device, axis=0)
                device = np.nanmean(logs - network, axis=1, keepdims=True)
            self.known[without] = fit_prices(np.array([self.rows[n] for n in names]), np.exp(network), None, self.penalty)
        return self.known[without]

    def scaled(self, without: str, x: Floats, latency_ms: Floats) -> Floats:
        """Return the prices at the scale of one device, by its networks that are not left out."""
        fitted = self.prices(without)
        return fitted * float(np.exp(np.median(np.log(latency_ms / (x @ fitted)))))


def left_out_together(names: Sequence[str], family: Mapping[str, str]) -> list[str]:
    """Return what each network is left out with: its family where there are `FEWEST_FAMILIES` or more, else itself alone."""
    families = [family[name] for name in names]
    return families if len(set(families)) >= FEWEST_FAMILIES else list(names)


def conformal_quantile(scores: Floats, confidence: float) -> float:
    """Return the size of the ⌈(n + 1)·confidence⌉-th of n scores; beyond the largest, half as much again (few networks hold no high quantile)."""
    rank = math.ceil((len(scores) + 1) * confidence)
    return abs(float(scores[rank - 1])) if rank <= len(scores) else 1.5 * abs(float(scores[-1]))


def reasons_beyond(prices: Prices, row: Floats, latency_ms: float, columns: Sequence[str]) -> tuple[str, ...]:
    """Return in words what of a network, its quantities (columns,), lies outside the fit."""
    parts = row * prices.prices_ms / latency_ms
    unseen = np.flatnonzero((prices.most == 0) & (parts > 0.03))
    large = np.flatnonzero((prices.most > 0) & (row > 1.5 * prices.most) & (parts > 0.1))
    reasons = [f"{columns[int(i)]} is {100 * parts[i]:.0f} % of it and in no two networks of the fit" for i in unseen]
    reasons += [f"{columns[int(i)]} is {row[i] / prices.most[i]:.1f} times what the fit had" for i in large]
    low, high = prices.range_ms
    if not low / 1.25 <= latency_ms <= 1.25 * high:
        reasons.append(f"{latency_ms:.3g} ms is outside the fit's {low:.3g} to {high:.3g} ms")
    return tuple(reasons)
