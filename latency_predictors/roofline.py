"""``roofline``: a device that is given by facts alone, its peak, bandwidth and launch: nobody has timed a network there.

An operator takes the longer of its multiply-adds at a share of the peak and of its bytes at a share of the bandwidth, and a launch. The shares are
those of devices of which both facts and timings are known; their errors, each device left out in turn, are how wide an estimate is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.devices.artifact import check_log_errors, check_shapes, read_artifact, write_artifact
from nas.devices.predictor import Estimate, Floats, OperatorLatency, Predictor, Sample, predictors
from nas.devices.profile import PrecisionProfile, Profile
from nas.errors import GraphError, UsageError
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.units import Precision

FORMAT_VERSION = 1
# What the fit may choose for all devices: shares of the stated peak and bandwidth that are reached, and the start of an operator. Source: set by hand.
_SHARES = tuple(np.geomspace(0.01, 1.0, 15).tolist())
_LAUNCHES_US = (0.0, 2.0, 5.0, 10.0, 20.0)
WHY = "no network was timed on this device: a roofline of its stated facts, as wide as it errs on devices that were timed"


@dataclass(frozen=True)
class Shares:
    """What devices reach of what they state.

    Attributes:
        compute: Share of the peak.
        memory: Share of the bandwidth.
        launch_us: Of an operator, where the profile states none.
    """

    compute: float
    memory: float
    launch_us: float


@dataclass(frozen=True, eq=False)
class Work:
    """A compiled graph's operators: 10⁹ multiply-adds, and 10⁹ bytes, each of shape (operators,)."""

    names: tuple[str, ...]
    ops: tuple[str, ...]
    kinds: frozenset[str]
    gmacs: Floats
    weight_gb: Floats
    activation_gb: Floats


def work_of(graph: Graph, precision: str) -> Work:
    """Return the work of a graph after the runtime's fusions; operators outside the vocabulary are left out."""
    compiled = normalise(graph)
    known = [op for op in compiled.operators if op.category != "unknown"]
    weight, activation = Precision(precision).weight_bytes, Precision(precision).activation_bytes
    moved = [sum(compiled.values[name].elements for name in op.inputs) + sum(value.elements for value in op.outputs) for op in known]
    return Work(
        tuple(op.name for op in known),
        tuple(op.op for op in known),
        compiled.kinds,
        np.array([compiled.macs_of(op) for op in known]) / 1e9,
        weight / 1e9 * np.array([sum(w.elements for w in op.weights) for op in known]),
        activation / 1e9 * np.array(moved),
    )


def operator_ms(work: Work, at: PrecisionProfile, on_chip_mb: float, shares: Shares) -> Floats:
    """Return each operator's time in ms, (operators,); what fits on the chip is not moved.

    Raises:
        UsageError: The profile states no peak.
    """
    if at.peak_gmacs is None:
        raise UsageError("roofline: the profile states no peak_gmacs. Do this: add it with its source, or calibrate the device.")
    compute = work.gmacs / (shares.compute * at.peak_gmacs)
    moved = work.weight_gb + np.maximum(0.0, work.activation_gb - on_chip_mb / 1e3)
    traffic = moved / (shares.memory * at.bandwidth_gb_s) if at.bandwidth_gb_s else np.zeros_like(compute)
    launch_us = shares.launch_us if at.launch_us is None else at.launch_us
    return np.asarray(1e3 * np.maximum(compute, traffic) + 1e-3 * max(launch_us, 0.01))


def _grid() -> list[Shares]:
    return [Shares(compute, memory, launch) for launch in _LAUNCHES_US for compute in _SHARES for memory in _SHARES[8:]]


def _errors(rows: Sequence[tuple[Work, PrecisionProfile, float, float]], grid: Sequence[Shares]) -> Floats:
    """Return the log errors of a device's networks under each of the shares, (shares, networks)."""
    return np.array([[math.log(float(operator_ms(work, at, chip, shares).sum()) / ms) for work, at, chip, ms in rows] for shares in grid])


def _best(errors: Mapping[str, Floats]) -> int:
    """Return which shares have the least mean over devices of the median size of the log error."""
    return int(np.argmin(np.mean([np.median(np.abs(residuals), axis=1) for residuals in errors.values()], axis=0)))


@predictors.register("roofline")
class Roofline(Predictor):
    """See the module.

    Args:
        shares: Of all devices.
        scores: Sizes of log errors of devices left out, ascending.
        weights: Of the scores; those of a device sum to one over the number of devices.
    """

    def __init__(self, shares: Shares | None = None, scores: Floats | None = None, weights: Floats | None = None) -> None:
        self.shares = shares or Shares(0.3, 0.5, 5.0)
        self.scores = np.array([1.0]) if scores is None else scores
        self.weights = np.array([1.0]) if weights is None else weights
        self.left_out: Mapping[str, Floats] = {}

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile]) -> Roofline:
        """Return the shares of devices that have both, and their errors with each left out; a profile without facts is passed over.

        Raises:
            UsageError: No device has both.
        """
        stated = {profile.name: profile for profile in profiles}
        timed: dict[str, list[tuple[Work, PrecisionProfile, float, float]]] = {}
        for s in samples:
            profile = stated.get(s.device)
            if profile is None or profile.at(s.precision).peak_gmacs is None:
                continue
            row = work_of(s.graph, s.precision), profile.at(s.precision), profile.on_chip_memory_mb or 0.0, s.latency_ms
            timed.setdefault(s.device, []).append(row)
        if not timed:
            raise UsageError("roofline: no device with both timings and a stated peak, got 0.")
        grid = _grid()
        table = {device: _errors(rows, grid) for device, rows in timed.items()}
        errors = {}
        for device, own in table.items():
            others = {name: known for name, known in table.items() if name != device} or table
            errors[device] = own[_best(others)]
        sizes = np.concatenate([np.abs(residuals) for residuals in errors.values()])
        weights = np.concatenate([np.full(len(residuals), 1 / len(residuals) / len(errors)) for residuals in errors.values()])
        order = np.argsort(sizes, kind="stable")
        fitted = Roofline(grid[_best(table)], sizes[order], weights[order])
        fitted.left_out = errors
        return fitted

    def _width(self, confidence: float) -> float:
        at = int(np.searchsorted(np.cumsum(self.weights), confidence))
        return float(self.scores[min(at, len(self.scores) - 1)])

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph, always extrapolated; the breakdown sums to the latency."""
        at = profile.at(precision)
        work = work_of(graph, precision)
        absent = {*graph.unknown, *at.unsupported_ops}
        ms = np.where([op not in absent for op in work.ops], operator_ms(work, at, profile.on_chip_memory_mb or 0.0, self.shares), 0.0)
        latency = float(ms.sum())
        if not latency > 0:
            raise GraphError(f"estimate {graph.name}: no operator has a price there, got {', '.join(sorted(set(work.ops))) or 'none'}.")
        factor = math.exp(self._width(confidence))
        return Estimate(
            latency,
            latency / factor,
            latency * factor,
            confidence,
            unsupported=tuple(sorted({*graph.unknown, *work.kinds.intersection(at.unsupported_ops)})),
            extrapolated=(WHY, *filter(None, [at.facts_doubt])),
            operators=tuple(
                OperatorLatency(name, op, float(t)) for name, op, t in zip(work.names, work.ops, ms, strict=True) if op not in absent
            ),
        )

    def save(self, path: Path) -> None:
        """See `Predictor.save`."""
        head = {"shares": [self.shares.compute, self.shares.memory, self.shares.launch_us]}
        write_artifact(path, "roofline", FORMAT_VERSION, head, {"scores": self.scores, "weights": self.weights})

    @classmethod
    def load(cls, path: Path) -> Roofline:
        """Read what `save` wrote.

        Raises:
            ArtifactError: Missing, damaged, or of another version.
        """
        with read_artifact(path, "roofline", FORMAT_VERSION) as artifact:
            head, data = artifact.header, artifact.arrays
            check_shapes({"weights": (data["weights"], data["scores"].shape)})
            check_log_errors(data["scores"])
            return cls(Shares(*map(float, head["shares"])), data["scores"], data["weights"])


__all__ = ["Roofline", "Shares", "Work", "operator_ms", "work_of"]
