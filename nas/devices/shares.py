"""What each segment of a network has in the latency of the whole."""

from __future__ import annotations

from collections.abc import Mapping

from nas.devices.predictor import Estimate, Predictor, Segments
from nas.devices.profile import Profile
from nas.graphs.graph import join


def shares(segments: Segments, predictor: Predictor, profile: Profile, precision: str) -> tuple[Estimate, Mapping[str, float]]:
    """Return the estimate of the whole, and the milliseconds of each segment by its label.

    Operators are priced as they stand in the whole, so what it costs to start a network is counted once, in the first segment. Where the predictor's
    breakdown does not add up to its estimate, the rest is shared out in proportion.

    Args:
        segments: Named graphs that follow one another.
        predictor: Fitted for the precision.
        profile: The device.
        precision: One of `nas.units.Precision`.
    """
    whole = predictor.estimate(join(segments), profile, precision)
    by_label = dict.fromkeys((label for label, _ in segments), 0.0)
    labels = sorted(by_label, key=len, reverse=True)
    for operator in whole.operators:
        label = next((label for label in labels if operator.name.startswith(f"{label}.")), None)
        if label is not None:
            by_label[label] += operator.latency_ms
    total = sum(by_label.values())
    scale = whole.latency_ms / total if total else 0.0
    return whole, {label: value * scale for label, value in by_label.items()}
