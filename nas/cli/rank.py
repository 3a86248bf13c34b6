"""``nas rank``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli._options import Format, Seed, write


def command(
    supernet: Annotated[Path, typer.Option("--supernet", help="Trained supernet (.safetensors); nas train makes one.", metavar="FILE")],
    data: Annotated[str, typer.Option("--data", help="Data set that the supernet was trained on.")] = "digits",
    space: Annotated[str, typer.Option("--space", help="Space of the supernet.", metavar="S")] = "hybrid-s",
    images: Annotated[int | None, typer.Option("--images", min=1, help="Keep so many pictures of train and validation.")] = None,
    n: Annotated[int, typer.Option("--n", help="Networks to train alone.")] = 12,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures, for each network.")] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the networks; finished ones are not trained again.")] = Path("rank"),
    form: Format = "table",
) -> None:
    """Train members alone and say how well the supernet orders them, beside parameters and MACs as baselines."""
    from dataclasses import replace

    from nas.errors import UsageError
    from nas.events import EventBus
    from nas.report.progress import ProgressReport
    from nas.spaces.naming import get_elastic_space
    from nas.training.data.dataset import load_dataset
    from nas.training.rank import rank
    from nas.training.supernet.train import default_recipe, load_supernet

    dataset = load_dataset(data, seed=seed, images=images)
    found = get_elastic_space(space, num_classes=dataset.num_classes)
    weights = load_supernet(supernet, found)
    if weights.num_classes != dataset.num_classes:
        raise UsageError(f"rank: the supernet has {weights.num_classes} classes, got data with {dataset.num_classes}.")
    recipe = default_recipe(dataset)
    progress = ProgressReport()
    try:
        recipe = replace(recipe, epochs=epochs or recipe.epochs)
        result = rank(found, weights, dataset, out, recipe, n=n, seed=seed, bus=EventBus([progress]))
    finally:
        progress.close()
    write(result, form, _render)


def _render(result: dict[str, Any]) -> None:
    import sys

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.2f}"

    low, high = result["kendall_interval"] or (None, None)
    sys.stdout.write(f"Kendall's tau over {result['n']} networks trained alone\n")
    sys.stdout.write(f"  supernet    {shown(result['kendall'])} ({shown(low)} to {shown(high)} in 90 % of resamples)\n")
    for name, baseline in result["baselines"].items():
        sys.stdout.write(f"  {name:<11} {shown(baseline['kendall'])}\n")
    sys.stdout.write(f"  top tenth   {shown(result['top_tenth_kendall'])}\n")
