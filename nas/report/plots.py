"""The picture of a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Point = Mapping[str, Any]


def draw_front(
    path: Path, front: Sequence[Point], *, chosen: Point | None, device: str, budget_ms: float | None, others: Mapping[str, Sequence[Point]]
) -> None:
    """Draw accuracy against latency, intervals included, and write a PNG.

    Args:
        path: Where to; replaced in one step.
        front: Points as in ``results.json``.
        chosen: The choice, marked.
        device: Whose latency is drawn.
        budget_ms: Drawn as a line.
        others: Further sets of points by label, drawn behind.
    """
    import os

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for label, points in others.items():
        xs = [p["devices"][device]["latency_ms"] for p in points]
        axes.plot(xs, [compared_accuracy_pct(p) for p in points], "s", ms=3.5, color="0.65", label=label)
    ordered = sorted(front, key=lambda p: float(p["devices"][device]["latency_ms"]))
    xs = [p["devices"][device]["latency_ms"] for p in ordered]
    ys = [compared_accuracy_pct(p) for p in ordered]
    low = [p["devices"][device]["latency_ms"] - p["devices"][device]["lower_ms"] for p in ordered]
    high = [p["devices"][device]["upper_ms"] - p["devices"][device]["latency_ms"] for p in ordered]
    axes.errorbar(xs, ys, xerr=[low, high], fmt="o-", ms=5, lw=1, elinewidth=0.8, capsize=2, color="C0", label="front, with intervals")
    if chosen is not None:
        axes.plot([chosen["devices"][device]["latency_ms"]], [compared_accuracy_pct(chosen)], "*", ms=15, color="C3", label="choice")
    if budget_ms is not None:
        axes.axvline(budget_ms, color="C3", lw=1, ls="--", label=f"budget {budget_ms:g} ms")
    bases = {p["devices"][device]["basis"] for p in [*front, *(q for points in others.values() for q in points)]}
    axes.set_xlabel(f"latency on {device}, ms ({' or '.join(sorted(bases)) or 'estimated'})")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_xscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    part = path.with_name(f".{path.name}.part")
    FigureCanvasAgg(figure).print_figure(part, format="png", metadata={"Software": "nas"})
    os.replace(part, path)


def compared_accuracy_pct(point: Point) -> float:
    """Return the accuracy by which a search compared a point: on validation, else published; in percent."""
    supernet = point["supernet_accuracy_pct"]
    return float(point["accuracy_pct"] if supernet is None else supernet)
