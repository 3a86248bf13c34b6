"""``physical``: an ensemble of additive, positive, per-operator models of all devices of a family, with conformal intervals.

An operator costs the sum of its quantities (padded multiply-adds, elements by kind of work, counts) times a device's prices; a network costs
its operators and one launch. Prices of all devices are fitted together (`latency_predictors._pooled`); the modelling switches are drawn at
random and averaged (`latency_predictors._switches`). Because every member is additive, a network is one vector and so is each block of it.

Operators that fix their precision are priced by the fit at that precision. A tensor that changes precision on its way costs an elementwise
operator at the dearer of the two, and a network starts once, at the dearest launch of the precisions in it. No mixed network was timed, so
errors of different precisions are taken to add up: each end of the interval is the sum of the precisions' ends.

The interval is conformal on the logarithm: residuals of networks left out of the fit, on the scale that the ensemble's own spread suggests,
corrected for each device. Kinds of work that no two networks of the fit contain, and latencies far outside theirs, are ``extrapolated``.

Source: nn-Meter (Zhang et al., MobiSys 2021) for per-operator sums after fusion; roofline and waterline for max(compute, weight fetch);
split and jackknife+ conformal prediction (Barber et al. 2021) with normalised scores (Lei et al. 2018) for the interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from latency_predictors._design import most_telling
from latency_predictors._pooled import Fit, Priors, fit_pooled
from latency_predictors._quantities import COLUMN, KIND_OF, KINDS, QUANTITIES, kinds_of, quantities_of, requantisation, work_of
from latency_predictors._switches import COLUMNS, OPTIONS, Switches, columns_of, draw, is_option, priors_of, relate
from nas.devices.artifact import check_shapes, other_version, read_artifact, write_artifact
from nas.devices.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, predictors
from nas.devices.profile import Profile
from nas.errors import UsageError, did_you_mean
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.units import Precision

FORMAT_VERSION = 1
MEMBERS = 48
MIN_NETWORKS = 5
# Source of these four: set by hand while held-out errors and coverage were watched (experiments/004_qualcomm_latency).
_FAMILIES = 8  # of networks, from which on intervals are calibrated on whole families left out
_SCALE_TRUST = 25.0  # residuals of the pool that a device's own interval scale is shrunk towards
_SEEN_SHARE = 0.01  # of a network's latency, for a kind of work to count as seen in it
_UNSEEN_SHARE = 0.05  # of a candidate's latency in unseen kinds, to call it extrapolated
_CHUNK = 4096
_MANY_SUMS = 64  # from which one sparse product is taken: set by hand; scipy.sparse takes a fifth of a second to import
_OTHER_FORM = "/other form"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of Fibonacci hashing: 2⁶⁴ over the golden ratio. Source: Knuth, The Art of Computer Programming 3, 6.4."""
_SLOT_BITS = 16  # by hand: two segments of some thousand seldom share a slot, and the table stays in a processor's cache


@dataclass(frozen=True, eq=False)
class Timings:
    """What a pool is fitted to.

    Attributes:
        networks: Names.
        families: Of each network.
        totals: (networks, quantities).
        devices: Names.
        log_ms: (devices, networks), NaN where not measured.
        trust: (devices, networks).
    """

    networks: tuple[str, ...]
    families: tuple[str, ...]
    totals: Floats
    devices: tuple[str, ...]
    log_ms: Floats
    trust: Floats


@dataclass(frozen=True, eq=False)
class Pool:
    """One fit: all devices at one precision.

    Attributes:
        timings: What it was fitted to.
        settings: Switches of each member.
        shared: (members, columns) shared log prices.
        device: (members, devices, columns) log prices.
        left_out: (devices, networks) log measured − log predicted by the fit without that network's family, averaged over members.
        spread: (devices, networks) standard deviation of the members' left-out log predictions.
        base_sd: Part of the interval's scale that does not depend on the network.
        device_scale: (devices,) factor on the scale.
        scores: Sorted scores of left-out networks.
        seen: (kinds,) whether a kind of work was seen.
        range_ms: (devices, 2) smallest and largest latency that a device was fitted to.
        fit: Where fits to fewer networks start; not kept in a file.
    """

    timings: Timings
    settings: tuple[Switches, ...]
    shared: Floats
    device: Floats
    left_out: Floats
    spread: Floats
    base_sd: float
    device_scale: Floats
    scores: Floats
    seen: npt.NDArray[np.bool_]
    range_ms: Floats
    fit: Fit | None = None

    def quantile(self, confidence: float) -> float:
        """Return the score that a new network stays below with probability `confidence`; networks, not timings, are the sample."""
        networks = int(np.isfinite(self.left_out).any(axis=0).sum())
        level = min(1.0, confidence * (1.0 + 1.0 / networks))
        return float(np.quantile(self.scores, level))


class _Prices:
    """A device's unit prices of every member, and what it has priced already."""

    def __init__(self, pool: Pool, device: int) -> None:
        maps = np.stack([columns_of(s) for s in pool.settings])  # (m, quantities, columns)
        price = np.exp(pool.device[:, device])
        self.unit: Floats = np.einsum("mqk,mk->qm", maps, price)
        self.launch: Floats = price[:, COLUMNS.index("launch")]
        self.pool, self.device = pool, device
        unseen = ~pool.seen[KIND_OF]
        self.table: Floats = np.concatenate(
            [self.unit, (np.maximum(self.unit.mean(axis=1), 0.0) * unseen)[:, None]], axis=1
        )  # the last column: unseen work
        self._segments: list[Graph] = []  # kept, so that no other graph is ever given the id of one
        self._rows: dict[int, int] = {}
        self._matrix: Floats = np.zeros((256, self.table.shape[1]))
        self._unknown, self._fixed = (np.zeros(len(self._matrix), dtype=bool) for _ in range(2))
        self._ids = np.zeros(len(self._matrix), dtype=np.intp)
        self._slots = np.zeros(1 << _SLOT_BITS, dtype=np.intp)
        self._quantiles: dict[float, float] = {}

    def row_of(self, segment: Graph, forbidden: frozenset[str]) -> int:
        """Return the row of a segment in `matrix`, pricing it if it is new."""
        row = self._rows.get(id(segment))
        if row is not None:
            return row
        work, whole = work_of(segment, normalise, forbidden)
        row = len(self._segments)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._unknown, self._fixed, self._ids = (
                np.concatenate([column, np.zeros_like(column)]) for column in (self._unknown, self._fixed, self._ids)
            )
        self._matrix[row] = work @ self.table
        self._unknown[row] = not whole
        self._fixed[row] = _fixes(segment)
        self._ids[row] = id(segment)
        self._segments.append(segment)
        self._rows[id(segment)] = row
        return row

    def _rows_of(self, candidates: Sequence[Segments], count: int, forbidden: frozenset[str]) -> npt.NDArray[np.intp]:
        """Return the rows of all `count` segments of the candidates, pricing those that are new.

        A slot, by the hash of an id, holds the row that fell on it last: one look at an array for each segment. Where it holds another's, the
        dictionary is asked.
        """
        ids = np.fromiter(map(id, map(itemgetter(1), itertools.chain.from_iterable(candidates))), np.intp, count)
        slots = (ids.view(np.uint64) * _MULTIPLIER >> np.uint64(64 - _SLOT_BITS)).view(np.intp)
        rows = self._slots[slots]
        if len(other := np.flatnonzero(self._ids[rows] != ids)):
            known: list[int | None] = [self._rows.get(key) for key in ids[other].tolist()]
            if None in known:
                graphs = [graph for parts in candidates for _, graph in parts]
                known = [self.row_of(graphs[i], forbidden) for i in other.tolist()]
            rows[other] = np.array(known, dtype=np.intp)
            self._slots[slots[other]] = rows[other]
        return rows

    def sum_segments(
        self, candidates: Sequence[Segments], forbidden: frozenset[str]
    ) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return (candidates, members + 1) sums without launch, whether every operator is priced, and whether one fixes its precision."""
        ends = np.cumsum([0, *map(len, candidates)])
        rows = self._rows_of(candidates, int(ends[-1]), forbidden)
        sums = _sums_of_rows(self._matrix[: len(self._segments)], rows, ends)
        unknown, fixed = (_any_of_rows(flags[: len(self._segments)], rows, ends) for flags in (self._unknown, self._fixed))
        return sums, ~unknown, fixed

    def price(self, segment: Graph, forbidden: frozenset[str] = frozenset()) -> tuple[Floats, bool]:
        """Return a segment's price by every member with its unseen work, (members + 1,), and whether every operator is priced."""
        row = self.row_of(segment, forbidden)
        return self._matrix[row], not self._unknown[row]

    def spans(self, sums: Floats, confidence: float) -> tuple[Floats, Floats, Floats, Floats]:
        """Return central, half-width (log), share of unseen work and distance outside the range (log), each (candidates,)."""
        return self.widths(sums[:, :-1] + self.launch, sums[:, -1], confidence)

    def widths(self, members_ms: Floats, unseen_ms: Floats, confidence: float) -> tuple[Floats, Floats, Floats, Floats]:
        """Return what `spans` does from whole latencies by member, (candidates, members), and unseen work, (candidates,)."""
        logs = np.log(members_ms)
        mean = logs.mean(axis=1, keepdims=True)
        central = np.exp(mean[:, 0])
        unseen = unseen_ms / central
        low, high = self.pool.range_ms[self.device]
        beyond = np.maximum(0.0, np.maximum(np.log(central / (1.5 * high)), np.log(low / (1.5 * central))))
        sd = np.sqrt(self.pool.base_sd**2 + logs.var(axis=1, mean=mean)) * self.pool.device_scale[self.device]
        if confidence not in self._quantiles:
            self._quantiles[confidence] = self.pool.quantile(confidence)
        width = self._quantiles[confidence] * sd + np.where(unseen > _UNSEEN_SHARE, unseen, 0.0) + 0.2 * beyond
        return central, np.minimum(width, 5.0), unseen, beyond


def _sums_of_rows(matrix: Floats, rows: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]) -> Floats:
    """Return (candidates, columns): the sums of the runs of ``rows`` between neighbouring ``ends``, none of them empty.

    One sparse product takes a tenth of the time where there are many; SciPy comes with the extra [search], and its import costs more than few sums.
    """
    if len(ends) > _MANY_SUMS and find_spec("scipy") is not None:
        from scipy.sparse import csr_array

        which = csr_array((np.ones(len(rows)), rows, ends), shape=(len(ends) - 1, len(matrix)))
        return np.asarray(which @ matrix)
    return np.asarray(np.add.reduceat(matrix[rows], ends[:-1]))


def _any_of_rows(flags: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return (candidates,): whether one of the runs of ``rows`` between neighbouring ``ends`` is true; mostly none is."""
    return np.logical_or.reduceat(flags[rows], ends[:-1]) if flags.any() else np.zeros(len(ends) - 1, dtype=bool)


def _fixes(segment: Graph) -> bool:
    """Whether an operator of a segment has a precision of its own."""
    return not segment.precisions <= {None}


class _Mixture:
    """The work of some networks by precision.

    Args:
        prices: Of the device, by precision.
        count: Networks.
        members: Of the ensemble.
    """

    def __init__(self, prices: Mapping[str, _Prices], count: int, members: int) -> None:
        self.prices = prices
        self.work: dict[str, Floats] = {precision: np.zeros((count, members + 1)) for precision in prices}

    def add(self, network: int, precision: str, price: Floats) -> None:
        """Add work, (members + 1,)."""
        self.work[precision][network] += price

    def add_border(self, network: int, made: str, read: str, shape: tuple[int, ...]) -> tuple[str, Floats]:
        """Add the change of a tensor's precision; return the dearer precision and the price."""
        priced = {p: self.prices[p].price(requantisation(shape))[0] for p in (made, read)}
        dearer = max(priced, key=lambda p: float(priced[p][:-1].mean()))
        self.add(network, dearer, priced[dearer])
        return dearer, priced[dearer]

    def start(self) -> list[str]:
        """Add each network's launch; return at which precision."""
        dearest = []
        for i in range(len(next(iter(self.work.values())))):
            used = [p for p, work in self.work.items() if work[i].any()] or list(self.work)
            chosen = max(used, key=lambda p: float(self.prices[p].launch.mean()))
            self.work[chosen][i, :-1] += self.prices[chosen].launch
            dearest.append(chosen)
        return dearest

    def spans(self, confidence: float) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return central, lower, upper, share of unseen work and distance outside the range (log), each (networks,)."""
        total = np.sum([work[:, :-1] for work in self.work.values()], axis=0)
        central = np.exp(np.log(total).mean(axis=1))
        lower, upper, unseen, beyond = (np.zeros(len(total)) for _ in range(4))
        for precision, work in self.work.items():
            share = (work[:, :-1] / total).mean(axis=1)
            _, width, new, outside = self.prices[precision].widths(total, work[:, -1], confidence)
            lower += central * share * np.exp(-width)
            upper += central * share * np.exp(width)
            unseen += new
            beyond = np.maximum(beyond, np.where(share > 0, outside, 0.0))
        return central, np.minimum(lower, central), np.maximum(upper, central), unseen, beyond


@predictors.register("physical")
class Physical(Predictor):
    """See the module.

    Args:
        members: Settings in the ensemble.
        seed: Of the draw of settings.
        pools: Fits by precision.
        refit: Whether networks are left out by fitting anew without each, rather than at the fit's last linearisation, which is
            optimistic where a pool holds a dozen or two (by a quarter of the error on Hailo's 27).
        scaled: Factors on fields of `Priors`, where a table's timings are rougher, or its devices stranger, than Qualcomm's.
    """

    prices_mixed: ClassVar[bool] = True
    normalises_images: ClassVar[bool] = True

    def __init__(
        self,
        members: int = MEMBERS,
        seed: int = 0,
        pools: Mapping[str, Pool] | None = None,
        refit: bool = False,
        scaled: Mapping[str, float] | None = None,
    ) -> None:
        self.members, self.seed, self.refit, self.scaled = members, seed, refit, dict(scaled or {})
        self.pools: dict[str, Pool] = dict(pools or {})
        self._prices: dict[tuple[str, str], _Prices] = {}

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Physical:
        """See `Predictor.fit`; profiles give the aliases under which a device's timings may be filed."""
        renamed = {alias: profile.name for profile in profiles for alias in profile.aliases}
        precisions = sorted({s.precision for s in samples}, key=lambda p: (p != "fp16", p))
        if not precisions:
            raise UsageError("physical: no timings, got 0. Expected timings of at least 5 networks.")
        pools: dict[str, Pool] = {}
        for precision in precisions:
            chosen = [replace(s, device=renamed.get(s.device, s.device)) for s in samples if s.precision == precision]
            pools[precision] = fit_pool(
                timings_of(chosen), self.members, self.seed, pools.get("fp16"), refit=self.refit, scaled=self.scaled
            )
        return Physical(self.members, self.seed, pools, scaled=self.scaled)

    def extended(self, samples: Sequence[Sample], looseness: float = 1.0) -> Physical:
        """See `Predictor.extended`: everything is refitted together."""
        pools = dict(self.pools)
        for precision in sorted({s.precision for s in samples}):
            if precision not in pools:
                raise UsageError(f"physical: nothing is fitted at {precision!r}.{did_you_mean(precision, pools)}")
            added = timings_of([s for s in samples if s.precision == precision], minimum=1)
            merged = merge(pools[precision].timings, added)
            free = np.array([looseness if device in added.devices else 1.0 for device in merged.devices])
            related = self.pools.get("fp16") if precision != "fp16" else None
            pools[precision] = fit_pool(merged, self.members, self.seed, related, free, scaled=self.scaled, former=pools[precision])
        return Physical(self.members, self.seed, pools, scaled=self.scaled)

    def without(self, networks: Collection[str]) -> Physical:
        """Return a fit to all timings but those of some networks; it starts from the prices of this one, which spares most steps."""
        pools: dict[str, Pool] = {}
        for precision, pool in self.pools.items():
            t = pool.timings
            kept = [i for i, name in enumerate(t.networks) if name not in networks]
            rows = np.flatnonzero(np.isfinite(t.log_ms[:, kept]).any(axis=1))
            block = np.ix_(rows, np.array(kept))
            fewer = Timings(
                tuple(t.networks[i] for i in kept),
                tuple(t.families[i] for i in kept),
                t.totals[kept],
                tuple(t.devices[d] for d in rows),
                t.log_ms[block],
                t.trust[block],
            )
            near = None if pool.fit is None else replace(pool.fit, own=pool.fit.own[:, rows], network=pool.fit.network[:, kept])
            pools[precision] = fit_pool(fewer, self.members, self.seed, pools.get("fp16"), scaled=self.scaled, near=near)
        return Physical(self.members, self.seed, pools, scaled=self.scaled)

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`: the network is left out on all devices, at the fit's last linearisation."""
        pool = self.pools[precision]
        t = pool.timings
        row = t.devices.index(device)
        factor = pool.quantile(0.9) * pool.device_scale[row]
        found = []
        for name, log_ms, residual, spread in zip(t.networks, t.log_ms[row], pool.left_out[row], pool.spread[row], strict=True):
            if np.isfinite(log_ms):
                width = factor * np.sqrt(pool.base_sd**2 + spread**2)
                measured, predicted = float(np.exp(log_ms)), float(np.exp(log_ms - residual))
                found.append(
                    (
                        name.removesuffix(_OTHER_FORM),
                        measured,
                        predicted,
                        predicted * float(np.exp(-width)),
                        predicted * float(np.exp(width)),
                    )
                )
        return found

    def choose_informative(self, candidates: Mapping[str, Graph], profile: Profile, precision: str, count: int) -> list[str]:
        """See `Predictor.choose_informative`.

        Greedy choice of the timing that most reduces the mean predictive variance over all candidates, under the prior of a new device (scale,
        unit shifts, single prices) and linearised at `profile`'s own prices.
        """
        prices = self.prices(profile, precision)
        pool, names = prices.pool, list(candidates)
        totals = np.stack([quantities_of(candidates[name], normalise).total for name in names])
        features = features_of(totals, pool.settings)  # (members, networks, columns)
        cost = features * np.exp(pool.device[:, prices.device])[:, None]
        share = (cost / cost.sum(axis=2, keepdims=True)).mean(axis=0)
        priors = _scaled(priors_of(list(pool.settings)), self.scaled)
        groups = np.eye(priors.group_sd.shape[1])[priors.group]
        design = np.concatenate([share, share @ groups, np.ones((len(names), 1))], axis=1)
        variance = np.concatenate([(priors.deviation_sd**2).mean(axis=0), (priors.group_sd**2).mean(axis=0), [priors.scale_sd**2]])
        noise = float((priors.network_sd**2).mean() + pool.base_sd**2)
        return [names[i] for i in most_telling(design, variance, noise, count)]

    def prices(self, profile: Profile, precision: str) -> _Prices:
        """Return a device's prices.

        Raises:
            UsageError: Nothing is fitted for that device at that precision.
        """
        key = (profile.name, precision)
        if key not in self._prices:
            pool = self.pools.get(precision)
            if pool is None:
                raise UsageError(f"physical: nothing is fitted at {precision!r} for {profile.name}.{did_you_mean(precision, self.pools)}")
            fitted = pool.timings.devices[: pool.device.shape[1]]
            names = [name for name in (profile.name, *profile.aliases) if name in fitted]
            if not names:
                raise UsageError(f"physical: nothing is fitted for device {profile.name!r}.{did_you_mean(profile.name, fitted)}")
            self._prices[key] = _Prices(pool, fitted.index(names[0]))
        return self._prices[key]

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """See `Predictor.estimate`; the first operator of the breakdown is the launch of the network."""
        counted = quantities_of(graph, normalise)
        at = [fixed or precision for fixed in counted.precisions]
        prices = {p: self.prices(profile, p) for p in dict.fromkeys(at or [precision])}
        mixture = _Mixture(prices, 1, self.members)
        forbidden = {p: profile.at(p).unsupported_ops for p in prices}
        fused = (counted.kinds - set(counted.ops)) & set().union(*forbidden.values())
        runs = np.any([counted.runnable(forbidden[p]) & np.array([a == p for a in at], dtype=bool) for p in prices], axis=0)
        rows = {p: counted.rows[runs & np.array([a == p for a in at], dtype=bool)].sum(axis=0) for p in prices}
        for p, row in rows.items():
            mixture.add(0, p, row @ prices[p].table)
        borders = [(counted.names[i], mixture.add_border(0, at[i], at[j], shape)[1]) for i, j, shape in counted.borders if at[i] != at[j]]
        dearest = mixture.start()[0]
        central, lower, upper, unseen, beyond = (float(v[0]) for v in mixture.spans(confidence))
        members = np.sum([work[0, :-1] for work in mixture.work.values()], axis=0)

        def share_ms(price: Floats) -> float:
            return central * float((price / members).mean())

        operators = zip(*(itertools.compress(each, runs) for each in (counted.names, counted.ops, counted.rows, at)), strict=True)
        breakdown = (
            OperatorLatency("launch", "Launch", share_ms(prices[dearest].launch)),
            *(OperatorLatency(name, op, share_ms(row @ prices[p].unit)) for name, op, row, p in operators),
            *(OperatorLatency(f"{name}.requantise", "QuantizeLinear", share_ms(price[:-1])) for name, price in borders),
        )
        return Estimate(
            latency_ms=central,
            lower_ms=lower,
            upper_ms=upper,
            confidence=confidence,
            unsupported=tuple(
                sorted({*counted.unknown, *fused, *(op for op, p in zip(counted.ops, at, strict=True) if op in forbidden[p])})
            ),
            extrapolated=_extrapolated(prices, rows, central, unseen, beyond),
            operators=breakdown,
        )

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """See `Predictor.estimate_batch`: each distinct segment is priced once, a candidate is a sum of rows.

        Candidates of which a segment fixes its precision are priced as a mixture; where the first one is, most are, and all go that way.
        """
        if candidates and any(_fixes(graph) for _, graph in candidates[0]):
            return self._estimate_mixed(candidates, profile, precision, confidence)
        prices = self.prices(profile, precision)
        forbidden = frozenset(profile.at(precision).unsupported_ops)
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        for start in range(0, len(candidates), _CHUNK):
            sums, usable, fixed = prices.sum_segments(candidates[start : start + _CHUNK], forbidden)
            parts.append((*prices.spans(sums, confidence), usable, fixed))
        if not parts:
            none = np.zeros(0)
            return Estimates(none, none, none, none.astype(bool), none.astype(bool))
        central, width, unseen, beyond, usable, fixed = (np.concatenate(column) for column in zip(*parts, strict=True))
        estimates = Estimates(
            latency_ms=central,
            lower_ms=central * np.exp(-width),
            upper_ms=central * np.exp(width),
            usable=usable.astype(bool),
            extrapolated=(unseen > _UNSEEN_SHARE) | (beyond > 0),
        )
        if len(mixed := np.flatnonzero(fixed)):
            again = self._estimate_mixed([candidates[i] for i in mixed.tolist()], profile, precision, confidence)
            for column in fields(Estimates):
                getattr(estimates, column.name)[mixed] = getattr(again, column.name)
        return estimates

    def _estimate_mixed(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float) -> Estimates:
        """Price segments of one precision each; only a segment's input can lie on a border."""
        if any(len(graph.precisions) > 1 for parts in candidates for _, graph in parts):
            return super().estimate_batch(candidates, profile, precision, confidence)
        used = {p or precision for parts in candidates for _, graph in parts for p in graph.precisions}
        prices: dict[str, _Prices] = {p: self.prices(profile, p) for p in Precision if p in used}
        forbidden = {p: frozenset(profile.at(p).unsupported_ops) for p in prices}
        mixture, usable = _Mixture(prices, len(candidates), self.members), np.ones(len(candidates), dtype=bool)
        for i, parts in enumerate(candidates):
            before = ""
            for _, graph in parts:
                at = next(iter(graph.precisions)) or precision
                price, known = prices[at].price(graph, forbidden[at])
                mixture.add(i, at, price)
                usable[i] &= known
                if before and before != at:
                    mixture.add_border(i, before, at, graph.inputs[0].shape)
                before = at
        mixture.start()
        central, lower, upper, unseen, beyond = mixture.spans(confidence)
        return Estimates(central, lower, upper, usable, (unseen > _UNSEEN_SHARE) | (beyond > 0))

    def save(self, path: Path) -> None:
        """See `Predictor.save`."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        about = {}
        for precision, pool in self.pools.items():
            t = pool.timings
            about[precision] = {
                "networks": t.networks,
                "families": t.families,
                "devices": t.devices,
                "settings": [asdict(s) for s in pool.settings],
                "base_sd": pool.base_sd,
            }
            held = {
                "totals": t.totals,
                "log_ms": t.log_ms,
                "trust": t.trust,
                "shared": pool.shared,
                "device": pool.device,
                "left_out": pool.left_out,
                "spread": pool.spread,
                "device_scale": pool.device_scale,
                "scores": pool.scores,
                "range_ms": pool.range_ms,
            }
            arrays |= {f"{precision}/{name}": array.astype(np.float32) for name, array in held.items()}
            arrays[f"{precision}/seen"] = pool.seen
        head = {"members": self.members, "seed": self.seed, "quantities": list(QUANTITIES), "pools": about}
        write_artifact(path, "physical", FORMAT_VERSION, head | ({"scaled": self.scaled} if self.scaled else {}), arrays)

    @classmethod
    def load(cls, path: Path) -> Physical:
        """See `Predictor.load`."""
        with read_artifact(path, "physical", FORMAT_VERSION) as found:
            meta, arrays = found.header, found.arrays
            if not set(meta["quantities"]) <= set(QUANTITIES):
                raise other_version(path, "physical", "other quantities", FORMAT_VERSION)
            members = int(meta["members"])
            pools = {str(precision): _pool_of(precision, about, arrays, meta["quantities"]) for precision, about in meta["pools"].items()}
            for pool in pools.values():
                _check_pool(pool, members)
            return cls(members, int(meta["seed"]), pools, scaled=meta.get("scaled"))


def _check_pool(pool: Pool, members: int) -> None:
    t, fitted = pool.timings, pool.device.shape[1] if pool.device.ndim == 3 else 0
    timed, columns = (len(t.devices), len(t.networks)), len(COLUMNS)
    lacking = frozenset({"log_ms", "left_out", "spread"})
    shapes: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "totals": (t.totals, (len(t.networks), len(QUANTITIES))),
        "log_ms": (t.log_ms, timed),
        "trust": (t.trust, timed),
        "shared": (pool.shared, (members, columns)),
        "device": (pool.device, (members, fitted, columns)),
        "left_out": (pool.left_out, timed),
        "spread": (pool.spread, timed),
        "device_scale": (pool.device_scale, (len(t.devices),)),
        "range_ms": (pool.range_ms, (len(t.devices), 2)),
        "scores": (pool.scores, (pool.scores.size,)),
        "seen": (pool.seen, (len(KINDS),)),
    }
    check_shapes(shapes, may_lack=lacking)
    plausible = np.abs(pool.device).max(initial=0) < 100 and (pool.range_ms > 0).all() and (pool.device_scale > 0).all()
    plausible = plausible and np.isfinite(pool.left_out).any()
    plausible = plausible and all(is_option(name, getattr(settings, name)) for settings in pool.settings for name in OPTIONS)
    if not (members and fitted == len(t.devices) and pool.scores.size and len(pool.settings) == members and plausible and pool.base_sd > 0):
        raise ValueError("prices, ranges or scores are missing or out of range")


def _pool_of(
    precision: str, about: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]], quantities: Sequence[str] = QUANTITIES
) -> Pool:
    """Read a pool; quantities that came after it was fitted are nothing to its settings and stay empty."""

    def array(name: str) -> Floats:
        return np.asarray(arrays[f"{precision}/{name}"], dtype=np.float64)

    listed: Mapping[str, Sequence[object]] = about  # type: ignore[assignment]
    fitted = array("totals")
    totals = np.zeros((len(fitted), len(QUANTITIES)))
    totals[:, [COLUMN[name] for name in quantities]] = fitted
    timings = Timings(
        tuple(map(str, listed["networks"])),
        tuple(map(str, listed["families"])),
        totals,
        tuple(map(str, listed["devices"])),
        array("log_ms"),
        array("trust"),
    )
    kinds = kinds_of(quantities)
    check_shapes({"seen": (arrays[f"{precision}/seen"], (len(kinds),))})
    seen = np.isin(KINDS, [kind for kind, known in zip(kinds, arrays[f"{precision}/seen"], strict=True) if known])

    def priced(name: str) -> Floats:  # columns that came after it was fitted are nothing to its settings
        found = array(name)
        return np.concatenate([found, np.zeros((*found.shape[:-1], max(0, len(COLUMNS) - found.shape[-1])))], axis=-1)

    return Pool(
        timings=timings,
        settings=tuple(Switches(**s) for s in listed["settings"]),  # type: ignore[arg-type]
        shared=priced("shared"),
        device=priced("device"),
        left_out=array("left_out"),
        spread=array("spread"),
        base_sd=float(about["base_sd"]),  # type: ignore[arg-type]
        device_scale=array("device_scale"),
        scores=array("scores"),
        seen=seen,
        range_ms=array("range_ms"),
    )


def _extrapolated(
    prices: Mapping[str, _Prices], rows: Mapping[str, Floats], central: float, unseen: float, beyond: float
) -> tuple[str, ...]:
    reasons = []
    if unseen > _UNSEEN_SHARE:
        by_kind = np.sum([np.bincount(KIND_OF, rows[p] * prices[p].table[:, -1], len(KINDS)) for p in prices], axis=0) / central
        reasons += [
            f"{KINDS[k]}: {by_kind[k]:.0%} of the estimate, in fewer than two networks of the fit"
            for k in np.argsort(-by_kind)
            if by_kind[k] > 0.01
        ]
    if beyond > 0:
        ranges = [held.pool.range_ms[held.device] for held in prices.values()]
        low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
        reasons.append(f"{central:.3g} ms is far from the fitted {low:.3g} to {high:.3g} ms")
    return tuple(reasons)


def timings_of(samples: Sequence[Sample], minimum: int = MIN_NETWORKS) -> Timings:
    """Arrange samples by device and network; of repeated timings of one network on one device the median counts.

    Raises:
        UsageError: Too few networks, a latency that is not positive, or one name for two networks.
    """
    graphs: dict[str, Graph] = {}
    for s in samples:
        if not (np.isfinite(s.latency_ms) and s.latency_ms > 0):
            raise UsageError(f"timings: a latency must be positive, got {s.latency_ms!r} ms for {s.name}.")
        if graphs.setdefault(s.name, s.graph) is not s.graph and graphs[s.name].key != s.graph.key:
            raise UsageError(f"timings: one name for two networks, got {s.name!r}.")
    if len(graphs) < minimum:
        raise UsageError(f"timings: too few networks, got {len(graphs)}. Expected at least {minimum}.")
    networks, devices = tuple(graphs), tuple(sorted({s.device for s in samples}))
    families = {s.name: s.family or s.name for s in samples}
    grouped: dict[tuple[str, str], list[Sample]] = {}
    for s in samples:
        grouped.setdefault((s.device, s.name), []).append(s)
    log_ms = np.full((len(devices), len(networks)), np.nan)
    trust = np.ones_like(log_ms)
    for (device, name), found in grouped.items():
        at = devices.index(device), networks.index(name)
        log_ms[at] = np.median([np.log(s.latency_ms) for s in found])
        trust[at] = max(s.weight for s in found)
    totals = np.stack([quantities_of(graphs[name], normalise).total for name in networks])
    return Timings(networks, tuple(families[n] for n in networks), _rounded(totals), devices, _rounded(log_ms), trust)


def merge(held: Timings, added: Timings) -> Timings:
    """Return both; what `added` says of a device and network replaces what `held` says.

    A network that does other work in `added` than in `held`, as one that a table times with the normalisation of its image, is another one.
    """
    known = dict(zip(held.networks, held.totals, strict=True))
    told = (held.totals > 0).any(axis=0)  # an artifact may be older than a quantity
    same = [
        n not in known or np.allclose(known[n][told], row[told], rtol=1e-4, atol=1e-6)
        for n, row in zip(added.networks, added.totals, strict=True)
    ]
    added = replace(added, networks=tuple(n if alike else n + _OTHER_FORM for n, alike in zip(added.networks, same, strict=True)))
    networks, devices = tuple(dict.fromkeys([*held.networks, *added.networks])), tuple(dict.fromkeys([*held.devices, *added.devices]))
    log_ms = np.full((len(devices), len(networks)), np.nan)
    trust = np.ones_like(log_ms)
    totals = np.zeros((len(networks), len(QUANTITIES)))
    families: dict[str, str] = {}
    for part in (held, added):
        rows, columns = [devices.index(d) for d in part.devices], [networks.index(n) for n in part.networks]
        seen = np.isfinite(part.log_ms)
        block = np.ix_(rows, columns)
        log_ms[block] = np.where(seen, part.log_ms, log_ms[block])
        trust[block] = np.where(seen, part.trust, trust[block])
        totals[columns] = part.totals
        families |= dict(zip(part.networks, part.families, strict=True))
    return Timings(networks, tuple(families[n] for n in networks), totals, devices, log_ms, trust)


def fit_pool(
    timings: Timings,
    members: int,
    seed: int,
    related: Pool | None = None,
    looseness: Floats | None = None,
    *,
    refit: bool = False,
    scaled: Mapping[str, float] | None = None,
    former: Pool | None = None,
    near: Fit | None = None,
) -> Pool:
    """Fit all devices at one precision.

    Args:
        timings: What is fitted.
        members: Settings in the ensemble.
        seed: Of the draw.
        related: Another precision, which centres the prior.
        looseness: (devices,) see `Priors`.
        refit: See `Physical`.
        scaled: See `Physical`.
        former: A fit that is extended: its settings are kept.
        near: See `fit_pooled`.
    """
    fitted = related or former
    settings = draw(members, seed) if fitted is None else list(fitted.settings)
    priors = priors_of(settings) if related is None else relate(priors_of(settings, related.shared), seed)
    priors = _scaled(replace(priors, looseness=looseness), scaled or {})
    groups = timings.families if len(set(timings.families)) >= _FAMILIES else None
    features = features_of(timings.totals, settings)
    fit = fit_pooled(features, timings.log_ms, timings.trust, priors, groups, leave_out=not refit, near=near)
    if refit:
        fit = replace(fit, left_out=_refitted(features, timings, priors))
    return _calibrated(timings, settings, fit)


def _scaled(priors: Priors, factors: Mapping[str, float]) -> Priors:
    changed: dict[str, Any] = {name: getattr(priors, name) * factor for name, factor in factors.items()}
    return replace(priors, **changed)


def _refitted(features: Floats, timings: Timings, priors: Priors) -> Floats:
    """Return (members, devices, networks) log measured − log predicted by a fit to all networks but that one."""
    left_out = np.full((len(features), *timings.log_ms.shape), np.nan)
    for i in range(len(timings.networks)):
        log_ms = timings.log_ms.copy()
        log_ms[:, i] = np.nan
        fit = fit_pooled(features, log_ms, timings.trust, priors, leave_out=False)
        left_out[:, :, i] = timings.log_ms[:, i] - np.log(np.einsum("mk,mdk->md", features[:, i], np.exp(fit.device)))
    return left_out


def features_of(totals: Floats, settings: Sequence[Switches]) -> Floats:
    """Return (members, networks, columns) from (networks, quantities)."""
    features = np.stack([totals @ columns_of(s) for s in settings])
    features[:, :, COLUMNS.index("launch")] = 1.0
    return features


def _calibrated(timings: Timings, settings: Sequence[Switches], fit: Fit) -> Pool:
    measured = np.isfinite(timings.log_ms)
    left_out = np.where(measured, np.nan_to_num(fit.left_out).mean(axis=0), np.nan)
    spread = np.where(measured, np.nan_to_num(fit.left_out).std(axis=0), np.nan)
    base_sd = float(1.4826 * np.median(np.abs(left_out[measured])))
    scaled = np.abs(left_out) / np.sqrt(base_sd**2 + spread**2)
    usual = np.nanmean(np.minimum(scaled, 3.0) ** 2)
    clipped = np.where(measured, np.minimum(np.nan_to_num(scaled), 3.0) ** 2, 0.0)
    device_scale = np.sqrt((clipped.sum(axis=1) + _SCALE_TRUST * usual) / (measured.sum(axis=1) + _SCALE_TRUST) / usual)
    scores = np.sort((scaled / device_scale[:, None])[measured])
    price = np.exp(fit.device.mean(axis=1))  # of a typical device
    by_quantity = np.stack([columns_of(s) for s in settings])
    unit = np.einsum("mqk,mk->q", by_quantity, price) / len(settings)
    parts = timings.totals * unit
    by_kind = np.stack([np.bincount(KIND_OF, row, len(KINDS)) for row in parts])
    by_kind = by_kind / (parts.sum(axis=1) + price[:, COLUMNS.index("launch")].mean())[:, None]
    latency = np.exp(timings.log_ms)
    return Pool(
        timings=timings,
        settings=tuple(settings),
        shared=_rounded(fit.shared),
        device=_rounded(fit.device),
        left_out=_rounded(left_out),
        spread=_rounded(spread),
        base_sd=base_sd,
        device_scale=_rounded(device_scale),
        scores=_rounded(scores),
        seen=(by_kind > _SEEN_SHARE).sum(axis=0) >= 2,
        range_ms=_rounded(np.stack([np.nanmin(latency, axis=1), np.nanmax(latency, axis=1)], axis=1)),
        fit=fit,
    )


def _rounded(array: Floats) -> Floats:
    """To what a file holds, so that a predictor equals its saved self."""
    return array.astype(np.float32).astype(np.float64)


__all__ = ["COLUMN", "Physical", "Pool", "Priors", "Timings", "fit_pool", "merge", "timings_of"]
