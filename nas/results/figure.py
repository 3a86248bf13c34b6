"""The picture of a front: accuracy against latency, a panel a device, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 40
"""Of labels that a panel is high. Set by hand."""


class Mark(NamedTuple):
    """A network of a panel: its label (``""`` for none), its latency or throughput with both ends, lower first, and its accuracy in percent."""

    label: str
    value: float
    lower: float
    upper: float
    accuracy_pct: float


class Panel(NamedTuple):
    """What is drawn of one device.

    Attributes:
        device: Its name.
        unit: ``ms`` or ``fps``.
        basis: How the front's latencies are known, in words.
        budget: In `unit`; None where there is none.
        front: Its networks.
        chosen: The choice, where there is one.
        behind: Further networks by what they are.
    """

    device: str
    unit: str
    basis: str
    budget: float | None
    front: Sequence[Mark]
    chosen: Mark | None
    behind: Mapping[str, Sequence[Mark]]


def front_figure(title: str, accuracy: str, panels: Sequence[Panel]) -> Figure:
    """Return accuracy against latency as a figure: all networks, the front's with their names and intervals, the choice and the budget.

    Args:
        title: Of the figure; ``""`` for none.
        accuracy: What the accuracies are, such as ``top-1, %``.
        panels: One a device.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        from nas.errors import UsageError

        raise UsageError("plot: matplotlib is not installed. Do this: pip install matplotlib.") from None
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9 if columns == 1 else 8 * columns, 5.4 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, several=len(panels) > 1)
        axes.set_ylabel(accuracy)
    for axes in list(grid)[len(panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(fill(title, 100 * columns), fontsize=11)
    return figure


def _draw(axes: Axes, panel: Panel, *, several: bool) -> None:
    for i, (label, marks) in enumerate(panel.behind.items()):
        xs, ys = [mark.value for mark in marks], [mark.accuracy_pct for mark in marks]
        axes.plot(xs, ys, "o", ms=3.5, color=("0.75", "#c5b0d5", "#9edae5")[i % 3], label=label)
    front = sorted(panel.front, key=lambda mark: mark.value)
    spread = [[mark.value - mark.lower for mark in front], [mark.upper - mark.value for mark in front]]
    xs, ys = [mark.value for mark in front], [mark.accuracy_pct for mark in front]
    axes.errorbar(xs, ys, xerr=spread, fmt="o-", ms=5, lw=1, elinewidth=0.8, capsize=2, color="C0", label="front, with intervals")
    if panel.chosen is not None:
        axes.plot([panel.chosen.value], [panel.chosen.accuracy_pct], "*", ms=15, color="C3", label="choice")
    if panel.budget is not None:
        axes.axvline(panel.budget, color="C3", lw=1, ls="--", label=f"budget {panel.budget:g} {panel.unit}")
    axes.set_xscale("log")
    _write_labels(axes, [mark for mark in front if mark.label], panel.chosen)
    quantity = "latency" if panel.unit == "ms" else "throughput"
    axes.set_xlabel(f"{quantity} on {panel.device}, {panel.unit} ({panel.basis})")
    if several:
        axes.set_title(panel.device, fontsize=10)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="lower right")


def _write_labels(axes: Axes, front: Sequence[Mark], chosen: Mark | None) -> None:
    """Write each network's name on the left of its interval, where a front has nothing, and make room for it."""
    from matplotlib.patheffects import withStroke

    positive = [end for mark in front for end in (mark.lower, mark.value) if end > 0]
    if not positive:
        return
    low, high = axes.get_xlim()
    room = min(0.35, 0.009 * max(len(mark.label) for mark in front))  # of the panel's width
    axes.set_xlim(min(low, min(positive) * (min(positive) / high) ** (room / (1 - room))), high)
    for mark in front:
        axes.annotate(
            mark.label,
            (max(mark.lower, min(positive)), mark.accuracy_pct),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7.5,
            fontweight="bold" if chosen is not None and mark == chosen else "normal",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
