"""Budgets before accuracy: counts and latency estimates of candidates, and by how much they break each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas.devices.peak_memory import peak_bytes
from nas.devices.predictor import Estimate, Predictor, Segments, measured
from nas.devices.profile import DeviceMemory, Profile
from nas.graphs.graph import Graph, join
from nas.quantisation.risk import predicted_drop
from nas.searching.correction import Correction
from nas.searching.objective import Budget, Goal
from nas.searching.searcher import Prescreen
from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution, SearchSpace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """A device at one precision, with the model that prices networks on it.

    Attributes:
        profile: The device.
        precision: One of `nas.units.Precision`.
        predictor: Fitted for that precision; None where `timings_ms` says everything.
        timings_ms: By the identity of an architecture (`SearchSpace.identity`): a published table's own latencies, taken as they are.
    """

    profile: Profile
    precision: str
    predictor: Predictor | None
    timings_ms: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of an architecture before its accuracy.

    Attributes:
        values: Cheap values by name: ``latency_ms/<device>``, ``macs``, ``params``; ``size_bytes`` and ``memory_bytes`` where they
            are objectives, ``peak_memory_bytes``, ``ram_bytes`` and ``flash_bytes`` where they are bounded.
        violations: By budget name; ≤ 0 where it holds.
        estimates: By device; breakdowns are left out, `Judge.estimates` has them.
        precisions: By device; ``mixed`` where parts of the network differ.
        resolution: Of the input, (height, width) in pixels.
    """

    values: Mapping[str, float]
    violations: Mapping[str, float]
    estimates: Mapping[str, Estimate]
    precisions: Mapping[str, str]
    resolution: Resolution

    @property
    def feasible(self) -> bool:
        """Whether every budget holds."""
        return all(violation <= 0 for violation in self.violations.values())


def precision_of(parts: Segments, default: str) -> str:
    """Return the precision at which a network runs: what its operators fix, ``mixed`` where they differ, else `default`."""
    fixed = {precision or default for _, graph in parts for precision in graph.precisions}
    return next(iter(fixed)) if len(fixed) == 1 else "mixed"


@dataclass
class Judge(Prescreen):
    """Prices architectures on every device and compares them with the budgets; accuracy plays no part.

    Several targets of one device (``--precision any``) are alternatives: an architecture takes the most precise one
    within the budgets, else the fastest.

    Args:
        space: Lowers the architectures.
        goal: Its budgets are judged.
        targets: Devices at their precisions.
        confidence: Nominal coverage of the intervals; budgets are judged by the upper end.
        resolution: Deployment resolution; None for each architecture's own.
        batch: Images a run, where the user gave it; only read for profiles that state throughput.
        corrections: By device, what timings of some candidates say about the estimates of all.
    """

    space: SearchSpace
    goal: Goal
    targets: Sequence[Target]
    confidence: float = 0.9
    resolution: Resolution | None = None
    batch: int | None = None
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    _known: dict[str, Verdict] = field(default_factory=dict, init=False, repr=False)
    _sizes: dict[tuple[int, str, str], tuple[Graph, float]] = field(default_factory=dict, init=False, repr=False)
    _memories: dict[tuple[tuple[int, ...], str, str, str], tuple[Segments, float]] = field(default_factory=dict, init=False, repr=False)

    def judge(self, architectures: list[Architecture]) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
        """Return (cheap objective values, violations by budget name) of each architecture."""
        return [(verdict.values, verdict.violations) for verdict in self.verdicts(architectures)]

    def verdicts(self, architectures: Sequence[Architecture]) -> list[Verdict]:
        """Return everything that is known of each architecture without an evaluation; what was asked before is remembered."""
        fresh = list({a.key: a for a in architectures if a.key not in self._known}.values())
        if fresh:
            segments = [self.space.segments(a, self.resolution) for a in fresh]
            by_device: dict[str, list[tuple[Target, list[Estimate]]]] = {}
            for target in self.targets:
                estimates = self._estimate(fresh, segments, target)
                if (correction := self.corrections.get(target.profile.name)) is not None:
                    estimates = [correction.applied(estimate, a.key) for a, estimate in zip(fresh, estimates, strict=True)]
                by_device.setdefault(target.profile.name, []).append((target, estimates))
            for i, (architecture, parts) in enumerate(zip(fresh, segments, strict=True)):
                chosen = {device: self._choose(alternatives, i, parts) for device, alternatives in by_device.items()}
                self._known[architecture.key] = self._verdict(parts, chosen)
        return [self._known[a.key] for a in architectures]

    def estimates(self, architecture: Architecture) -> dict[str, Estimate]:
        """Return the estimate on each device with its breakdown and the names of operators that it cannot run."""
        verdict = self.verdicts([architecture])[0]
        graph = self.space.lower(architecture, self.resolution)
        estimates_by_device = {}
        for target in self.targets:
            name = target.profile.name
            if target.predictor is None:
                estimates_by_device[name] = verdict.estimates[name]
                continue
            if verdict.precisions[name] in (target.precision, precision_of([("", graph)], target.precision)):
                form = target.predictor.form_timed(self.space.timed_as(architecture, self.resolution))
                full = target.predictor.estimate(form or graph, target.profile, target.precision, self.confidence)
                if (correction := self.corrections.get(name)) is not None:
                    full = correction.applied(full, architecture.key)
                known = verdict.estimates[name]
                estimates_by_device[name] = full if known.basis == "estimated" else replace(known, operators=full.operators)
        return estimates_by_device

    def corrected(self, device: str, correction: Correction) -> Judge:
        """Return a judge that believes what timings on a device say."""
        judge = replace(self, corrections={**self.corrections, device: correction})
        judge._known = {key: judge.revised(key, verdict, device) for key, verdict in self._known.items()}
        return judge

    def revised(self, key: str, verdict: Verdict, device: str) -> Verdict:
        """Return an architecture's verdict of before the timings on a device, as they have it."""
        estimate = self.corrections[device].applied(verdict.estimates[device], key)
        values = {**verdict.values, f"latency_ms/{device}": estimate.latency_ms}
        estimates = {**verdict.estimates, device: estimate}
        return replace(verdict, values=values, violations=self._reviolated(verdict, device, estimate), estimates=estimates)

    def _reviolated(self, verdict: Verdict, device: str, estimate: Estimate) -> dict[str, float]:
        """Return a verdict's violations with another estimate of a device."""
        violations = dict(verdict.violations)
        target = next(t for t in self.targets if t.profile.name == device)
        for budget in self.goal.budgets:
            if budget.device == device and budget.limit.quantity in ("latency", "throughput"):
                broken = budget.violation(self._held_against(budget, estimate, target))
                violations[budget.name] = max(broken, 1.0) if estimate.unsupported else broken
        return violations

    def fits(self, verdict: Verdict, device: str, end: Literal["lower_ms", "latency_ms", "upper_ms"]) -> bool:
        """Return whether every budget holds where a device's latency is judged by an end of its interval or by its central value."""
        ms: float = getattr(verdict.estimates[device], end)
        judged = replace(verdict.estimates[device], lower_ms=ms, latency_ms=ms, upper_ms=ms)
        return all(broken <= 0 for broken in self._reviolated(verdict, device, judged).values())

    def budget_of(self, device: str, quantity: str = "latency") -> Budget | None:
        """Return the budget of a device's latency or throughput, if it has one."""
        return next((b for b in self.goal.budgets if b.device == device and b.limit.quantity == quantity), None)

    def pictures(self, profile: Profile) -> int:
        """Return the pictures that pass in the time that an estimate states: those of a run, or one at full load."""
        return 1 if profile.quantity == "reciprocal_throughput" else profile.batch

    def _tabled(self, architecture: Architecture, timings_ms: Mapping[str, float]) -> Estimate:
        ms = timings_ms.get(self.space.identity(architecture))
        if ms is None:
            return Estimate(0.0, 0.0, 0.0, self.confidence, unsupported=("a network that the table lacks",))
        return Estimate(ms, ms, ms, self.confidence, "measured")

    def _estimate(self, architectures: Sequence[Architecture], segments: Sequence[Segments], target: Target) -> list[Estimate]:
        if target.predictor is None:
            return [self._tabled(architecture, target.timings_ms or {}) for architecture in architectures]
        names = [self.space.timed_as(architecture, self.resolution) for architecture in architectures]
        forms = [target.predictor.form_timed(name) for name in names]
        priced = [((name, form),) if form else parts for name, form, parts in zip(names, forms, segments, strict=True)]
        batch = target.predictor.estimate_batch(priced, target.profile, target.precision, self.confidence)
        estimates = []
        for i, name in enumerate(names):
            if timing := measured(target.profile, target.precision, name, self.confidence):
                estimates.append(timing)
                continue
            estimates.append(
                Estimate(
                    float(batch.latency_ms[i]),
                    float(batch.lower_ms[i]),
                    float(batch.upper_ms[i]),
                    self.confidence,
                    unsupported=() if batch.usable[i] else ("an operator that the device or its latency model lacks",),
                    extrapolated=("outside the calibrated range",) if batch.extrapolated[i] else (),
                )
            )
        return estimates

    def _choose(self, alternatives: Sequence[tuple[Target, list[Estimate]]], i: int, parts: Segments) -> tuple[Target, Estimate]:
        options = [(target, estimates[i]) for target, estimates in alternatives]
        for option in options:
            if all(violation <= 0 for violation in self._violations(parts, {option[0].profile.name: option}).values()):
                return option
        return min(options, key=lambda option: (bool(option[1].unsupported), option[1].upper_ms))

    def _verdict(self, parts: Segments, chosen: Mapping[str, tuple[Target, Estimate]]) -> Verdict:
        values = {f"latency_ms/{device}": estimate.latency_ms for device, (_, estimate) in chosen.items()}
        precision = next(iter(chosen.values()))[0].precision
        wanted = {objective.name.removesuffix("_bytes") for objective in self.goal.objectives if objective.name.endswith("_bytes")}
        values |= {"macs": self._total(parts, "macs", precision), "params": self._total(parts, "params", precision)}
        values |= {f"{quantity}_bytes": self._total(parts, quantity, precision) for quantity in sorted(wanted)}
        first = next(iter(chosen.values()))[0]
        bounded = {b.limit.quantity for b in self.goal.budgets if b.device == first.profile.name}
        names = {"ram": "ram_bytes", "flash": "flash_bytes", "memory": "peak_memory_bytes"}
        values |= {name: self._of_whole(parts, quantity, first) for quantity, name in names.items() if quantity in bounded}
        return Verdict(
            values,
            self._violations(parts, chosen),
            {device: estimate for device, (_, estimate) in chosen.items()},
            {device: precision_of(parts, target.precision) for device, (target, _) in chosen.items()},
            (parts[0][1].inputs[0].shape[-2], parts[0][1].inputs[0].shape[-1]),
        )

    def _violations(self, parts: Segments, chosen: Mapping[str, tuple[Target, Estimate]]) -> dict[str, float]:
        """Return the violations of the budgets that concern the `chosen` devices; ≤ 0 where a budget holds.

        An estimate that leaves an operator out says nothing, so it breaks every budget.
        """
        violations: dict[str, float] = {}
        unsupported = any(estimate.unsupported for _, estimate in chosen.values())
        precision = next(iter(chosen.values()))[0].precision
        for budget in self.goal.budgets:
            quantity = budget.limit.quantity
            if budget.device:
                if budget.device not in chosen:
                    continue
                target, estimate = chosen[budget.device]
                whole = quantity in ("memory", "ram", "flash", "drop")
                value = self._of_whole(parts, quantity, target) if whole else self._held_against(budget, estimate, target)
            else:
                value = self._total(parts, quantity, precision)
            violations[budget.name] = max(budget.violation(value), 1.0) if unsupported else budget.violation(value)
        if not self.goal.budgets:
            violations["supported"] = float(unsupported)
        return violations

    def _held_against(self, budget: Budget, estimate: Estimate, target: Target) -> float:
        """Return what of an estimate a budget of latency or throughput bounds: its worse end."""
        if budget.limit.quantity == "throughput":
            return 1e3 * self.pictures(target.profile) / max(estimate.upper_ms, 1e-9)
        return estimate.upper_ms * ((self.batch or 1) if target.profile.quantity == "reciprocal_throughput" else 1)

    def _of_whole(self, parts: Segments, quantity: str, target: Target) -> float:
        """Return the bytes of memory, RAM or flash that the whole network takes on a device, or the points of accuracy that it is likely to lose in 8 bits."""
        key = tuple(id(graph) for _, graph in parts), quantity, target.profile.name, target.precision
        if key not in self._memories:
            plan = target.profile.memory or DeviceMemory(source="lifetimes of the activations")
            whole = join(parts) if len(parts) > 1 else parts[0][1]
            if quantity == "drop":
                value = predicted_drop(whole, target.profile.runtime).drop_pct if target.precision == "w8a8" else 0.0
            elif quantity == "memory":
                value = peak_bytes(target.profile.name, whole, target.precision)
            else:
                value = (plan.ram_bytes if quantity == "ram" else plan.flash_bytes)(whole, target.precision)
            self._memories[key] = parts, value
        return self._memories[key][1]

    def _total(self, parts: Segments, quantity: str, precision: str) -> float:
        if quantity == "macs":
            return float(sum(graph.cost.macs for _, graph in parts))
        if quantity == "params":
            return float(sum(graph.cost.params for _, graph in parts))
        each = [self._bytes(graph, quantity, precision) for _, graph in parts]
        return sum(each) if quantity == "size" else max(each)

    def _bytes(self, graph: Graph, what: str, precision: str) -> float:
        # segments are cached objects: identity is the key, and the graph is kept so that an id is never used again
        key = (id(graph), what, precision)
        if key not in self._sizes:
            self._sizes[key] = graph, graph.size_bytes(precision) if what == "size" else graph.peak_memory_bytes(precision)
        return self._sizes[key][1]
