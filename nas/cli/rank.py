"""``nas rank``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, Precision, Seed, device_names, known_devices, progress, write

if TYPE_CHECKING:
    from nas.results import Ranking


def command(
    supernet: Annotated[
        Path | None,
        typer.Option(
            "--supernet",
            help="Trained supernet (.safetensors) whose scores are judged; nas train makes one. Without it the baselines alone.",
            metavar="FILE",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set of the training, and of the supernet; default digits where something is trained.")
    ] = None,
    space: Annotated[str, typer.Option("--space", help="Space whose members are drawn.", metavar="S")] = "hybrid-s",
    images: Annotated[int | None, typer.Option("--images", min=1, help="Keep so many pictures of train and validation.")] = None,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", help="Size of the pictures: 32 or 192x256; default the supernet's, or the data's own."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "--n", "-n", help="Networks.")] = 12,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures, for each network.")] = None,
    ceiling: Annotated[
        int,
        typer.Option(
            "--ceiling",
            min=0,
            help="Train so many of them with a second seed: how well that orders them is the most to hope for.",
            metavar="N",
        ),
    ] = 0,
    known: Annotated[
        int,
        typer.Option(
            "--known",
            min=0,
            help="Let so many of them calibrate all scores together; each other one gets an accuracy with an interval. At least 9.",
            metavar="N",
        ),
    ] = 0,
    table: Annotated[
        Path | None, typer.Option("--table", help="Known accuracies (.npz) in place of training alone.", metavar="FILE")
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Which accuracy of the table.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "--profile",
            help="Device whose estimated latency is a baseline; may be given several times.",
            metavar="D",
            autocompletion=device_names,
        ),
    ] = None,
    precision: Precision = None,
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the result, a plot and the networks; what was trained once is not trained again.")
    ] = Path("rank"),
    form: Format = "table",
) -> None:
    """Say how well scores order networks whose accuracy is known: trained alone, or by a table.

    Beside a supernet's scores stand baselines that cost next to nothing: parameters, multiply-adds, latency and a vote of training-free scores.
    """
    from nas import api

    devices = known_devices(device or [])
    with progress() as bus:
        result = api.rank(
            supernet=supernet,
            data=data,
            space=space,
            images=images,
            resolution=resolution,
            count=count,
            epochs=epochs,
            ceiling=ceiling,
            known=known,
            table=table,
            column=column,
            device=devices,
            precision=precision,
            seed=seed,
            out=out,
            bus=bus,
        )
    write(result, form, _print)


def _print(result: Ranking) -> None:
    from nas.report.ranking import print_ranking

    print_ranking(result)
