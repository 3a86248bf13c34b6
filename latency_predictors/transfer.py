"""A new device from five to fifty timings of architectures that the predictor chooses itself.

The latency of a graph is a sum of prices of its operators. What a price can look like is known before any timing: so much for starting an
operator of a family, so much a MAC, so much a byte, nothing of it for an operator so small that it hides behind its launch, a little more or less
for a family of operators and for a single kind. That is a Gaussian prior over prices, hence over latencies; a handful of timings then fixes the few
directions that matter. Four things are left to the timings to decide, by their marginal likelihood: how free the prices are, how noisy the timings
and whether slow ones are the noisier, which graph the runtime executes (as written, or what one way or another of removing dead code leaves), and
whether the measured latencies of other devices help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latency_predictors._operator_counts import QUANTITIES, RUNTIMES, Catalogue, Kind, catalogue, kind_of
from nas.devices.artifact import check_shapes, read_artifact, write_artifact
from nas.devices.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, predictors
from nas.devices.profile import Profile
from nas.errors import UsageError
from nas.graphs.graph import Graph

FORMAT_VERSION = 3
FEWEST = 5  # by hand

_GROUPS = ("total", "linear", "hidden", "family", "kind", "depth", "launches")
# Prior variances of the groups, in units of the latencies' spread: a grid that the timings choose from.
# Source of this and of all that follows down to the features: chosen on related devices left out one at a time, never on the targets
# (experiments/006_transfer, "What was watched while choosing"); other grids, tails and tempers were within .001 of Spearman's rho.
_FREEDOMS = (
    (1, 0, 0, 0, 0, 0, 0),
    (1, 0.3, 0, 0, 0, 0, 0),
    (1, 1, 0, 0, 0, 0, 0),
    (1, 1, 0, 0.3, 0, 0, 0),
    (1, 1, 0, 1, 0.3, 0, 0),
    (1, 0.3, 0.3, 0.3, 0.1, 0, 0),
    (1, 1, 0.5, 0.1, 0.03, 0, 0),
    (1, 1, 1, 1, 0.3, 0, 0),
    (0.3, 0.3, 0.3, 0.3, 1, 0, 0),
    (1, 1, 0, 0.3, 0.1, 0.3, 0),
    (3, 1, 0.5, 0.3, 0.1, 0, 0),
    (0.3, 0, 0, 0, 0, 0, 1),
    (1, 0.1, 0, 0.03, 0.01, 0.1, 1),
    (0.3, 0.1, 0.1, 0.1, 0.03, 0, 1),
)
_DEPARTURES = ((0, 0.01, 0.01, 0.01, 0.003, 0.003, 0), (0, 0.1, 0.1, 0.1, 0.03, 0.03, 0))  # of a device from a related one, of variance 1
_NOISES = (0.03, 0.06, 0.12, 0.25, 0.5, 0.8)  # standard deviations of a typical timing, in units of the latencies' spread
_LEVELS = (0.15, 6.0)  # least and greatest latency, in units of the typical, that noise in proportion to latency follows
_OFFSET = 4.0  # prior variance of the constant
_TAIL = 4.0  # degrees of freedom of the noise: broken timings are outliers of a Student t
_BROKEN = -4.0  # nats that one timing can cost at most: one in fifty is broken, and then by any factor
_DOUBTED = 0.4  # trust under which a timing is taken for broken
_DESIGN_WEIGHTS = {"total": 1.0, "linear": 0.5, "hidden": 0.2, "family": 0.2, "depth": 0.1, "launches": 0.3}
_DESIGN_NOISE = 0.1
_KNEES = (0.3, 0.6, 0.85)  # quantiles of the sizes of operators at which their cost may begin to show
_TEMPER = 0.5  # likelihoods of a handful of timings under models that are all a little wrong are themselves uncertain
_RUNTIME_DOUBT = (0.0, 0.5, 0.5, 1.0)  # nats: what a graph that is not executed as it is written owes, the timings must show
_ROOM = 2.0  # how far beyond the timings a latency may be before it is extrapolated
_MOST_KEPT = 24  # settings that carry the interval
_MOST_NOUGHT = 10  # prices that are held at nought under one setting
_MOST_COMPARED = 120  # timings among which the grid is compared; more are used by the winner alone


# Features -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Basis:
    """Features of candidates whose inner product is the prior covariance of their latencies.

    Attributes:
        runtimes: Indices into `RUNTIMES` that tell candidates apart; a space without dead code has one.
        families: Families of operators, by position.
        kinds: Position of each kind that varies in the pool.
        centres: By runtime and group, means over the pool.
        scales: By runtime and group, factors that give the group mean variance one over the pool.
        per_network: Mean operators, MACs, activation and weight bytes of a network, shape (4,).
        knees: Sizes below which an operator may hide behind its launch: bytes of light operators, bytes and MACs of heavy ones, shape (3, k).
        sources: By source device: its runtime and its weights on (linear, hidden, family, kind, depth).
    """

    runtimes: tuple[int, ...]
    families: Mapping[str, int]
    kinds: Mapping[tuple[str, str], int]
    centres: Mapping[tuple[int, str], Floats]
    scales: Mapping[tuple[int, str], Floats]
    per_network: Floats
    knees: Floats
    sources: tuple[tuple[int, Floats], ...] = ()
    source_centres: Floats = field(default_factory=lambda: np.zeros(0))
    source_scales: Floats = field(default_factory=lambda: np.zeros(0))

    def groups(self, networks: Catalogue) -> dict[tuple[int, str], Floats]:
        """Return the features of candidates by (runtime, group), each of shape (n, width)."""
        out: dict[tuple[int, str], Floats] = {}
        raw = {r: _raw(networks, r, self.families, self.kinds, self.per_network, self.knees) for r in range(len(RUNTIMES))}
        for r in self.runtimes:
            for name, values in raw[r].items():
                out[r, name] = (values - self.centres[r, name]) * self.scales[r, name]
            out[r, "total"] = (out[r, "linear"].sum(1, keepdims=True) - self.centres[r, "total"]) * self.scales[r, "total"]
        for i, (source_runtime, weights) in enumerate(self.sources):
            smooth = (_stack(out, source_runtime) @ weights - self.source_centres[i]) * self.source_scales[i]
            out |= {(r, _source(i)): smooth[:, None] for r in self.runtimes}
        return out

    def prices(self, networks: Catalogue) -> dict[tuple[int, str], Floats]:
        """Return what one more operator adds to the features, by (runtime, group), a row for each kind that varies in the pool."""
        varying = [i for i, kind in enumerate(networks.kinds) if (kind.family, kind.shape) in self.kinds]
        shape = len(RUNTIMES), len(varying) + 1
        counts = np.broadcast_to(np.eye(len(networks.kinds))[varying], (len(RUNTIMES), len(varying), len(networks.kinds)))
        nothing = np.zeros((len(RUNTIMES), 1, len(networks.kinds)))
        features = self.groups(Catalogue(networks.kinds, np.concatenate([nothing, counts], axis=1), np.zeros(shape)))
        return {key: values[1:] - values[:1] for key, values in features.items()}


def _source(i: int) -> str:
    """Return the group of a source: its smoothed latencies alone, of variance one over the pool."""
    return f"source {i}"


def _stack(groups: Mapping[tuple[int, str], Floats], runtime: int) -> Floats:
    return np.concatenate([groups[runtime, name] for name in ("linear", "hidden", "family", "kind", "depth")], axis=1)


def _raw(
    networks: Catalogue, runtime: int, families: Mapping[str, int], kinds: Mapping[tuple[str, str], int], per_network: Floats, knees: Floats
) -> dict[str, Floats]:
    counts, quantities = networks.counts[runtime], networks.quantities()
    relative = quantities / per_network
    share = relative[:, :3].mean(1)  # of a typical network's operators, MACs and bytes
    by_family = np.zeros((len(networks.kinds), len(families), len(QUANTITIES)))
    by_kind = np.zeros((len(networks.kinds), len(kinds)))
    for i, kind in enumerate(networks.kinds):
        if kind.family in families:
            by_family[i, families[kind.family]] = relative[i]
        if (position := kinds.get((kind.family, kind.shape))) is not None:
            by_kind[i, position] = share[i]
    hidden = [np.maximum(sizes[:, None] - knees[i], 0) for i, sizes in enumerate(_sizes(networks))]
    member = np.array([[kind.family == name for name in families] for kind in networks.kinds], dtype=float)
    return {
        "linear": counts @ quantities,
        "hidden": counts @ np.concatenate(hidden, axis=1),
        "family": counts @ by_family.reshape(len(networks.kinds), len(families) * len(QUANTITIES)),
        "kind": counts @ by_kind,
        "depth": networks.depths[runtime][:, None],
        "launches": counts @ member.reshape(len(networks.kinds), len(families)),
    }


def _sizes(networks: Catalogue) -> Floats:
    """Return bytes of light operators (depthwise and without MACs), bytes and MACs of heavy ones, shape (3, kinds); zero elsewhere."""
    light = np.array([kind.macs == 0 or kind.family.startswith("depthwise") for kind in networks.kinds], dtype=bool)
    _, macs, activation_bytes, _ = networks.quantities().T
    return np.stack([np.where(light, activation_bytes, 0), np.where(light, 0, activation_bytes), np.where(light, 0, macs)])


def make_basis(
    networks: Catalogue, pool: Sequence[int] | None = None, sources: Mapping[str, tuple[Sequence[int], Floats]] | None = None
) -> Basis:
    """Return the basis of a pool of candidates.

    Args:
        networks: Candidates.
        pool: Rows that may be timed; all by default.
        sources: By device, rows and their measured latencies in ms. Each is smoothed by a robust ridge regression on the same features,
            so that it can be asked about any graph.
    """
    rows = np.arange(len(networks)) if pool is None else np.asarray(pool)
    plain = networks.counts[0][rows]
    per_network = np.maximum(plain.mean(0) @ networks.quantities(), 1e-9)
    varying = np.flatnonzero(networks.counts[:, rows].std(axis=1).max(axis=0) > 0)
    families = {name: i for i, name in enumerate(sorted({kind.family for kind in networks.kinds}))}
    spelt = dict.fromkeys((networks.kinds[i].family, networks.kinds[i].shape) for i in varying)
    kinds = {key: n for n, key in enumerate(spelt)}
    runtimes = tuple(
        r
        for r in range(len(RUNTIMES))
        if not any(np.array_equal(networks.counts[r][rows], networks.counts[earlier][rows]) for earlier in range(r))
    )
    sizes = _sizes(networks)[:, varying]
    knees = np.array([np.quantile(row[row > 0], _KNEES) if (row > 0).any() else np.zeros(len(_KNEES)) for row in sizes])
    centres: dict[tuple[int, str], Floats] = {}
    scales: dict[tuple[int, str], Floats] = {}
    for r in runtimes:
        for name, values in _raw(networks, r, families, kinds, per_network, knees).items():
            own = values[rows]
            spread = own.std(0)
            moves = spread > 1e-9 * np.abs(own.mean(0)) + 1e-12
            factor: Floats
            if name in ("linear", "hidden", "depth"):  # each column counts alike
                factor = np.where(moves, 1 / np.where(moves, spread, 1), 0) / math.sqrt(max(1, int(moves.sum())))
            else:
                factor = np.asarray(moves, dtype=float) / math.sqrt(max(float((spread[moves] ** 2).sum()), 1e-24))
            centres[r, name] = np.asarray(own.mean(0))
            scales[r, name] = factor
        total = ((_raw(networks, r, families, kinds, per_network, knees)["linear"][rows] - centres[r, "linear"]) * scales[r, "linear"]).sum(
            1
        )
        centres[r, "total"], scales[r, "total"] = np.array([total.mean()]), np.array([1 / max(float(total.std()), 1e-12)])
    basis = Basis(runtimes, families, kinds, centres, scales, per_network, knees)
    return _with_sources(basis, networks, rows, sources) if sources else basis


def _with_sources(basis: Basis, networks: Catalogue, pool: Any, sources: Mapping[str, tuple[Sequence[int], Floats]]) -> Basis:
    groups = basis.groups(networks)
    smooth = []
    for _, (rows, latency_ms) in sorted(sources.items()):
        fits = [(*_robust_ridge(_stack(groups, r)[np.asarray(rows)], np.asarray(latency_ms, dtype=float)), r) for r in basis.runtimes]
        _, weights, runtime = min(fits, key=lambda fit: fit[0])
        smooth.append((runtime, weights))
    plain = np.stack([_stack(groups, r)[pool] @ weights for r, weights in smooth], axis=1)
    return replace(basis, sources=tuple(smooth), source_centres=plain.mean(0), source_scales=1 / np.maximum(plain.std(0), 1e-9))


def _robust_ridge(features: Floats, latency_ms: Floats, most: int = 3000, penalty: float = 1e-3) -> tuple[float, Floats]:
    """Return (robust residual spread, weights) of a ridge regression with Cauchy weights on at most `most` rows."""
    step = -(-len(features) // most)
    x, y = features[::step], latency_ms[::step]
    t = np.clip(y / np.median(y), 0.2, 5) - 1
    trust: Floats = np.ones(len(t))
    weights: Floats = np.zeros(x.shape[1])
    offset, spread = float(np.median(t)), 1.0
    for _ in range(4):
        xw = x * trust[:, None]
        solved = np.linalg.solve(x.T @ xw + penalty * len(x) * np.eye(x.shape[1]), xw.T @ (t - offset))
        weights = np.asarray(solved, dtype=float)
        offset += float(np.average(t - offset - x @ weights, weights=trust))
        residual = t - offset - x @ weights
        spread = 1.48 * float(np.median(np.abs(residual))) + 1e-4
        trust = 1 / (1 + (residual / (2 * spread)) ** 2)
    return spread, weights


# Which architectures to time ----------------------------------------------------------------------------------------


def choose(
    basis: Basis, networks: Catalogue, rows: Sequence[int], count: int, rng: np.random.Generator, considered: float = 0.5
) -> list[int]:
    """Return `count` of the given rows to be timed: the greedy design that leaves the least mean variance over all of them.

    Args:
        basis: Features.
        networks: Candidates.
        rows: Which of them may be timed.
        count: How many timings there will be.
        rng: Draws which share of the rows is considered, so that repeats differ.
        considered: That share.

    Source:
        Greedy A-optimal Bayesian design (Chaloner & Verdinelli, "Bayesian experimental design: a review", 1995).
    """
    pool = np.asarray(rows)
    if count > len(pool):
        raise UsageError(f"transfer: more timings than candidates, got {count} of {len(pool)}.")
    drawn = np.sort(rng.choice(pool, min(len(pool), max(count, min(int(considered * len(pool)), 1000))), replace=False))
    small = Catalogue(networks.kinds, networks.counts[:, drawn], networks.depths[:, drawn])
    groups = basis.groups(small)
    x = np.concatenate([groups[r, name] * math.sqrt(w) for r in basis.runtimes for name, w in _DESIGN_WEIGHTS.items()], axis=1)
    x = np.concatenate([x / math.sqrt(len(basis.runtimes)), np.ones((len(x), 1))], axis=1)
    covariance, target = np.eye(x.shape[1]), x.T @ x / len(x)
    chosen: list[int] = []
    for _ in range(count):
        reach = x @ covariance
        variance = (reach * x).sum(1)
        gain = ((reach @ target) * reach).sum(1) / (variance + _DESIGN_NOISE)
        gain[chosen] = -1
        best = int(np.argmax(gain))
        chosen.append(best)
        covariance = covariance - np.outer(reach[best], reach[best]) / (variance[best] + _DESIGN_NOISE)
    return [int(drawn[i]) for i in chosen]


# The fit ------------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One idea of the device.

    Attributes:
        runtime: Index into `RUNTIMES`: what is executed.
        amounts: Prior variances of the groups.
        noise: Standard deviation of a typical timing, in units of the latencies' spread.
        proportional: Whether the noise of a timing grows with its latency.
        source: The related device, by position, that this one departs from; none by default.
    """

    runtime: int
    amounts: tuple[float, ...]
    noise: float
    proportional: bool
    source: int | None = None

    def parts(self) -> list[tuple[float, str]]:
        """Return the prior variances that are not nought, with their groups."""
        parts = [(amount, name) for amount, name in zip(self.amounts, _GROUPS, strict=True) if amount]
        return parts if self.source is None else [*parts, (1.0, _source(self.source))]


@dataclass(frozen=True, eq=False)
class Fit:
    """What the timings said.

    Attributes:
        offset_ms: Constant.
        weights: By (runtime, group), the posterior mean in ms a unit of the feature.
        typical_ms: Median of the timings, the zero of the standardised latencies.
        spread_ms: Unit of the standardised latencies.
        settings: The most credible ideas of the device, with their shares summing to one.
        shares: Of those settings, shape (m,).
        alphas: Inverse covariance times what is known under each, shape (m, n + p): n standardised timings, and p prices that are nought.
        inverses: Inverse covariances of what is known under each, shape (m, n + p, n + p); zero where a price is not known.
        rows: Features of what is known by (runtime, group), for the variance.
        scores: Absolute leave-one-out residuals over their standard deviations, ascending.
        floor_ms: Least latency that is ever predicted.
        sources_share: Weight of the evidence on the sources.
        doubted: Timings that the likelihood takes for broken, by position.
        range_ms: Fastest and slowest timing.
    """

    offset_ms: float
    weights: Mapping[tuple[int, str], Floats]
    typical_ms: float
    spread_ms: float
    settings: tuple[Setting, ...]
    shares: Floats
    alphas: Floats
    inverses: Floats
    rows: Mapping[tuple[int, str], Floats]
    scores: Floats
    floor_ms: float
    sources_share: float
    doubted: tuple[int, ...]
    range_ms: tuple[float, float]


def fit_rows(basis: Basis, groups: Mapping[tuple[int, str], Floats], prices: Mapping[tuple[int, str], Floats], latency_ms: Floats) -> Fit:
    """Fit to timings; `groups` holds the features of the timed rows alone, `prices` what one more operator of each kind adds to them.

    Every combination of runtime, freedom of prices and noise is weighted by the likelihood that it gives the timings (Student t). Timings
    far from what the others say lose their influence. No operator makes a network faster: a price that would be negative is nought.

    Source:
        Gaussian processes with closed-form marginal likelihood and leave-one-out (Rasmussen & Williams 2006, sections 5.4.1 and 5.4.2),
        iteratively reweighted for Student-t noise (Lange, Little & Taylor 1989); tempered weights (Grünwald 2012, "The safe Bayesian").
    """
    y = np.asarray(latency_ms, dtype=float)
    if len(y) < FEWEST:
        raise UsageError(f"transfer: too few timings, got {len(y)}. Expected at least {FEWEST}.")
    if not np.all(np.isfinite(y) & (y > 0)):
        raise UsageError("transfer: a timing that is not positive and finite.")
    believed = np.ones(len(y), dtype=bool)
    for _ in range(2):  # the unit of the priors is the spread of the timings that the first fit believes
        centre = float(np.median(y[believed]))
        deviation = 1.48 * float(np.median(np.abs(y[believed] - centre)))
        spread = math.sqrt((float(y[believed].std()) ** 2 + deviation**2) / 2) + 1e-6 * centre
        t = (y - centre) / spread
        settings = [
            Setting(runtime, amounts, noise, proportional, source)
            for runtime in basis.runtimes
            for source in (None, *range(len(basis.sources)))
            for amounts in (_FREEDOMS if source is None else _DEPARTURES)
            for noise in _NOISES
            for proportional in (False, True)
        ]
        posterior = _posterior(settings, groups, t, centre / spread, slice(0, _MOST_COMPARED))
        if len(y) > _MOST_COMPARED:
            settings = [settings[int(np.argmax(posterior["likelihood"]))]]
            posterior = _posterior(settings, groups, t, centre / spread, slice(None))
        doubt = np.array([_RUNTIME_DOUBT[s.runtime] for s in settings])
        evidence = _TEMPER * (posterior["likelihood"] - doubt)
        shares = np.exp(evidence - evidence.max())
        shares = shares / shares.sum()
        doubted = shares @ posterior["trust"] < _DOUBTED
        if not doubted.any() or doubted.sum() > len(y) / 2:
            break
        believed = ~doubted
    heaviest = np.argsort(-shares, kind="stable")[:_MOST_KEPT]
    heaviest = heaviest[shares[heaviest] > 1e-3]
    sources_share = float(sum(w for w, s in zip(shares, settings, strict=True) if s.source is not None))
    shares = shares[heaviest] / shares[heaviest].sum()
    settings = [settings[int(k)] for k in heaviest]
    rows, alphas, inverses = _without_negative_prices(settings, groups, prices, t, posterior["inverse"][heaviest])
    mean: dict[tuple[int, str], Any] = {}
    constant = 0.0
    for share, alpha, setting in zip(shares, alphas, settings, strict=True):
        constant += _OFFSET * float(share * alpha[: len(y)].sum())
        for amount, name in setting.parts():
            key = setting.runtime, name
            mean[key] = mean.get(key, 0.0) + share * amount * (rows[key].T @ alpha)
    left_out, variance = posterior["residual"][heaviest], posterior["variance"][heaviest]
    centre_of_left_out = shares @ left_out
    mixed = shares @ (variance + (left_out - centre_of_left_out) ** 2)
    return Fit(
        offset_ms=centre + spread * constant,
        weights={key: spread * value for key, value in mean.items()},
        typical_ms=centre,
        spread_ms=spread,
        settings=tuple(settings),
        shares=shares,
        alphas=alphas,
        inverses=inverses,
        rows=rows,
        scores=np.sort(np.abs(centre_of_left_out) / np.sqrt(mixed)),
        floor_ms=0.1 * float(y.min()),
        sources_share=sources_share,
        doubted=tuple(int(i) for i in np.flatnonzero(doubted)),
        range_ms=(float(y.min()), float(y.max())),
    )


def _posterior(
    settings: Sequence[Setting], groups: Mapping[tuple[int, str], Floats], t: Floats, typical: float, rows: slice
) -> dict[str, Floats]:
    """Return, by setting, log likelihood, inverse covariance, K⁻¹t, and of each timing left out residual, variance and trust.

    `typical` is the median of the timings in the unit of `t`. Student-t noise is normal noise whose precision is a Gamma variable, the trust;
    the likelihood is that of timings and trusts at the trusts' mode, and no single trust may cost more than `_BROKEN`.
    """
    products = {key: values[rows] @ values[rows].T for key, values in groups.items()}
    t = t[rows]
    cores = {
        (s.runtime, s.amounts, s.source): _OFFSET + sum(amount * products[s.runtime, name] for amount, name in s.parts()) for s in settings
    }
    covariance = np.array([cores[s.runtime, s.amounts, s.source] for s in settings])
    proportional = np.array([s.proportional for s in settings])
    plain = np.array([s.noise for s in settings])[:, None] ** 2
    trust = np.ones((len(settings), len(t)))
    expected = np.broadcast_to(t, trust.shape)
    for _ in range(6):
        noise = plain * _level(expected, typical, proportional[:, None]) ** 2
        total = covariance + np.eye(len(t)) * (noise / trust)[:, :, None]
        inverse = np.linalg.inv(total)
        alpha = inverse @ t
        diagonal = np.diagonal(inverse, axis1=1, axis2=2)
        residual = alpha / diagonal
        expected = t - residual
        variance = np.maximum(1 / diagonal - noise / trust, 0) + noise
        trust = (_TAIL + 1) / (_TAIL + residual**2 / variance)
    likelihood = -0.5 * (np.linalg.slogdet(total)[1] + alpha @ t) + np.maximum(_TAIL / 2 * (np.log(trust) - trust + 1), _BROKEN).sum(1)
    return {"likelihood": likelihood, "inverse": inverse, "alpha": alpha, "residual": residual, "variance": variance, "trust": trust}


def _without_negative_prices(
    settings: Sequence[Setting],
    groups: Mapping[tuple[int, str], Floats],
    prices: Mapping[tuple[int, str], Floats],
    t: Floats,
    inverses: Floats,
) -> tuple[dict[tuple[int, str], Floats], Floats, Floats]:
    """Return features, K⁻¹t and K⁻¹ by setting of the timings and of all prices that some setting would make negative.

    Under each setting, the price that is negative by the most of its prior's standard deviations becomes an observation of nought, until none is.
    """
    nought: list[list[int]] = []
    solved = []
    for setting, inverse in zip(settings, inverses, strict=True):
        r = setting.runtime
        scaled = {name: amount * prices[r, name] for amount, name in setting.parts()}
        to_timings = np.sum([scaled[name] @ groups[r, name].T for name in scaled], axis=0)
        to_prices = np.sum([scaled[name] @ prices[r, name].T for name in scaled], axis=0)
        deviation = np.sqrt(np.diagonal(to_prices)) + 1e-12
        timings, known = np.linalg.inv(inverse), inverse
        chosen: list[int] = []
        while len(chosen) < _MOST_NOUGHT:
            expected = np.concatenate([to_timings, to_prices[:, chosen]], axis=1) @ known[:, : len(t)] @ t / deviation
            expected[chosen] = 0
            if expected.min(initial=0) > -1e-3:
                break
            chosen.append(int(np.argmin(expected)))
            corner = to_prices[np.ix_(chosen, chosen)] + np.diag(1e-6 * deviation[chosen] ** 2)
            known = np.linalg.inv(np.block([[timings, to_timings[chosen].T], [to_timings[chosen], corner]]))
        nought.append(chosen)
        solved.append(known)
    union = sorted({kind for chosen in nought for kind in chosen})
    size = len(t) + len(union)
    whole = np.zeros((len(settings), size, size))
    for k, (chosen, known) in enumerate(zip(nought, solved, strict=True)):
        place = [*range(len(t)), *(len(t) + union.index(kind) for kind in chosen)]
        whole[k][np.ix_(place, place)] = known
    used = {(s.runtime, name) for s in settings for _, name in s.parts()}
    rows = {key: np.concatenate([groups[key], prices[key][union]]) for key in used}
    return rows, whole[:, :, : len(t)] @ t, whole


def _level(expected: Floats, typical: float, proportional: Any) -> Floats:
    """Return the factor of a timing's noise where standardised latencies are expected: their latency over the typical, or one."""
    return np.where(proportional, np.clip(expected / typical + 1, *_LEVELS), 1.0)


def predict_rows(fit: Fit, groups: Mapping[tuple[int, str], Floats], confidence: float = 0.9) -> tuple[Floats, Floats]:
    """Return latency and half-width of its interval in ms, each of shape (n,).

    The half-width is the posterior standard deviation times a quantile of the leave-one-out scores, the ⌈(n + 1)·confidence⌉-th
    of n (split conformal); where n is too small to hold that quantile, the largest is widened by a Student t's ratio. The scores have also
    chosen among the settings, two degrees of freedom's worth: n / (n − 2) makes up for it. Far from the timings it grows with the logarithm.
    """
    count = len(next(iter(groups.values())))
    mean = np.full(count, fit.offset_ms)
    for key, weights in fit.weights.items():
        mean = mean + groups[key] @ weights
    norms = {key: (groups[key] ** 2).sum(1) for key in fit.rows}
    cross = {key: groups[key] @ rows.T for key, rows in fit.rows.items()}
    means = np.empty((len(fit.settings), count))
    variances = np.empty_like(means)
    for k, setting in enumerate(fit.settings):
        prior, reach = np.full(count, _OFFSET), np.zeros((count, fit.alphas.shape[1]))
        reach[:, : len(fit.scores)] = _OFFSET
        for amount, name in setting.parts():
            prior = prior + amount * norms[setting.runtime, name]
            reach = reach + amount * cross[setting.runtime, name]
        means[k] = reach @ fit.alphas[k]
        level = _level(means[k], fit.typical_ms / fit.spread_ms, setting.proportional)
        variances[k] = np.maximum(prior - ((reach @ fit.inverses[k]) * reach).sum(1), 0) + (setting.noise * level) ** 2
    mixed = fit.shares @ (variances + (means - fit.shares @ means) ** 2)
    small = len(fit.scores) / (len(fit.scores) - 2)
    half = fit.spread_ms * np.sqrt(mixed) * _quantile(fit.scores, confidence) * small
    mean = np.maximum(mean, fit.floor_ms)
    low, high = fit.range_ms
    beyond = np.maximum(0, np.maximum(np.log(mean / (_ROOM * high)), np.log(low / _ROOM / mean)))
    return mean, half * (1 + beyond)


def _quantile(scores: Floats, confidence: float) -> float:
    from scipy.stats import t as student

    n = len(scores)
    rank = math.ceil((n + 1) * confidence)
    if rank <= n:
        return float(scores[rank - 1])
    attained = n / (n + 1)
    ratio = student.ppf(0.5 + confidence / 2, _TAIL) / student.ppf(0.5 + attained / 2, _TAIL)
    return float(scores[-1] * max(1.0, ratio))


# The plug-in --------------------------------------------------------------------------------------------------------


@predictors.register("transfer")
class Transfer(Predictor):
    """Prices of operators from few timings, with or without the help of other devices.

    `fit` takes the first profile for the target: samples whose device is another are sources. Which graphs to time, say `catalogue`,
    `make_basis` and `choose`.
    """

    def __init__(self, basis: Basis | None = None, fit: Fit | None = None, device: str = "") -> None:
        self.basis, self.fitted, self.device = basis, fit, device

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile]) -> Transfer:
        """Return a predictor of the first profile's device; graphs of all samples are the pool that scales the prior."""
        target = profiles[0].name if profiles else ""
        networks = catalogue([[("graph", sample.graph)] for sample in samples])
        latency_ms = np.array([sample.latency_ms for sample in samples])
        by_device: dict[str, list[int]] = {}
        for i, sample in enumerate(samples):
            by_device.setdefault(sample.device or target, []).append(i)
        own = by_device.pop(target, [])
        if len(own) < FEWEST:
            raise UsageError(f"transfer: too few timings of device {target!r}, got {len(own)}. Expected at least {FEWEST}.")
        sources = {name: (rows, latency_ms[rows]) for name, rows in by_device.items() if len(rows) >= 50}
        basis = make_basis(networks, None, sources)
        groups = {key: values[own] for key, values in basis.groups(networks).items()}
        return Transfer(basis, fit_rows(basis, groups, basis.prices(networks), latency_ms[own]), target)

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; the breakdown shares the latency out by operators in proportion to their prices."""
        basis, fit = self._ready(profile, precision)
        networks = catalogue([[("graph", graph)]])
        mean, half = predict_rows(fit, basis.groups(networks), confidence)
        latency = float(mean[0])
        return Estimate(
            latency,
            max(0.0, latency - float(half[0])),
            latency + float(half[0]),
            confidence,
            unsupported=tuple(sorted({*graph.unknown, *graph.kinds.intersection(profile.at(precision).unsupported_ops)})),
            extrapolated=(*_unseen(basis, networks.kinds), *_far(fit, latency)),
            operators=_shares(graph, latency),
        )

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates at once; a segment is read once however often it stands."""
        basis, fit = self._ready(profile, precision)
        networks, forbidden = catalogue(candidates), profile.at(precision).unsupported_ops
        mean, half = predict_rows(fit, basis.groups(networks), confidence)
        return Estimates(
            latency_ms=mean,
            lower_ms=np.maximum(mean - half, 0.0),
            upper_ms=mean + half,
            usable=np.array(
                [not any(graph.unknown or not graph.kinds.isdisjoint(forbidden) for _, graph in parts) for parts in candidates], dtype=bool
            ),
            extrapolated=np.array(
                [bool(_unseen(basis, _kinds(networks, i)) or _far(fit, float(mean[i]))) for i in range(len(networks))], dtype=bool
            ),
        )

    @classmethod
    def few_shot(cls) -> FewShotTransfer:
        """See `Predictor.few_shot`."""
        return FewShotTransfer()

    def _ready(self, profile: Profile, precision: str) -> tuple[Basis, Fit]:
        profile.at(precision)
        if self.basis is None or self.fitted is None:
            raise UsageError("transfer: not fitted. Do this: Transfer().fit(samples, [profile]).")
        return self.basis, self.fitted

    def save(self, path: Path) -> None:
        """See `Predictor.save`."""
        if self.basis is None or self.fitted is None:
            raise UsageError("transfer: not fitted, nothing to save.")
        basis, fit = self.basis, self.fitted
        head = {
            "device": self.device,
            "runtimes": basis.runtimes,
            "families": list(basis.families),
            "kinds": list(basis.kinds),
            "source_runtimes": [r for r, _ in basis.sources],
            "fit": {
                name: getattr(fit, name)
                for name in ("offset_ms", "typical_ms", "spread_ms", "floor_ms", "sources_share", "doubted", "settings", "range_ms")
            },
        }
        arrays: dict[str, Any] = {
            "per_network": basis.per_network,
            "knees": basis.knees,
            "source_centres": basis.source_centres,
            "source_scales": basis.source_scales,
            "shares": fit.shares,
            "alphas": fit.alphas,
            "inverses": fit.inverses,
            "scores": fit.scores,
        }
        arrays |= {f"source/{i}": weights for i, (_, weights) in enumerate(basis.sources)}
        for label, table in (("centre", basis.centres), ("scale", basis.scales), ("weight", fit.weights), ("rows", fit.rows)):
            arrays |= {f"{label}/{r}/{name}": values for (r, name), values in table.items()}
        write_artifact(path, "transfer", FORMAT_VERSION, head, arrays)

    @classmethod
    def load(cls, path: Path) -> Transfer:
        """Read what `save` wrote."""
        with read_artifact(path, "transfer", FORMAT_VERSION) as artifact:
            head, arrays = artifact.header, artifact.arrays
            tables: dict[str, dict[Any, Floats]] = {"centre": {}, "scale": {}, "weight": {}, "rows": {}, "source": {}}
            for name, values in arrays.items():
                label, *rest = name.split("/")
                if rest:
                    key: Any = int(rest[0]) if label == "source" else (int(rest[0]), rest[1])
                    tables[label][key] = values
            basis = Basis(
                tuple(head["runtimes"]),
                {name: i for i, name in enumerate(head["families"])},
                {(family, shape): i for i, (family, shape) in enumerate(head["kinds"])},
                tables["centre"],
                tables["scale"],
                arrays["per_network"],
                arrays["knees"],
                tuple((r, tables["source"][i]) for i, r in enumerate(head["source_runtimes"])),
                arrays["source_centres"],
                arrays["source_scales"],
            )
            plain = head["fit"]
            fit = Fit(
                offset_ms=plain["offset_ms"],
                weights=tables["weight"],
                typical_ms=plain["typical_ms"],
                spread_ms=plain["spread_ms"],
                settings=tuple(Setting(r, tuple(amounts), *rest) for r, amounts, *rest in plain["settings"]),
                rows=tables["rows"],
                floor_ms=plain["floor_ms"],
                sources_share=plain["sources_share"],
                doubted=tuple(plain["doubted"]),
                range_ms=(plain["range_ms"][0], plain["range_ms"][1]),
                **{name: arrays[name] for name in ("shares", "alphas", "inverses", "scores")},
            )
            _check(basis, fit)
            return cls(basis, fit, str(head["device"]))


def _check(basis: Basis, fit: Fit) -> None:
    """Check that whatever an estimate will multiply fits together and is a number.

    Raises:
        ValueError: It is not.
    """
    families, kinds, sources = len(basis.families), len(basis.kinds), len(basis.sources)
    widths = {"linear": len(QUANTITIES), "hidden": basis.knees.size, "family": families * len(QUANTITIES), "kind": kinds, "depth": 1}
    whole = sum(widths.values())
    widths |= {"launches": families, "total": 1}
    shapes: dict[str, tuple[Floats, tuple[int, ...]]] = {
        "per_network": (basis.per_network, (len(QUANTITIES),)),
        "knees": (basis.knees, (3, basis.knees.shape[-1] if basis.knees.ndim else 0)),
        "source_centres": (basis.source_centres, (sources,)),
        "source_scales": (basis.source_scales, (sources,)),
    }
    shapes |= {f"source {i}": (weights, (whole,)) for i, (_, weights) in enumerate(basis.sources)}
    for runtime in basis.runtimes:
        for name, width in widths.items():
            shapes[f"centre of {name}"], shapes[f"scale of {name}"] = (
                (basis.centres[runtime, name], (width,)),
                (basis.scales[runtime, name], (width,)),
            )
            check_shapes(shapes)
    if not basis.runtimes or not {*basis.runtimes, *(r for r, _ in basis.sources)} <= set(range(len(RUNTIMES))):
        raise ValueError(f"a runtime is not known, got {basis.runtimes}")
    if (basis.per_network <= 0).any():
        raise ValueError("a typical network has no operators")
    _check_fit(fit, widths | {_source(i): 1 for i in range(sources)}, basis.runtimes)


def _check_fit(fit: Fit, widths: Mapping[str, int], runtimes: Sequence[int]) -> None:
    count, timings, known = len(fit.settings), fit.scores.size, fit.alphas.shape[-1] if fit.alphas.ndim else 0
    shapes: dict[str, tuple[Floats, tuple[int, ...]]] = {
        "shares": (fit.shares, (count,)),
        "alphas": (fit.alphas, (count, known)),
        "inverses": (fit.inverses, (count, known, known)),
        "scores": (fit.scores, (timings,)),
    }
    for setting in fit.settings:
        if setting.runtime not in runtimes or not setting.noise > 0 or min(setting.amounts) < 0:
            raise ValueError("a setting is out of range")
        for _, name in setting.parts():
            shapes[f"rows of {name}"] = fit.rows[setting.runtime, name], (known, widths[name])
            shapes[f"weights of {name}"] = fit.weights[setting.runtime, name], (widths[name],)
            check_shapes(shapes)
    used = {(setting.runtime, name) for setting in fit.settings for _, name in setting.parts()}
    if used != set(fit.rows) or used != set(fit.weights):
        raise ValueError("features and settings are not the same groups")
    numbers = fit.offset_ms, fit.typical_ms, fit.spread_ms, fit.floor_ms, fit.sources_share, *fit.range_ms
    plausible = 0 < fit.range_ms[0] <= fit.range_ms[1] and fit.typical_ms > 0 and fit.spread_ms > 0 and fit.floor_ms >= 0
    shared = count and (fit.shares >= 0).all() and abs(fit.shares.sum() - 1) < 1e-6
    if not (all(map(math.isfinite, numbers)) and plausible and shared and FEWEST <= timings <= known and (fit.scores >= 0).all()):
        raise ValueError("timings, shares or scores are missing or out of range")


def _kinds(networks: Catalogue, row: int) -> list[Kind]:
    return [networks.kinds[i] for i in np.flatnonzero(networks.counts[0, row])]


def _unseen(basis: Basis, kinds: Sequence[Kind]) -> list[str]:
    """Return in words which operator families of a graph the fit has never met."""
    return [f"no {name} in the pool of the fit" for name in sorted({kind.family for kind in kinds} - basis.families.keys())]


def _far(fit: Fit, latency_ms: float) -> list[str]:
    """Return in words how far a latency is from the timings."""
    low, high = fit.range_ms
    return [] if low / _ROOM <= latency_ms <= high * _ROOM else [f"{latency_ms:.3g} ms is far from the timings' {low:.3g} to {high:.3g} ms"]


def _shares(graph: Graph, latency_ms: float) -> tuple[OperatorLatency, ...]:
    """Return the latency by operators, in proportion to their share of the graph's operators, MACs and bytes."""
    networks = catalogue([[("graph", graph)]])
    totals = np.maximum(networks.counts[0] @ networks.quantities(), 1e-9)[0, :3]
    shares = []
    known = [op for op in graph.operators if op.category != "unknown"]
    for op in known:
        kind = kind_of(graph, op)
        shares.append(float((np.array([1, kind.macs, kind.activation_bytes]) / totals).mean()))
    whole = sum(shares) or 1.0
    return tuple(OperatorLatency(op.name, op.op, latency_ms * s / whole) for op, s in zip(known, shares, strict=True))


class FewShotTransfer:
    """The predictor on rows of candidates whose operators were counted once (see `nas.devices.predictor.FewShot`)."""

    def prepare(self, candidates: Sequence[Segments], pool: Sequence[int], sources: Mapping[str, tuple[Sequence[int], Floats]]) -> Prepared:
        """Count operators and make the basis of the pool."""
        networks = catalogue(candidates)
        basis = make_basis(networks, pool, sources)
        return Prepared(networks, basis, basis.groups(networks), basis.prices(networks))

    def choose(self, prepared: Prepared, rows: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
        """Return the rows to be timed."""
        return choose(prepared.basis, prepared.networks, rows, count, rng)

    def predict(
        self, prepared: Prepared, timed: Sequence[int], latency_ms: Floats, query: Sequence[int], confidence: float
    ) -> tuple[Floats, Floats, Mapping[str, float]]:
        """Fit to the timings and predict the query."""
        groups = {key: values[list(timed)] for key, values in prepared.groups.items()}
        fit = fit_rows(prepared.basis, groups, prepared.prices, latency_ms)
        mean, half = predict_rows(fit, {key: values[list(query)] for key, values in prepared.groups.items()}, confidence)
        return mean, half, {"sources_share": fit.sources_share, "timings_doubted": float(len(fit.doubted))}

    def columns(self, prepared: Prepared) -> tuple[Floats, Floats]:
        """Return MACs and counts of operators by family, of the graphs as written."""
        families = sorted({kind.family for kind in prepared.networks.kinds})
        member = np.array([[kind.family == family for family in families] for kind in prepared.networks.kinds], dtype=float)
        plain = prepared.networks.counts[0]
        return plain @ prepared.networks.quantities()[:, 1], plain @ member

    def ceiling(self, prepared: Prepared, rows: Sequence[int], latency_ms: Floats, query: Sequence[int]) -> Floats:
        """Return the predictions of a robust ridge on all `rows`, under the runtime that fits them best; query rows take part where shared."""
        features = {r: _stack(prepared.groups, r) for r in prepared.basis.runtimes}
        fits = [(*_robust_ridge(features[r][list(rows)], latency_ms), r) for r in prepared.basis.runtimes]
        _, weights, runtime = min(fits, key=lambda fit: fit[0])
        guess = 1 + features[runtime][list(query)] @ weights
        return np.maximum(guess * float(np.median(latency_ms)), 1e-3 * float(np.median(latency_ms)))


@dataclass(frozen=True, eq=False)
class Prepared:
    """Candidates, counted and turned into features."""

    networks: Catalogue
    basis: Basis
    groups: Mapping[tuple[int, str], Floats]
    prices: Mapping[tuple[int, str], Floats]
