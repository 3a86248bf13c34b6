"""``nas rank``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, Precision, Seed, device_names, known_devices, progress, write

if TYPE_CHECKING:
    from nas.results import Ranking


def command(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Finished run whose scores are judged, on members within its budgets; its report then says so. Default: none, and the options say what.",
            metavar="[RUN]",
        ),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(
            "--supernet",
            help="Trained supernet (.safetensors), as nas train writes it, whose scores are judged; default: baselines only.",
            metavar="FILE",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Data set of the training and of the supernet: digits, a folder of class folders, a .tar of one, or the archive cifar-10-binary.tar.gz; default digits.",
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Search space from which networks are drawn; default: hybrid-s.", metavar="S")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", min=1, help="Use only N pictures of train and validation together, drawn evenly from the classes; default: all."
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", help="Size of the pictures, 32 or HEIGHTxWIDTH; default: the supernet's, or the data's own."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "--n", "-n", help="How many networks are compared.")] = 12,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs for each network; default: by data and machine.")] = None,
    ceiling: Annotated[
        int,
        typer.Option(
            "--ceiling",
            min=0,
            help="Train N of the networks again with another seed. How well the two trainings agree is the most that a score can reach; default 0.",
            metavar="N",
        ),
    ] = 0,
    known: Annotated[
        int,
        typer.Option(
            "--known",
            min=0,
            help="Calibrate all scores on N of the networks and predict the others' accuracies with intervals; at least 5; default: no calibration.",
            metavar="N",
        ),
    ] = 0,
    table: Annotated[
        Path | None, typer.Option("--table", help="Table of known accuracies (.npz) that replaces the training.", metavar="FILE")
    ] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column of the table's accuracies.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "--profile",
            help="Device whose estimated latency serves as a baseline; may be given several times.",
            metavar="D",
            autocompletion=device_names,
        ),
    ] = None,
    precision: Precision = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the result, the plot and the trained networks, which a second run uses again; default: rank, in RUN if given.",
        ),
    ] = None,
    form: Format = "table",
) -> None:
    """Measure how well scores order networks by their true accuracy, which comes from training each alone or from a table.

    A supernet's scores are compared with baselines that cost next to nothing: parameters, multiply-adds, latency and a vote of training-free scores.
    """
    from nas import api

    devices = known_devices(device or [])
    with progress() as bus:
        result = api.rank(
            run,
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
