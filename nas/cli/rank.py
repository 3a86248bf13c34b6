"""``nas rank``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, Seed, progress, write

if TYPE_CHECKING:
    from nas.results import Ranking


def command(
    supernet: Annotated[Path, typer.Option("--supernet", help="Trained supernet (.safetensors); nas train makes one.", metavar="FILE")],
    data: Annotated[str, typer.Option("--data", help="Data set that the supernet was trained on.")] = "digits",
    space: Annotated[str, typer.Option("--space", help="Space of the supernet.", metavar="S")] = "hybrid-s",
    images: Annotated[int | None, typer.Option("--images", min=1, help="Keep so many pictures of train and validation.")] = None,
    count: Annotated[int, typer.Option("--count", "--n", "-n", help="Networks to train alone.")] = 12,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures, for each network.")] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the networks; finished ones are not trained again.")] = Path("rank"),
    form: Format = "table",
) -> None:
    """Train members alone and say how well the supernet orders them, beside parameters and MACs as baselines."""
    from nas import api

    with progress() as bus:
        result = api.rank(supernet, data=data, space=space, images=images, count=count, epochs=epochs, seed=seed, out=out, bus=bus)
    write(result, form, _print)


def _print(result: Ranking) -> None:
    from nas.report.tables import print_lines

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.2f}"

    low, high = result.kendall_interval or (None, None)
    print_lines([f"Kendall's tau over {result.n} networks trained alone"])
    print_lines([f"  supernet    {shown(result.kendall)} ({shown(low)} to {shown(high)} in 90 % of resamples)"])
    print_lines(f"  {name:<11} {shown(baseline.kendall)}" for name, baseline in result.baselines.items())
    print_lines([f"  top tenth   {shown(result.top_tenth_kendall)}"])
