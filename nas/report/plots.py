"""Pictures of a result, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from nas.results import Point, Ranking, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_front(path: Path, result: Result, others: Mapping[str, Sequence[Point]]) -> None:
    """Draw accuracy against latency, a panel a device, and write a PNG.

    Args:
        path: Where to; replaced in one step.
        result: With a front.
        others: Further networks by what they are, drawn behind.
    """
    _write(path, result.plot(behind=others))


def draw_chain(path: Path, blocks: Mapping[str, Sequence[str]], route: Sequence[tuple[int, int, int]]) -> None:
    """Draw of which blocks of which trained network a member is made, and write a PNG.

    Args:
        path: Where to; replaced in one step.
        blocks: For each network, from stem to head: ``whole``, another form, or nothing where the member does not run the block.
        route: (network, first block, last block) of each stretch, in order.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    longest = max(map(len, blocks.values()))
    figure = Figure(figsize=(max(6.0, 0.45 * longest + 1.5), 1.0 * len(blocks) + 0.8), layout="constrained")
    axes = figure.add_subplot()
    for row, forms in enumerate(blocks.values()):
        for i, form in enumerate(forms):
            drawn = bool(form) and form != "out"
            axes.bar(
                i,
                0.6,
                0.85,
                row - 0.3,
                color="C0" if drawn else "none",
                edgecolor="C0" if drawn else "0.7",
                alpha=0.9 if form == "whole" else 0.5,
            )
            if form not in ("", "whole"):
                axes.text(i, row, form, ha="center", va="center", rotation=90, fontsize=8)
    for (a, _, last), (b, first, _) in pairwise(route):
        axes.annotate("", (first, b), (last, a), arrowprops={"arrowstyle": "->", "color": "C3", "linewidth": 2})
    axes.set(
        xlim=(-0.7, longest - 0.3), ylim=(len(blocks) - 0.4, -0.6), yticks=range(len(blocks)), yticklabels=list(blocks), xlabel="block"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _write(path, figure)


def draw_ranking(path: Path, ranking: Ranking) -> None:
    """Draw Kendall's τ of each score and baseline with its interval and the ceiling, and the leading order against the accuracies; write a PNG.

    Args:
        path: Where to; replaced in one step.
        ranking: What is drawn.
    """
    from matplotlib.figure import Figure

    from nas.report.ranking import label_of

    every = ranking.scores | ranking.baselines
    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    bars, cloud = figure.subplots(1, 2)
    for row, (name, agreement) in enumerate(every.items()):
        if agreement.kendall is not None and agreement.kendall_interval is not None:
            low, high = agreement.kendall_interval
            bars.plot([low, high], [row, row], lw=2, color="C0" if name in ranking.scores else "0.6")
            bars.plot([agreement.kendall], [row], "o", color="C0" if name in ranking.scores else "0.4")
    if ranking.ceiling and ranking.ceiling.kendall is not None:
        bars.axvline(ranking.ceiling.kendall, color="C3", ls="--", lw=1, label="second seed")
        bars.legend()
    bars.axvline(0, color="0.8", lw=1)
    bars.set(xlabel="Kendall's tau, 90 % of resamples", yticks=range(len(every)), yticklabels=[label_of(name) for name in every])
    bars.invert_yaxis()
    first = next(iter(every))
    cloud.plot(
        [network.scores[first] for network in ranking.networks],
        [network.accuracy_pct for network in ranking.networks],
        "o",
        ms=4,
        alpha=0.6,
    )
    cloud.set(xlabel=label_of(first), ylabel="accuracy, %", title=ranking.truth)
    _write(path, figure)


def _write(path: Path, figure: Figure) -> None:
    import os

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a session that was killed here; or a link that a stranger's run holds
    FigureCanvasAgg(figure).print_figure(part, format="png", metadata={"Software": "nas"})
    os.replace(part, path)
