"""``nas spaces sample``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, Seed, write

if TYPE_CHECKING:
    from nas.results.listings import Sample


def command(
    space: Annotated[str, typer.Argument(help="Name of a space, with its preset: hybrid-s.", metavar="S")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many architectures to draw.")] = 1,
    seed: Seed = 0,
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Size of the pictures, 224 or HEIGHTxWIDTH; default: the architecture's own.")
    ] = None,
    form: Format = "table",
) -> None:
    """Draw architectures at random. With ``--format json`` a single one can be saved and given to ``nas predict`` and ``nas export``."""
    import numpy as np

    from nas.results import Genotype
    from nas.results.listings import Sample
    from nas.spaces.naming import get_space
    from nas.units import parse_resolution

    chosen = get_space(space)
    size = parse_resolution(resolution) if resolution else None
    rng = np.random.default_rng(seed)
    rows: list[Sample] = []
    for _ in range(count):
        architecture = chosen.sample(rng)
        graph = chosen.lower(architecture, size)
        height, width = graph.inputs[0].shape[-2:]
        cost = graph.cost
        rows.append(
            Sample(
                architecture=Genotype(space=architecture.space, version=architecture.version, genes=architecture.genes),
                key=architecture.key,
                macs=cost.macs,
                params=cost.params,
                resolution=f"{height}x{width}",
            )
        )
    write(rows[0].architecture if count == 1 and form == "json" else rows, form, _render)


def _render(rows: list[Sample]) -> None:
    from nas.report.tables import print_table

    body = [
        [row.key, f"{row.macs / 1e6:,.0f}", f"{row.params / 1e6:.2f}", row.resolution, json.dumps(row.architecture.genes)] for row in rows
    ]
    print_table("", ["key", "MMACs", "Mparams", "resolution", "genes"], body)
