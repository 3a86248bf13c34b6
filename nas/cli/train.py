"""``nas train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli._options import Format, Seed, progress, write

if TYPE_CHECKING:
    from nas.results import Training


def command(
    architecture: Annotated[
        Path | None,
        typer.Argument(help="Architecture to train alone; without it, the supernet of --space is trained.", metavar="[ARCH.json]"),
    ] = None,
    data: Annotated[
        str,
        typer.Option("--data", help="Data set: digits, a folder of class folders, a .tar of one, or the archive cifar-10-binary.tar.gz."),
    ] = "digits",
    space: Annotated[
        str | None, typer.Option("--space", help="Search space whose supernet is trained; default hybrid-s.", metavar="S")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", min=1, help="Use only N pictures of train and validation together, drawn evenly from the classes; default: all."
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            help="Size of the pictures, 32 or HEIGHTxWIDTH; default: the data's own for a supernet, 32 to 128 (of trained networks 64 to 128); the architecture's own for ARCH.json.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs; default: by data and machine.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, help="Pictures in one step, over all processes; default 64 below 4,096 training pictures, else 128."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="Learning rate at the peak of the one-cycle schedule; default 0.003, of trained networks' shared weights 0.001.",
        ),
    ] = None,
    optimizer: Annotated[Literal["adamw", "sgd"] | None, typer.Option("--optimizer", help="Optimiser; default adamw.")] = None,
    mixed_precision: Annotated[
        Literal["no", "bf16"] | None,
        typer.Option("--mixed-precision", help="Arithmetic of the training: fp32 (no) or bfloat16; default no."),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="Recipe of a supernet's training, at most one name of each kind, joined by commas. Members of a step: sandwich, single-path, fair, "
            "shared-batch, progressive-shrinking, pareto or path-importance. What they learn from: distillation, ssld or labels. Pictures: "
            "efficient-train or low-resolution. Which pictures: data-importance. Whose weights: few-shot. Default single-path; of trained networks sandwich,distillation.",
            metavar="R",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Checkpoint to write; an unfinished one is continued.", metavar="FILE")] = Path(
        "weights.safetensors"
    ),
    form: Format = "table",
) -> None:
    """Train a supernet, or one architecture alone. An interrupted training continues; ``torchrun`` uses several processes."""
    import os

    from nas import api

    options: dict[str, object] = {
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "mixed_precision": mixed_precision,
    }
    if recipe:
        options["methods"] = tuple(name for names in recipe for name in names.split(","))
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
            **{name: value for name, value in options.items() if value is not None},
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
