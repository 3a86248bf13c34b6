"""The contract of a latency predictor: an estimate is a model's word, has an interval, and names what it cannot price.

Life of a predictor::

    predictors.get(name)                    the class: `prices_mixed`, `as_written`, `normalises_images`
            │
    Predictor().fit(samples, profiles)      by who makes an artifact: a new object; `extended` adds a new device's timings to a fit,
            │                               `held_out` says how wrong it is, `choose_informative` what to time next
    save(path)                              beside the profile that names it
            ┆
    Predictor.load(path)                    once a process, by `load_predictor`, when a device is asked for
            │
    form_timed(network)                     for a published network: the form in which it is priced, where not the usual one
            │
    estimate(graph, profile, precision)     one network, with a breakdown
    estimate_batch(candidates, …)           a search's proposals; the numbers are those of `estimate`

A loaded predictor does not change; estimates follow from the graph, the profile and the precision alone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from nas.devices.profile import LEAST_SHARE, PrecisionProfile, Profile, SdkDrift
from nas.errors import ArtifactError, UsageError, did_you_mean
from nas.graphs import known, workloads
from nas.graphs.graph import Graph, join
from nas.registry import Registry

Basis = Literal["measured", "estimated", "proxy"]
Floats = npt.NDArray[np.float64]
Segments = Sequence[tuple[str, Graph]]

LONGEST_MS = 1e9
"""Eleven days: beyond it there is no inference, but coefficients or sizes that someone mistyped. Set by hand."""

TYPICAL_REPEATS_PCT = 2.0
"""Median difference of two measurements of a network, for a device whose repeats are not known. AI Hub's devices: 1.0 % under QNN, 1.8 %
under TFLite in the middle. Source: AI Hub's published tables."""

_REPEATS_SPREAD = 1.6
"""Standard deviation of the logarithm of such a difference as a share of the device's median one. With it the range of `measured` at 50, 80,
90 and 95 % held 55, 83, 91 and 94 % of the differences between AI Hub's last two releases under QNN (55, 85, 93 and 97 % under TFLite)."""


@dataclass(frozen=True, slots=True)
class OperatorLatency:
    """The share of one operator (after the runtime's fusions) in an estimate."""

    name: str
    op: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A latency with its interval.

    Attributes:
        latency_ms: Central value.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end; budgets are compared with it. At most `LONGEST_MS`.
        confidence: Nominal coverage of the interval.
        basis: ``measured`` only where the numbers are a device's own timing; ``proxy`` where they are the timing of a stand-in for it.
        unsupported: Kinds of operators that the device or the predictor cannot run or price. The estimate and its breakdown do not include them,
            and a search treats such a graph as infeasible.
        extrapolated: What lies outside the calibrated range, in words; empty where nothing does.
        operators: Breakdown; sums to `latency_ms` where the predictor is additive.
    """

    latency_ms: float
    lower_ms: float
    upper_ms: float
    confidence: float = 0.9
    basis: Basis = "estimated"
    unsupported: tuple[str, ...] = ()
    extrapolated: tuple[str, ...] = ()
    operators: tuple[OperatorLatency, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.lower_ms <= self.latency_ms <= self.upper_ms <= LONGEST_MS:
            raise ArtifactError(_no_interval(self.lower_ms, self.latency_ms, self.upper_ms))


def _no_interval(lower_ms: float, latency_ms: float, upper_ms: float) -> str:
    interval = f"{lower_ms:.4g} ≤ {latency_ms:.4g} ≤ {upper_ms:.4g} ms"
    return f"estimate: no interval of times that a device takes, got {interval}. Do this: check the fitted coefficients and the network's sizes."


def measured(profile: Profile, precision: str | None, network: str, confidence: float = 0.9) -> Estimate | None:
    """Return the device's own timing of a network, if it has one, with the interval within which another measurement would lie.

    A device that stands in for another has its ``proxy``. A rounded timing lies within half a step, but never below a tenth of what is stated. Two measurements differ by a small amount as a rule and by a large one at times, as when a release of the SDK lies between them.
    """
    at = profile.at(precision)
    if (latency_ms := at.timings_ms.get(network)) is None:
        return _carried_over(at, network, confidence)
    spread = spread_of_repeats(at.repeats_within_pct, confidence)
    half_ms = (at.timings_step_ms or 0.0) / 2
    lower_ms, upper_ms = max(latency_ms - half_ms, latency_ms / 10) / spread, (latency_ms + half_ms) * spread
    return Estimate(latency_ms, lower_ms, upper_ms, confidence, "proxy" if profile.proxy else "measured")


def _carried_over(at: PrecisionProfile, network: str, confidence: float) -> Estimate | None:
    """Return a timing under a former SDK as the drift of the others has it: an estimate."""
    former_ms = at.former_timings_ms.get(network)
    if former_ms is None or at.drift is None:
        return None
    return _drifted(Estimate(former_ms, former_ms, former_ms, confidence), at.drift)


def _drifted(estimate: Estimate, drift: SdkDrift) -> Estimate:
    """Return an estimate of a former SDK as it is under the newer one; the change of a start is spread over the operators."""
    latency_ms = drift.moved(estimate.latency_ms)
    ends = itertools.pairwise(max(ms, 1e-9) for ms in (estimate.lower_ms, estimate.latency_ms, estimate.upper_ms))
    below, above = (drift.spread(math.log(high / low), estimate.confidence) for low, high in ends)
    share = latency_ms / estimate.latency_ms if estimate.latency_ms else 1.0
    return replace(
        estimate,
        latency_ms=latency_ms,
        lower_ms=latency_ms * math.exp(-below),
        upper_ms=min(latency_ms * math.exp(above), LONGEST_MS),
        operators=tuple(replace(op, latency_ms=op.latency_ms * share) for op in estimate.operators),
    )


def spread_of_repeats(repeats_within_pct: float | None, confidence: float) -> float:
    """Return the factor within which another measurement lies, from the median difference of two in percent (None: that of most devices)."""
    return 1 + (repeats_within_pct or TYPICAL_REPEATS_PCT) / 100 * math.exp(_REPEATS_SPREAD * NormalDist().inv_cdf(confidence))


def batch_of(graph: Graph) -> int:
    """Return the pictures a run that a graph fixes: the first size of all its inputs with four axes or more, 1 where they differ."""
    sizes = {value.shape[0] for value in graph.inputs if len(value.shape) > 3}
    return next(iter(sizes)) if len(sizes) == 1 else 1


def for_batch(estimate: Estimate, graph: Graph, profile: Profile) -> Estimate:
    """Return the estimate of a graph at its own batch: of a run, or of a picture where the profile states throughput.

    A batch of one is every graph's usual form, whatever batch the device was timed at. Work is proportional to any other batch; what a
    device gains from sharing weights and starts among pictures is not known, so the estimate is called extrapolated.
    """
    batch = batch_of(graph)
    if batch == 1:
        return estimate
    share = batch if profile.quantity == "reciprocal_throughput" else 1
    why = () if batch == profile.batch else (f"batch {batch}: the device was timed at batch {profile.batch}, and the work is scaled",)
    return replace(
        estimate,
        latency_ms=estimate.latency_ms / share,
        lower_ms=estimate.lower_ms / share,
        upper_ms=estimate.upper_ms / share,
        extrapolated=(*estimate.extrapolated, *why),
        operators=tuple(replace(op, latency_ms=op.latency_ms / share) for op in estimate.operators),
    )


@dataclass(frozen=True, slots=True)
class Estimates:
    """Many estimates as arrays of shape (n,); `usable` is false where an operator is unsupported."""

    latency_ms: Floats
    lower_ms: Floats
    upper_ms: Floats
    usable: npt.NDArray[np.bool_]
    extrapolated: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        good = (
            (self.lower_ms >= 0) & (self.lower_ms <= self.latency_ms) & (self.latency_ms <= self.upper_ms) & (self.upper_ms <= LONGEST_MS)
        )
        if (wrong := np.flatnonzero(self.usable & ~good)).size:
            raise ArtifactError(_no_interval(*(float(each[wrong[0]]) for each in (self.lower_ms, self.latency_ms, self.upper_ms))))


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing, as predictors are fitted to them.

    Attributes:
        graph: The network that ran.
        precision: One of `nas.units.Precision`.
        latency_ms: The measured latency.
        name: Name of the network, for messages and for leaving networks out.
        device: Name of the profile.
        family: Family of the network; a family is left out as a whole.
        weight: Relative trust; 1.0 by default.
    """

    graph: Graph
    precision: str
    latency_ms: float
    name: str
    device: str = ""
    family: str = ""
    weight: float = 1.0


def fitted_key(predictor: str, fitted: Collection[tuple[str, str]], profile: Profile, precision: str) -> tuple[str, str]:
    """Return the (device, precision) of `fitted` that is the profile's, under its name or an alias.

    Raises:
        UsageError: The profile lacks the precision, or nothing is fitted for it.
    """
    profile.at(precision)
    for name in (profile.name, *profile.aliases):
        if (name, precision) in fitted:
            return name, precision
    known = {device for device, at in fitted if at == precision}
    raise UsageError(f"{predictor}: nothing is fitted for {profile.name!r} at {precision!r}.{did_you_mean(profile.name, known)}")


class FewShot(Protocol):
    """A predictor that is fitted to a few timings of one device again and again, on features of all candidates computed once.

    Life of one in `nas.bench.latency_transfer`::

        prepare(candidates, …)          once: whatever the other methods need
                │
        choose(prepared, rows, count)   which rows to time, once a repetition
                │
        predict(prepared, timed, …)     the others, from these timings alone
    """

    def prepare(self, candidates: Sequence[Any], pool: Sequence[int], sources: Mapping[str, tuple[Sequence[int], Floats]]) -> Any:
        """Return whatever the next two need."""

    def choose(self, prepared: Any, rows: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
        """Return the rows to be timed."""

    def predict(
        self, prepared: Any, timed: Sequence[int], latency_ms: Floats, query: Sequence[int], confidence: float
    ) -> tuple[Floats, Floats, Mapping[str, float]]:
        """Return latency, half-width of the interval, and notes on the fit."""

    def columns(self, prepared: Any) -> tuple[Floats, Floats]:
        """Return MACs, shape (n,), and operator counts by family, shape (n, families), for the baselines."""

    def ceiling(self, prepared: Any, rows: Sequence[int], latency_ms: Floats, query: Sequence[int]) -> Floats:
        """Return predictions from thousands of timings."""


class Predictor(ABC):
    """A predictor estimates the latency of a graph on the device of a profile, from these two alone.

    Attributes:
        prices_mixed: Whether operators that fix their precision are priced at it, and the borders between precisions too; the argument
            ``precision`` then is that of the others. Where it is false, such a graph must not be given.
        as_written: Whether it is fitted to networks as their libraries build them, batch norms and branches unfused. A published network is
            priced in that form then; any other graph as it is given.
        normalises_images: Whether it is fitted to tables whose networks normalise their images themselves, as AI Hub compiles classifiers.
            A published network is priced with that; any other graph as it is given.
    """

    prices_mixed: ClassVar[bool] = False
    as_written: ClassVar[bool] = False
    normalises_images: ClassVar[bool] = False

    def form_timed(self, network: str) -> Graph | None:
        """Return a published network in the form in which this predictor's tables time it; None where that is how anyone would write it."""
        if network not in workloads.names():
            return None
        if self.as_written:
            return workloads.load_as_written(network)
        return known.deferred_with_normalisation(network) if self.normalises_images else None

    @abstractmethod
    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile]) -> Predictor:
        """Return a predictor fitted to `samples`; `self` is left as it is.

        Raises:
            UsageError: Too few or contradictory samples, with the reason.
        """

    @abstractmethod
    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph, with a breakdown.

        Raises:
            UsageError: The profile lacks the precision or was not fitted.
        """

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates, each given as its chained segments; the numbers equal those of `estimate` on the whole.

        An additive predictor overrides this: it prices each distinct segment once and sums. Where one segment fixes precisions, all do.
        """
        graphs = [parts[0][1] if len(parts) == 1 else join(parts) for parts in candidates]
        estimates = [self.estimate(graph, profile, precision, confidence) for graph in graphs]
        return Estimates(
            latency_ms=np.array([e.latency_ms for e in estimates]),
            lower_ms=np.array([e.lower_ms for e in estimates]),
            upper_ms=np.array([e.upper_ms for e in estimates]),
            usable=np.array([not e.unsupported for e in estimates], dtype=bool),
            extrapolated=np.array([bool(e.extrapolated) for e in estimates], dtype=bool),
        )

    def extended(self, samples: Sequence[Sample], looseness: float = 1.0) -> Predictor:
        """Return this fit with a new device's timings added. The devices of the fit are their prior.

        Args:
            samples: Timings of the new device.
            looseness: Factor on how far the new device may differ from the others.

        Raises:
            UsageError: This predictor cannot add a device.
        """
        raise UsageError(f"predictor {type(self).__name__}: cannot take up a new device from timings, got {len(samples)} ({looseness=}).")

    def held_out(self, device: str, precision: str) -> Sequence[tuple[str, float, float, float, float]]:
        """Return (network, measured, predicted, lower, upper) in ms for the device's networks, each predicted without its own timings.

        Raises:
            UsageError: This predictor does not store them.
        """
        raise UsageError(f"predictor {type(self).__name__}: keeps no held-out predictions of {device} at {precision}.")

    def choose_informative(self, candidates: Mapping[str, Graph], profile: Profile, precision: str, count: int) -> Sequence[str]:
        """Return the networks whose timings on a new device like `profile` are the most informative about its other latencies, best first.

        Raises:
            UsageError: This predictor cannot choose.
        """
        raise UsageError(
            f"predictor {type(self).__name__}: cannot choose {count} of {len(candidates)} networks for {profile.name} {precision}."
        )

    @classmethod
    def few_shot(cls) -> FewShot:
        """Return the predictor as protocols of few timings use it.

        Raises:
            UsageError: It needs more than a few timings.
        """
        raise UsageError(f"predictor {cls.__name__}: cannot be fitted to a few timings of one device. Do this: another --predictor.")

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the fitted state, never as pickle; `nas.devices.artifact.write_artifact` writes a header and arrays."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Predictor:
        """Read what `save` wrote.

        Raises:
            ArtifactError: Missing, damaged, or of another version.
        """


class Drifted(Predictor):
    """A fit to a former SDK, whose estimates are moved by what a newer one changed.

    Args:
        fitted: The predictor.
    """

    def __init__(self, fitted: Predictor) -> None:
        self.fitted = fitted
        # what a class says of itself, said by this object
        vars(self).update({name: getattr(fitted, name) for name in ("prices_mixed", "as_written", "normalises_images")})

    def form_timed(self, network: str) -> Graph | None:
        """See `Predictor.form_timed`."""
        return self.fitted.form_timed(network)

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile]) -> Predictor:
        """See `Predictor.fit`; a new fit knows no former SDK."""
        return self.fitted.fit(samples, profiles)

    def extended(self, samples: Sequence[Sample], looseness: float = 1.0) -> Predictor:
        """See `Predictor.extended`."""
        return self.fitted.extended(samples, looseness)

    def held_out(self, device: str, precision: str) -> Sequence[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`: under the former SDK."""
        return self.fitted.held_out(device, precision)

    def choose_informative(self, candidates: Mapping[str, Graph], profile: Profile, precision: str, count: int) -> Sequence[str]:
        """See `Predictor.choose_informative`."""
        return self.fitted.choose_informative(candidates, profile, precision, count)

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """See `Predictor.estimate`."""
        undrifted = self.fitted.estimate(graph, profile, precision, confidence)
        drift = profile.at(precision).drift
        return undrifted if drift is None else _drifted(undrifted, drift)

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """See `Predictor.estimate_batch`."""
        undrifted = self.fitted.estimate_batch(candidates, profile, precision, confidence)
        drift = profile.at(precision).drift
        if drift is None:
            return undrifted
        scaled = drift.factor * undrifted.latency_ms
        latency_ms = np.maximum(scaled + drift.start_ms, LEAST_SHARE * scaled)
        lower, middle, upper = (np.log(np.maximum(ms, 1e-9)) for ms in (undrifted.lower_ms, undrifted.latency_ms, undrifted.upper_ms))
        own = drift.spread(0.0, confidence)
        return Estimates(
            latency_ms=latency_ms,
            lower_ms=latency_ms * np.exp(-np.hypot(middle - lower, own)),
            upper_ms=np.minimum(latency_ms * np.exp(np.hypot(upper - middle, own)), LONGEST_MS),
            usable=undrifted.usable,
            extrapolated=undrifted.extrapolated,
        )

    def save(self, path: Path) -> None:
        """See `Predictor.save`: the fit, as it was."""
        self.fitted.save(path)

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Drift stands in profiles: there is no such file.

        Raises:
            ArtifactError: Always.
        """
        raise ArtifactError(f"predictor: a fit that knows two versions of an SDK has no file of its own, got {path}.")


predictors: Registry[type[Predictor]] = Registry("predictors", "latency_predictors")
"""Latency predictors by name."""


_loaded: dict[tuple[str, Path], Predictor] = {}


def load_predictor(profile: Profile, precision: str | None = None, folder: Path | None = None) -> Predictor:
    """Return the fitted predictor that a profile names for a precision; the roofline of its facts where it names none and states its peak.

    Args:
        profile: The device.
        precision: Default: the profile's own default.
        folder: Where the profile's file is, searched for the artifact before ``latency_predictors/artifacts/``.

    Raises:
        UsageError: Nothing is fitted for that precision.
        ArtifactError: The artifact is missing or damaged.
    """
    at_precision = _with_model(profile.at(precision))
    if not at_precision.predictor:
        remedy = f"Do this: nas devices calibrate {profile.name} --from timings.csv."
        raise UsageError(f"device {profile.name}: no latency predictor is fitted for {precision or profile.default_precision}. {remedy}")
    path = _artifact_file(at_precision, folder)
    key = (at_precision.predictor, path)
    if key not in _loaded:
        _loaded[key] = predictors.get(at_precision.predictor).load(path)
    return _loaded[key] if all(at.drift is None for at in profile.precisions.values()) else Drifted(_loaded[key])


def _with_model(at: PrecisionProfile) -> PrecisionProfile:
    """Return a precision with the roofline of its facts where it names no model and states its peak."""
    if at.predictor or at.peak_gmacs is None:
        return at
    return at.model_copy(update={"predictor": "roofline", "artifact": "roofline.npz"})


def _artifact_file(at: PrecisionProfile, folder: Path | None) -> Path:
    """Return the file of fitted coefficients that a precision of a profile names; it may be missing."""
    spec = find_spec("latency_predictors")
    rooms = [Path(root) / "artifacts" for root in (spec.submodule_search_locations if spec else None) or ()]
    candidates = [room / at.artifact for room in ([folder] if folder else []) + rooms]
    return next((p for p in candidates if p.is_file()), candidates[-1])


def estimate_hash(profile: Profile, precision: str, folder: Path | None = None) -> str:
    """Return 16 hex digits over what an estimate is made of: the profile, its runtime's operators and the fitted coefficients at a precision.

    Args:
        profile: The device.
        precision: At which it prices.
        folder: As for `load_predictor`.
    """
    artifact = _artifact_file(_with_model(profile.at(precision)), folder)
    written = artifact.stat() if artifact.is_file() else None
    return _hash_of(profile.hash, artifact, (written.st_mtime_ns, written.st_size) if written else None)


@lru_cache(maxsize=256)
def _hash_of(profile: str, artifact: Path, written: tuple[int, int] | None) -> str:
    coefficients = artifact.read_bytes() if written else b""
    return hashlib.sha256(profile.encode() + hashlib.sha256(coefficients).digest()).hexdigest()[:16]
