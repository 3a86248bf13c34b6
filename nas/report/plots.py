"""The picture of a front, as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.results import Point, front_figure


def draw_front(path: Path, front: Sequence[Point], *, chosen: Point | None, device: str, others: Mapping[str, Sequence[Point]]) -> None:
    """Draw accuracy against latency, intervals included, and write a PNG.

    Args:
        path: Where to; replaced in one step.
        front: Of the result.
        chosen: The choice, marked.
        device: Whose latency is drawn.
        others: Further sets of points by label, drawn behind.
    """
    import os

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a session that was killed here; or a link that a stranger's run holds
    FigureCanvasAgg(front_figure(front, chosen=chosen, device=device, others=others)).print_figure(
        part, format="png", metadata={"Software": "nas"}
    )
    os.replace(part, path)
