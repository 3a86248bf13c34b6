"""Protocols for latency models on a table of timings: what came later, a lineage never seen, one network out, few timings, a donor.

Everything is refitted inside the protocol; a tested network is in no part of fit or calibration, under no device. Baselines run on the
same splits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.devices.predictor import Predictor, Sample
from nas.devices.profile import Origin, PrecisionProfile, Profile
from nas.devices.scores import Prediction
from nas.errors import UsageError
from nas.graphs.graph import Graph
from nas.units import Precision

Baseline = Callable[[Sequence[Sample], Sequence[Sample], str], dict[str, float]]
_FEW = re.compile(r"few:([0-9]+)")
_RELEASE = re.compile(r"release:([0-9]{4}-[0-9]{2}(?:-[0-9]{2})?)")
_FEW_DRAWS, _FEW_FOLDS = 3, 3  # by hand: nine splits, so that a protocol ends in minutes


@dataclass(frozen=True, slots=True)
class Split:
    """What may be fitted and what is tested; `tested` are samples on the device in question."""

    fitted: tuple[Sample, ...]
    tested: tuple[Sample, ...]
    label: str


def splits_of(
    samples: Sequence[Sample],
    device: str,
    tested: Sequence[str],
    protocol: str,
    donor: str | None = None,
    seed: int = 0,
    precision: str | None = None,
    lineages: Mapping[str, str] | None = None,
    known: Sequence[Sample] | None = None,
) -> Iterator[Split]:
    """Yield the splits of a protocol.

    Args:
        samples: Timings of all devices at the precisions that may be fitted.
        device: Profile name of the device in question.
        tested: Networks that may be tested; the others only calibrate.
        protocol: ``release:DATE`` (fit what was known before a day or month, predict networks first timed from then on), ``lineage`` (leave out
            all networks of a lineage), ``loo``, ``family`` or ``few:K`` (K timings on the device; the tested networks are timed nowhere).
        donor: Device whose timing of a tested network may be fitted.
        seed: Of the draws of ``few``.
        precision: Tested precision; default: all that the device has.
        lineages: Of the networks, for ``lineage``; a network that is not there is a lineage of its own.
        known: Timings as they stood before the day of ``release``.

    Raises:
        UsageError: An unknown protocol, one that lacks what it needs, or too few timings on the device.
    """
    own = {s.name: s for s in samples if s.device == device and s.name in set(tested) and precision in (None, s.precision)}
    if len(own) < 3:
        raise UsageError(f"protocol: too few networks timed on {device}, got {len(own)}. Expected at least 3 that have a graph.")
    twins = {name: {s.name for s in samples if s.graph.key == own[name].graph.key} for name in own}

    def split(out: Sequence[str], label: str, timed: set[str] | None = None) -> Split:
        gone = set().union(*(twins[name] for name in out))
        fitted = [
            s
            for s in samples
            if (s.name not in gone or (donor is not None and s.device == donor))
            and (timed is None or s.device != device or s.name in timed)
        ]
        return Split(tuple(fitted), tuple(own[name] for name in out), label)

    if protocol == "loo":
        for name in own:
            yield split([name], name)
    elif protocol in ("family", "lineage"):
        groups = {s.name: (lineages or {}).get(s.name, s.name) if protocol == "lineage" else s.family for s in samples}
        everywhere = {group: {name for name, other in groups.items() if other == group} for group in {groups[name] for name in own}}
        for group in sorted(everywhere):
            members = [name for name in own if groups[name] == group]
            for name in members:
                twins[name] |= everywhere[group]
            yield split(members, group)
    elif match := _RELEASE.fullmatch(protocol):
        yield _later(own, known, match[1])
    elif match := _FEW.fullmatch(protocol):
        count = int(match[1])
        names = list(own)
        if not 1 <= count <= len(names) - 3:
            raise UsageError(f"protocol: {count} of {len(names)} timed networks leave fewer than 3 to test, got {protocol!r}.")
        rng = np.random.default_rng(seed)
        for draw in range(_FEW_DRAWS):
            order = [names[i] for i in rng.permutation(len(names))]
            timed, rest = set(order[:count]), order[count:]
            for fold in range(min(_FEW_FOLDS, len(rest))):
                yield split(rest[fold::_FEW_FOLDS], f"draw {draw}, fold {fold}", timed)
    else:
        raise UsageError(
            f"protocol: unknown, got {protocol!r}. Expected release:DATE (release:2026-02), lineage, loo, family or few:K (few:10)."
        )


def release_date(protocol: str) -> str | None:
    """Return the day or month from which on a protocol tests; None where it is not ``release``."""
    match = _RELEASE.fullmatch(protocol)
    return match[1] if match else None


def _later(own: Mapping[str, Sample], known: Sequence[Sample] | None, day: str) -> Split:
    """Return what was known before a day beside the networks that nobody had timed then."""
    if known is None:
        raise UsageError(f"protocol: the timings known before {day} are missing, got none.")
    names, graphs = {s.name for s in known}, {s.graph.key for s in known}
    later = tuple(s for s in own.values() if s.name not in names and s.graph.key not in graphs)
    if not later:
        raise UsageError(f"protocol: no network was first timed from {day} on, got {len(own)} networks that were timed before.")
    return Split(tuple(known), later, f"from {day}")


def stub_profile(device: str, precision: str) -> Profile:
    """Return a profile that says no more of a device than its name."""
    return Profile(
        name=device,
        title=device,
        kind="npu",
        runtime="any",
        default_precision=Precision(precision),
        precisions={Precision(precision): PrecisionProfile()},
        origin=Origin(title="a table that the user named"),
    )


def run_protocol(
    make: Callable[[], Predictor],
    splits: Sequence[Split],
    device: str,
    precision: str,
    donor: str | None = None,
) -> list[Prediction]:
    """Refit on each split and predict what it tests.

    With a donor, the latency is corrected by what the refitted model misses about the network on the donor.
    """
    profile = stub_profile(device, precision)
    predictions: list[Prediction] = []
    for split in splits:
        predictor = make().fit(split.fitted, [])
        for s in split.tested:
            e = predictor.estimate(s.graph, profile, precision)
            factor = 1.0
            if donor is not None:
                known = [f for f in split.fitted if f.device == donor and f.name == s.name and f.precision == precision]
                if not known:
                    continue
                factor = known[0].latency_ms / predictor.estimate(s.graph, stub_profile(donor, precision), precision).latency_ms
            predictions.append(Prediction(s.name, s.latency_ms, e.latency_ms * factor, e.lower_ms * factor, e.upper_ms * factor))
    return predictions


def run_baselines(splits: Sequence[Split], device: str, precision: str) -> dict[str, dict[str, float]]:
    """Return each baseline's errors on the same splits; one that cannot answer a split leaves it out and says how many it answered."""
    answers: dict[str, dict[str, float]] = {}
    for name, baseline in BASELINES.items():
        errors: list[float] = []
        for split in splits:
            fitted = [s for s in split.fitted if s.precision == precision]
            predicted = baseline(fitted, split.tested, device)
            errors += [abs(predicted[s.name] / s.latency_ms - 1) * 100 for s in split.tested if s.name in predicted]
        if errors:
            answers[name] = {
                "mean_error_pct": float(np.mean(errors)),
                "median_error_pct": float(np.median(errors)),
                "answered": len(errors),
            }
    return answers


def _own(fitted: Sequence[Sample], device: str) -> list[Sample]:
    return [s for s in fitted if s.device == device]


def _macs(fitted: Sequence[Sample], tested: Sequence[Sample], device: str) -> dict[str, float]:
    """Latency = a + b · MACs, least relative squares."""
    own = _own(fitted, device)

    def row(graph: Graph) -> list[float]:
        return [1.0, graph.cost.macs / 1e9]

    return _linear([row(s.graph) for s in own], own, {s.name: row(s.graph) for s in tested}, ridge=0.0)


def _counts(graph: Graph) -> dict[str, float]:
    counts: dict[str, float] = {}
    for op in graph.operators:
        counts[op.op] = counts.get(op.op, 0.0) + 1.0
    return counts


def _op_count_ridge(fitted: Sequence[Sample], tested: Sequence[Sample], device: str) -> dict[str, float]:
    """Latency = ridge regression on MACs, parameters and the number of operators of each kind, relative residuals."""
    own = _own(fitted, device)
    kinds = sorted({kind for s in own for kind in _counts(s.graph)})

    def row(graph: Graph) -> list[float]:
        counts = _counts(graph)
        return [1.0, graph.cost.macs / 1e9, graph.cost.params / 1e7, *(counts.get(kind, 0.0) / 50 for kind in kinds)]

    return _linear([row(s.graph) for s in own], own, {s.name: row(s.graph) for s in tested}, ridge=0.1)


def _linear(rows: list[list[float]], own: Sequence[Sample], targets: Mapping[str, list[float]], ridge: float) -> dict[str, float]:
    if len(own) < 3:
        return {}
    latency = np.array([s.latency_ms for s in own])
    design = np.array(rows) / latency[:, None]
    gram = design.T @ design + ridge * np.eye(design.shape[1])
    weights = np.linalg.lstsq(gram, design.T @ np.ones(len(own)), rcond=None)[0]
    floor = latency.min() / 2
    return {name: max(floor, float(np.array(row) @ weights)) for name, row in targets.items()}


def _classes(graph: Graph) -> list[float]:
    """Twelve classes of work: launch, dense and depthwise MACs, matrix MACs, and elements by category."""
    sums = dict.fromkeys(
        ("conv", "depthwise", "matmul", "attention", "norm", "activation", "softmax", "elementwise", "pool", "layout", "other"), 0.0
    )
    for op in graph.operators:
        elements = sum(v.elements for v in op.outputs) / 1e6
        if op.category == "conv":
            depthwise = op.attribute("groups", 1) == graph.values[op.inputs[0]].shape[1] > 1
            sums["depthwise" if depthwise else "conv"] += graph.macs_of(op) / 1e9
        elif op.category in ("matmul", "attention"):
            sums[op.category] += graph.macs_of(op) / 1e9
        elif op.category == "reduce":
            sums["pool"] += elements
        else:
            sums[op.category if op.category in sums else "other"] += elements
    return [1.0, *sums.values()]


def _nonnegative(fitted: Sequence[Sample], tested: Sequence[Sample], device: str) -> dict[str, float]:
    """Latency = non-negative least squares on twelve classes of work, relative residuals."""
    from scipy.optimize import nnls

    own = _own(fitted, device)
    if len(own) < 3:
        return {}
    latency = np.array([s.latency_ms for s in own])
    weights, _ = nnls(np.array([_classes(s.graph) for s in own]) / latency[:, None], np.ones(len(own)))
    return {s.name: max(latency.min() / 2, float(np.array(_classes(s.graph)) @ weights)) for s in tested}


def _nearest_device(fitted: Sequence[Sample], tested: Sequence[Sample], device: str) -> dict[str, float]:
    """A scaled copy of the device whose ratio to this one varies least; it alone may look up the tested network, where a split has it."""
    own = {s.name: s.latency_ms for s in _own(fitted, device)}
    best: tuple[float, str, float] | None = None
    for other in sorted({s.device for s in fitted} - {device}):
        theirs = {s.name: s.latency_ms for s in fitted if s.device == other}
        common = sorted(own.keys() & theirs.keys())
        if len(common) >= 3 and any(s.name in theirs for s in tested):
            ratios = np.log([own[n] / theirs[n] for n in common])
            candidate = (float(np.median(np.abs(ratios - np.median(ratios)))), other, float(np.exp(np.median(ratios))))
            best = min(best, candidate) if best else candidate
    if best is None:
        return {}
    known = {s.name: s.latency_ms for s in fitted if s.device == best[1]}
    return {s.name: known[s.name] * best[2] for s in tested if s.name in known}


BASELINES: Mapping[str, Baseline] = {
    "macs": _macs,
    "op_count_ridge": _op_count_ridge,
    "nonnegative_least_squares": _nonnegative,
    "nearest_device_scaled": _nearest_device,
}
