"""Whether a quantised network takes longer on a device than in float, said before anyone exports it: one pair in ten does on Qualcomm's boards."""

from __future__ import annotations

from pathlib import Path

from nas.devices.predictor import Estimate, load_predictor, measured
from nas.devices.profile import Profile
from nas.graphs.graph import Graph
from nas.units import QUANTISED, Precision

FLOAT = Precision.FP16


def slower_than_float(graph: Graph, profile: Profile, precision: str, timed_as: str = "", folder: Path | None = None) -> str:
    """Return the line of a network that takes longer at a quantised precision than at fp16; empty where it does not, or nobody can say.

    Args:
        graph: Of the network, no precision fixed in it.
        profile: The device.
        precision: At which it would run.
        timed_as: Name under which the profile may have timed it.
        folder: Where the profile's file is.
    """
    if precision not in QUANTISED or FLOAT not in profile.precisions or not all(profile.at(p).predictor for p in (precision, FLOAT)):
        return ""
    quantised, floating = (_latency(graph, profile, at, timed_as, folder) for at in (precision, FLOAT))
    if quantised.unsupported or floating.unsupported or quantised.latency_ms <= floating.latency_ms:
        return ""
    how = "both timed" if quantised.basis == floating.basis != "estimated" else "estimated"
    return (
        f"{precision} takes longer than {FLOAT} on {profile.name}: {quantised.latency_ms:.3g} for {floating.latency_ms:.3g} ms, {how}. "
        f"Do this: --precision {FLOAT}, or time both."
    )


def _latency(graph: Graph, profile: Profile, precision: str, timed_as: str, folder: Path | None) -> Estimate:
    if (timing := measured(profile, precision, timed_as)) is not None:
        return timing
    predictor = load_predictor(profile, precision, folder)
    return predictor.estimate(predictor.form_timed(timed_as) or graph, profile, precision)
