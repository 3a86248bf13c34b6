"""``nas train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli._options import Format, Seed, progress, write

if TYPE_CHECKING:
    from nas.results import Training


def command(
    architecture: Annotated[Path | None, typer.Argument(help="ARCH.json to train alone; without it, the supernet of a space.")] = None,
    data: Annotated[str, typer.Option("--data", help="Name of a data set, a folder of class folders, or a tar of one.")] = "digits",
    space: Annotated[str | None, typer.Option("--space", help="Space whose supernet is trained; default hybrid-s.", metavar="S")] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Keep so many pictures of train and validation.")] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            help="Size of the pictures: 32 or 192x256; default for a supernet the data's own, 32 to 128; for ARCH.json its own.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures a step, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="At the peak of the one-cycle schedule.")] = None,
    optimizer: Annotated[Literal["adamw", "sgd"] | None, typer.Option("--optimizer", help="Which optimiser; default adamw.")] = None,
    mixed_precision: Annotated[
        Literal["no", "bf16"] | None, typer.Option("--mixed-precision", help="Of the arithmetic; default no.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="Of a supernet: which members a step trains, what they learn from, which pictures they see (sandwich, single-path, fair, ssld, …); "
            "names joined by commas, or given several times; default sandwich,distillation.",
            metavar="R",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Checkpoint to write, or to go on with.", metavar="FILE")] = Path(
        "weights.safetensors"
    ),
    form: Format = "table",
) -> None:
    """Train a supernet, or one architecture alone; a training that was interrupted goes on. ``torchrun`` uses several processes."""
    import os

    from nas import api

    given: dict[str, object] = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "mixed_precision": mixed_precision,
    }
    if recipe:
        given["methods"] = tuple(name for names in recipe for name in names.split(","))
    with progress() as bus:
        result = api.train(
            architecture,
            data=data,
            space=space,
            images=images,
            resolution=resolution,
            seed=seed,
            out=out,
            bus=bus if os.environ.get("RANK", "0") == "0" else None,
            **{name: value for name, value in given.items() if value is not None},
        )
    if os.environ.get("RANK", "0") == "0":
        write(result, form, _print)


def _print(result: Training) -> None:
    from nas.report.tables import print_lines

    scores = ", ".join(f"{name} {value:.2f} %" for name, value in result.validation_accuracy_pct.items())
    if result.blind and result.blind.verdict:
        print_lines([result.blind.verdict])
    print_lines(
        [
            f"{result.file}: {result.kind} of {result.space} on {result.data}, {result.epochs} epochs",
            f"validation accuracy: {scores}" + (f"; {result.blind.line}" if result.blind else ""),
        ]
    )
