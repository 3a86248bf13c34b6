"""``boards``: prices of an accelerator of which a few dozen networks are timed, families left out.

Work is of a few sorts: multiply-adds, elements read and written, operators started, weights. A kind of work (pointwise, depthwise, a pooling, a
sigmoid) pays the price of its sort and, where timings insist, an extra of its own; so a kind that no timing has is priced as its sort, and no work is
free. What an accelerator lacks runs on its host at a sort's price of its own. Prices of the accelerator come first, from networks that have only
what it runs; those of the host follow, from the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latency_predictors.additive import (
    Prices,
    conformal_quantile,
    left_out_together,
    load_prices,
    priced,
    priced_batch,
    runs_whole,
    save_prices,
)
from nas.devices.artifact import reading
from nas.devices.predictor import Estimate, Estimates, Floats, Predictor, Sample, Segments, fitted_key, predictors
from nas.devices.profile import Profile
from nas.errors import UsageError
from nas.graphs.graph import Graph, Operator, join
from nas.graphs.passes import normalise

FORMAT_VERSION = 1
_MACS = ("pointwise", "conv3", "conv", "stem", "gemm", "depthwise", "grouped", "product")
_MOVES = (
    *("conv/in", "conv/out", "depthwise/in", "depthwise/out", "grouped/in", "grouped/out", "gemm/in", "gemm/out", "product/in", "product/out"),
    *("add", "scale", "mul", "batchnorm", "norm", "softmax", "concat", "split", "transpose", "move", "pad", "maxpool", "avgpool", "global", "resize"),
    *("hardswish", "swish", "gelu", "sigmoid", "hardsigmoid", "activation", "rest"),
)  # fmt: skip
_PADDED = tuple(f"{kind}/{width}" for kind in ("pointwise", "conv3") for width in (32, 64, 128))
_COUNTS = ("operators", "n/conv", "n/depthwise", "n/grouped", "n/mul", "depthwise>3", "weights", "n/host", "n/stem")
KINDS = (*(f"{name}/macs" for name in _MACS), *_MOVES, *_PADDED, *_COUNTS)
"""Kinds of work: 10⁶ multiply-adds (``…/macs``; ``…/32`` as if no side had fewer channels), 10⁶ elements, or counts."""

COLUMNS = ("macs", "elements", "host elements", *KINDS)
"""What is priced: the sorts, then the kinds' extras."""

HOST = (
    *("scale", "mul", "batchnorm", "norm", "softmax", "split", "sigmoid", "hardsigmoid", "gelu", "swish", "activation", "transpose", "move", "rest", "pad"),
    *("grouped/in", "grouped/out", "product/in", "product/out", "grouped/macs", "product/macs", "n/mul", "n/grouped"),
)  # fmt: skip
"""What DRP-AI leaves to its host, by the timings: networks that have it are 20 to 100 times slower."""

_AT = {name: i for i, name in enumerate(KINDS)}
_ACTIVATION = {"HardSwish": "hardswish", "Swish": "swish", "Gelu": "gelu", "Sigmoid": "sigmoid", "HardSigmoid": "hardsigmoid"}
_PLAIN = {"Relu", "Clip", "LeakyRelu", "PRelu", "Identity"}
_LAYOUT = {"Concat": "concat", "Split": "split", "Slice": "split", "Transpose": "transpose", "Pad": "pad"}
_FREE = {"Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze"}
_OF_FEW = ("n/host", "n/stem")
_FEW = ("scale", "mul", "n/mul", "grouped/macs", "n/grouped", "operators", *_OF_FEW)
_FEW_STRENGTH = 0.2
"""Kinds that have a price of their own where a table's few prices tell more than many, and how firmly all are drawn to nothing.
Source: chosen for RZ/V2H while its errors were watched (experiments/007_public_profiles, which says so)."""
_STRENGTHS = ((60, 20, 0.01, 0.05, 0.01), (60, 0, 0.002, 30.0, 0.15), (25, 0, 0.03, 10.0, 0.3), (0, 0, 0.01, 30.0, 10.0))
"""(Fewest networks and families; how firmly the prices of sorts, the extras of kinds, and counts and padded multiply-adds are drawn to nothing).
Source: chosen while the errors of experiments/007_public_profiles were watched, which says so."""
_FIRM = 5.0
"""How firmly prices of an accelerator stay as the networks without host work say."""
FEWEST = 7  # by hand
_CLEAN = 8
"""Networks without host work that are enough to fit the accelerator alone. Set by hand."""


def _row(graph: Graph, op: Operator) -> dict[str, float]:
    ins = [graph.values[name] for name in op.inputs]
    n_in, n_out = (sum(value.elements for value in values) / 1e6 for values in (ins, op.outputs))
    row = {"weights": sum(weight.elements for weight in op.weights) / 1e6}
    fused = op.attribute("activation")
    if fused and fused not in _PLAIN:
        row[_ACTIVATION.get(fused, "activation")] = n_out
    if op.category == "layout" and op.op in _FREE:
        return {}
    row["operators"] = 1
    if op.category == "conv":
        return row | _convolution(graph, op, n_in, n_out)
    if op.category in ("matmul", "attention"):
        kind = "gemm" if op.weights else "product"
        return row | {f"{kind}/macs": graph.macs_of(op) / 1e6, f"{kind}/in": n_in, f"{kind}/out": n_out}
    if op.op == "SqueezeExcite":
        return row | {"global": n_in, "scale": n_out, "gemm/macs": graph.macs_of(op) / 1e6, "n/mul": 1}
    if op.op == "Mul":
        alike = len(ins) == 2 and ins[0].shape == ins[1].shape
        return row | {"mul" if alike else "scale": n_out, "n/mul": 1}
    if op.category == "activation":
        return row | {"add" if op.op in _PLAIN else _ACTIVATION.get(op.op, "activation"): n_out}
    return row | {_other(op): n_in if op.category in ("pool", "reduce") else n_out}


def _other(op: Operator) -> str:
    if op.category == "pool":
        return "global" if op.op.startswith("Global") else "maxpool" if op.op.startswith("Max") else "avgpool"
    if op.category == "norm":
        return "batchnorm" if op.op == "BatchNormalization" else "norm"
    if op.category == "layout":
        return _LAYOUT.get(op.op, "move")
    return {"softmax": "softmax", "elementwise": "add", "reduce": "global", "resize": "resize"}.get(op.category, "rest")


def _convolution(graph: Graph, op: Operator, n_in: float, n_out: float) -> dict[str, float]:
    macs, groups, kernel = graph.macs_of(op) / 1e6, int(op.attribute("groups") or 1), max(op.attribute("kernel"))
    c_in, c_out = graph.values[op.inputs[0]].shape[1], op.outputs[0].shape[1]
    if groups > 1:
        kind = "depthwise" if groups == c_in else "grouped"
        row = {f"{kind}/macs": macs, f"{kind}/in": n_in, f"{kind}/out": n_out, f"n/{kind}": 1.0}
        return row | ({"depthwise>3": macs} if kind == "depthwise" and kernel > 3 else {})
    kind = "stem" if c_in <= 4 else {1: "pointwise", 3: "conv3"}.get(kernel, "conv")
    row = {f"{kind}/macs": macs, "conv/in": n_in, "conv/out": n_out, "n/conv": 1.0, "n/stem": float(kind == "stem")}
    if kind in ("pointwise", "conv3"):
        row |= {f"{kind}/{width}": macs * max(1.0, width / c_in) * max(1.0, width / c_out) for width in (32, 64, 128)}
    return row


def _rows(graph: Graph, host: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...], Floats]:
    """Return names and kinds of a compiled graph's operators, and their quantities, shape (operators, columns)."""
    compiled = normalise(graph)
    kinds = np.zeros((len(compiled.operators), len(KINDS)))
    for at, op in enumerate(compiled.operators):
        if op.category != "unknown":
            for name, value in _row(compiled, op).items():
                kinds[at, _AT[name]] += value
    on_host = np.isin(KINDS, tuple(host))
    kinds[:, _AT["n/host"]] = (kinds[:, on_host] > 0).any(axis=1)
    macs = kinds[:, : len(_MACS)].sum(axis=1)
    moves = on_host[len(_MACS) : len(_MACS) + len(_MOVES)]
    elements = kinds[:, len(_MACS) : len(_MACS) + len(_MOVES)]
    handed = elements[:, moves].sum(axis=1)
    if "product/macs" in host:  # a host multiplies activations as slowly as it moves them
        handed = handed + kinds[:, _AT["product/macs"]]
    sorts = np.stack([macs, elements[:, ~moves].sum(axis=1), handed], axis=1)
    return tuple(op.name for op in compiled.operators), tuple(op.op for op in compiled.operators), np.concatenate([sorts, kinds], axis=1)


@lru_cache(maxsize=65536)
def quantities(graph: Graph, host: frozenset[str] = frozenset()) -> tuple[float, ...]:
    """Return a graph's quantities in the order of `COLUMNS`."""
    return tuple(_rows(graph, host)[2].sum(axis=0).tolist())


@dataclass(frozen=True)
class Table:
    """How a device's timings are to be read.

    Attributes:
        grain_ms: Half a step of the table: a timing is anywhere within it of what is stated.
        host: Kinds of work that the accelerator leaves to its host.
        few: Whether sorts, gates, grouped convolutions and counts of what is handed over alone have prices: where a network waits for its host most of the
            time, many prices are fitted to the families at hand.
    """

    grain_ms: float = 0.0
    host: frozenset[str] = frozenset()
    few: bool = False

    @property
    def priced(self) -> npt.NDArray[np.bool_]:
        """Which of `COLUMNS` may have a price, shape (columns,)."""
        return np.isin(COLUMNS, (*COLUMNS[:3], *_FEW)) if self.few else ~np.isin(COLUMNS, _OF_FEW)


def fit_prices(x: Floats, latency_ms: Floats, families: Sequence[str], table: Table, known: tuple[int, int] | None = None) -> Floats:
    """Return non-negative prices that minimise robust relative errors, each family weighing alike, shape (columns,).

    Args:
        x: Quantities, shape (n, columns).
        latency_ms: Shape (n,).
        families: Of the networks.
        table: How the timings are to be read.
        known: Networks and families of the device, those left out included; by default those given.

    Source:
        Lawson & Hanson's non-negative least squares; a timing stated in whole steps is an interval, and errors count from its nearer end.
    """
    x = np.where(table.priced, x, 0.0)
    on_host = np.array([name == "host elements" or name in table.host for name in COLUMNS])
    networks, kinds = known or (len(x), len(set(families)))
    sort, extra, counts = next(firmness for least, fewest, *firmness in _STRENGTHS if networks >= least and kinds >= fewest)
    strength = np.where(np.isin(COLUMNS, COLUMNS[3:]), extra, sort)
    strength[[COLUMNS.index(name) for name in (*_PADDED, *_COUNTS)]] = counts
    count = Counter(families)
    weight = np.array([count[family] ** -0.5 for family in families])
    weight /= math.sqrt(float((weight**2).mean()))
    first = np.zeros(len(COLUMNS))
    clean = np.asarray((x[:, on_host] <= 0).all(axis=1))
    apart = bool(table.host) and int(clean.sum()) >= _CLEAN and not table.few
    if table.few:
        strength = np.full(len(COLUMNS), _FEW_STRENGTH)
    if apart:
        first = _robust(x[clean], latency_ms[clean], weight[clean], strength, first, table.grain_ms)
    firm = ~on_host if apart else np.zeros(len(COLUMNS), dtype=bool)
    prices = _robust(x, latency_ms, weight, np.where(firm, _FIRM, strength), np.where(firm, first, 0.0), table.grain_ms)
    return _never_zero(prices, x, latency_ms)


def _robust(x: Floats, latency_ms: Floats, weight: Floats, strength: Floats, target: Floats, grain_ms: float) -> Floats:
    """Return prices drawn to `target` with `strength`; residuals beyond 30 % count less."""
    from scipy.optimize import nnls

    relative = x / latency_ms[:, None]
    usual = np.where((x > 0).any(axis=0), 1 / (relative.mean(axis=0) + relative.std(axis=0) + 1e-12), 0.0)
    scale = np.where(target > 0, target, usual)
    rows, pull = relative * scale, strength * math.sqrt(len(x))
    drawn = pull * (target > 0)
    wanted, trust = np.ones(len(x)), weight.copy()
    solution: Floats = np.zeros(len(scale))
    for _ in range(8):
        design = np.concatenate([rows * trust[:, None], np.diag(pull)])
        solution = np.asarray(nnls(design, np.concatenate([wanted * trust, drawn]), maxiter=60 * len(scale))[0])
        guess = rows @ solution
        wanted = np.clip(guess, 1 - grain_ms / latency_ms, 1 + grain_ms / latency_ms)
        trust = weight / np.sqrt(np.maximum(np.abs(guess - wanted) / np.maximum(wanted, 1e-3), 0.3) / 0.3)
    return np.asarray(solution * scale, dtype=float)


def _never_zero(prices: Floats, x: Floats, latency_ms: Floats) -> Floats:
    """Return prices under which no sort of work is free: at least a hundredth of what it would have to cost to take all the time."""
    relative = x / latency_ms[:, None]
    least = np.where((x > 0).any(axis=0), 0.01 / (relative.mean(axis=0) + 1e-12), 0.0)
    sorts = np.isin(COLUMNS, (*COLUMNS[:3], "operators"))
    return np.asarray(np.where(sorts, np.maximum(prices, least), prices))


def _spills(graph: Graph, profile: Profile, precision: str) -> bool:
    """Return whether a network's activations leave the RAM of a device that then is slower."""
    memory = profile.memory
    if memory is None or memory.spill_factor is None or memory.ram_mb is None:
        return False
    return memory.ram_bytes(graph, precision) > 1e6 * memory.ram_mb


def _spilled(estimate: Estimate, profile: Profile) -> Estimate:
    """Return an estimate of a network whose activations leave the RAM."""
    memory = profile.memory
    if memory is None or memory.spill_factor is None:
        return estimate
    factor, spread = memory.spill_factor, memory.spill_spread
    return replace(
        estimate,
        latency_ms=estimate.latency_ms * factor,
        lower_ms=estimate.lower_ms * factor / spread,
        upper_ms=estimate.upper_ms * factor * spread,
        extrapolated=(
            *estimate.extrapolated,
            f"its activations leave the {memory.ram_mb:g} MB of RAM, and networks that do take {factor:.1f} times as long",
        ),
        operators=tuple(replace(op, latency_ms=op.latency_ms * factor) for op in estimate.operators),
    )


@predictors.register("boards")
class Boards(Predictor):
    """See the module.

    Args:
        devices: Prices by (device, precision).
        families: Of the networks of the fits, which are left out together.
        tables: How each device's timings are to be read; exact, and nothing on the host, by default.
    """

    def __init__(
        self,
        devices: Mapping[tuple[str, str], Prices] | None = None,
        families: Mapping[str, str] | None = None,
        tables: Mapping[str, Table] | None = None,
    ) -> None:
        self.devices, self.families, self.tables = dict(devices or {}), dict(families or {}), dict(tables or {})

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Boards:  # noqa: ARG002
        """Return prices of every device in `samples`; each family is left out in turn for errors and intervals.

        Raises:
            UsageError: No timings, too few, or a latency that is not positive.
        """
        timed: dict[tuple[str, str], list[Sample]] = {}
        for sample in samples:
            if not (math.isfinite(sample.latency_ms) and sample.latency_ms > 0):
                raise UsageError(f"boards: a latency must be positive, got {sample.latency_ms!r} ms for {sample.name}.")
            timed.setdefault((sample.device, sample.precision), []).append(sample)
        if not timed:
            raise UsageError("boards: no timings, got 0.")
        prices = {key: self._device(key[0], chosen) for key, chosen in sorted(timed.items())}
        return Boards(prices, {s.name: s.family or s.name for s in samples}, self.tables)

    def _device(self, device: str, samples: Sequence[Sample]) -> Prices:
        if len(samples) < FEWEST:
            raise UsageError(f"boards: too few networks of {device}, got {len(samples)}. Expected at least {FEWEST}.")
        table = self.tables.get(device, Table())
        x = np.array([quantities(s.graph, table.host) for s in samples])
        y = np.array([s.latency_ms for s in samples])
        families = left_out_together([s.name for s in samples], {s.name: s.family or s.name for s in samples})
        guess = np.empty(len(y))
        for family in dict.fromkeys(families):
            out = np.array([name == family for name in families])
            others = [name for name in families if name != family]
            guess[out] = (
                x[out] @ fit_prices(x[~out], y[~out], others, table, (len(x), len(set(families)))) if others else np.exp(np.log(y).mean())
            )
        most = np.sort(x, axis=0)[-2].astype(np.float32).astype(float)
        return Prices(fit_prices(x, y, families, table), tuple(s.name for s in samples), y, guess, most)

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`: each network is predicted without its family, in an interval that only other families made."""
        prices = self.devices[device, precision]
        scores = np.log(prices.left_out_ms / prices.measured_ms)
        families = np.array(left_out_together(prices.networks, self.families))
        rows = []
        for name, family, measured, guess in zip(
            prices.networks, families, prices.measured_ms.tolist(), prices.left_out_ms.tolist(), strict=True
        ):
            others = np.sort(np.abs(scores[families != family]))
            factor = math.exp(conformal_quantile(others if len(others) else np.abs(scores), 0.9))
            rows.append((name, measured, guess, guess / factor, guess * factor))
        return rows

    def _host(self, key: tuple[str, str]) -> frozenset[str]:
        return self.tables.get(key[0], Table()).host

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; the breakdown sums to the latency."""
        key = fitted_key("boards", self.devices, profile, precision)
        prices = self.devices[key]
        width = conformal_quantile(prices.scores, confidence)
        estimate = priced(prices, graph, _rows(graph, self._host(key)), COLUMNS, width, profile.at(precision), confidence)
        return _spilled(estimate, profile) if _spills(graph, profile, precision) else estimate

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates; a segment is priced once."""
        key = fitted_key("boards", self.devices, profile, precision)
        prices, host = self.devices[key], self._host(key)
        x = np.array([np.sum([quantities(graph, host) for _, graph in parts], axis=0) for parts in candidates]).reshape(-1, len(COLUMNS))
        usable = [runs_whole(parts, profile.at(precision)) for parts in candidates]
        estimates = priced_batch(prices, x, usable, COLUMNS, conformal_quantile(prices.scores, confidence))
        if (memory := profile.memory) is None or memory.spill_factor is None:
            return estimates
        whole = [parts[0][1] if len(parts) == 1 else join(parts) for parts in candidates]
        out = np.array([_spills(graph, profile, precision) for graph in whole], dtype=bool)
        factor, spread = np.where(out, memory.spill_factor, 1.0), np.where(out, memory.spill_spread, 1.0)
        return Estimates(
            estimates.latency_ms * factor,
            estimates.lower_ms * factor / spread,
            estimates.upper_ms * factor * spread,
            estimates.usable,
            estimates.extrapolated | out,
        )

    def save(self, path: Path) -> None:
        """See `Predictor.save`."""
        tables = {device: [table.grain_ms, sorted(table.host), table.few] for device, table in sorted(self.tables.items())}
        save_prices(
            path, "boards", self.devices, COLUMNS, FORMAT_VERSION, {"families": dict(sorted(self.families.items())), "tables": tables}
        )

    @classmethod
    def load(cls, path: Path) -> Boards:
        """Read what `save` wrote."""
        devices, facts = load_prices(path, "boards", COLUMNS, FORMAT_VERSION)
        with reading(path, "boards"):
            tables = {
                str(device): Table(float(grain), frozenset(map(str, host)), any(few))
                for device, (grain, host, *few) in facts["tables"].items()
            }
            return cls(devices, {str(name): str(family) for name, family in facts["families"].items()}, tables)
