"""Published networks whose operators are like those of another: what to time to know its latency better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from nas.devices.predictor import OperatorLatency, Predictor
from nas.devices.profile import Profile
from nas.graphs import workloads

WIDE = 3.0
"""An interval of ×/÷ more than this says why. Set by hand."""

_PRICED = 16
"""How many families are looked at, those whose network is nearest in multiply-adds: pricing one takes some twenty milliseconds.
Set by hand."""

_BUILT_BY = frozenset({"timm", "torchvision", "references"})


def shares_of(operators: Iterable[OperatorLatency]) -> dict[str, float]:
    """Return the share of an estimate that each kind of operator takes."""
    sums: dict[str, float] = {}
    for op in operators:
        sums[op.op] = sums.get(op.op, 0.0) + op.latency_ms
    total = sum(sums.values()) or 1.0
    return {kind: ms / total for kind, ms in sums.items()}


def networks_alike(
    shares: Mapping[str, float], macs: int, predictor: Predictor, profile: Profile, precision: str, count: int = 3
) -> list[str]:
    """Return published networks that the device has not timed whose time goes into the same operators, the most alike first.

    Args:
        shares: Of the network by kind of operator; see `shares_of`.
        macs: Its multiply-adds; of the families that are nearest to it the nearest network of each is looked at.
        predictor: Of the device.
        profile: The device.
        precision: At which it runs.
        count: How many.
    """
    timed = profile.at(precision).timings_ms
    nearest: dict[str, tuple[float, str]] = {}
    for name in workloads.names():
        workload = workloads.describe(name)
        if workload.library in _BUILT_BY and name not in timed and len(workload.input) == 4:
            apart = abs(math.log(max(workload.macs, 1) / max(macs, 1)))
            nearest[workload.family] = min(nearest.get(workload.family, (apart, name)), (apart, name))
    ranked = []
    for _, name in sorted(nearest.values())[:_PRICED]:
        estimate = predictor.estimate(predictor.form_timed(name) or workloads.load(name), profile, precision)
        if not estimate.unsupported:
            theirs = shares_of(estimate.operators)
            ranked.append((sum(abs(shares.get(kind, 0.0) - theirs.get(kind, 0.0)) for kind in {*shares, *theirs}), name))
    return [name for _, name in sorted(ranked)[:count]]
