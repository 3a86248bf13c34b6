"""``nas devices suggest``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Base, Format, Precision, write

if TYPE_CHECKING:
    from nas.graphs.graph import Graph
    from nas.results.listings import Suggestion

_BUILT_BY = frozenset({"timm", "torchvision", "references"})
"""Libraries whose networks are suggested: classifiers that a user can build with weights."""


def command(
    name: Annotated[str, typer.Argument(help="Name that the new device will have.", metavar="NAME")],
    count: Annotated[int, typer.Option(min=1, max=100, help="How many networks to suggest.")] = 10,
    base: Base = "sa8295p",
    precision: Precision = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the networks as .onnx files with random weights, and for a timings.csv to fill in; default: only print the names.",
            metavar="DIR",
        ),
    ] = None,
    max_mparams: Annotated[float, typer.Option(min=0.1, help="Suggest no larger network, in millions of parameters.")] = 40.0,
    form: Format = "table",
) -> None:
    """Suggest the networks whose timings tell most about a new device, and write them as files to time."""
    from nas.devices.names import find_profile
    from nas.devices.new_device import check_base
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import read_profile
    from nas.graphs import workloads
    from nas.results.listings import SuggestedNetwork, Suggestion
    from nas.units import canonical_precision

    file = find_profile(base)
    profile = read_profile(file)
    chosen = canonical_precision(precision) or profile.default_precision
    check_base(profile, chosen)
    predictor = load_predictor(profile, chosen, file.parent)
    known = [(n, workloads.describe(n)) for n in workloads.names()]
    small = [n for n, w in known if w.library in _BUILT_BY and w.params <= max_mparams * 1e6 and w.input[-1] <= 256]
    images = {n: workloads.load(n) for n in small if len(workloads.describe(n).input) == 4}
    priced = {n: g for n, g in images.items() if not predictor.estimate(g, profile, chosen).unsupported}
    names = list(predictor.choose_informative(priced, profile, chosen, count))
    expected = {n: predictor.estimate(priced[n], profile, chosen).latency_ms for n in names}
    if to is not None:
        _write_out(to, {n: priced[n] for n in names}, chosen)
    costs = {n: priced[n].cost for n in names}
    result = Suggestion(
        name=name,
        base=base,
        precision=chosen,
        networks=tuple(
            SuggestedNetwork(name=n, macs=cost.macs, params=cost.params, base_latency_ms=expected[n]) for n, cost in costs.items()
        ),
        written_to=str(to) if to else None,
        next=f"nas devices calibrate {name} --from {to / 'timings.csv' if to else 'timings.csv'} --base {base}",
    )
    write(result, form, _render)


def _write_out(folder: Path, graphs: Mapping[str, Graph], precision: str) -> None:
    import numpy as np

    from nas.errors import ArtifactError
    from nas.graphs.onnx_writer import write_onnx

    table = folder / "timings.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if table.exists():
            raise ArtifactError(f"suggest: the file exists, got {str(table)!r}. Do this: name another folder.")
        for name, graph in graphs.items():
            write_onnx(graph, folder / f"{name}.onnx", np.random.default_rng(0))
        table.write_text("network,latency_ms,precision\n" + "".join(f"{name},,{precision}\n" for name in graphs), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"suggest: cannot write to {folder} ({error.strerror}).") from None


def _render(result: Suggestion) -> None:
    from nas.report.tables import print_lines, print_table

    rows = [[n.name, f"{n.macs / 1e9:.2f}", f"{n.params / 1e6:.1f}", f"{n.base_latency_ms:.2f}"] for n in result.networks]
    print_table("", ["network", "GMACs", "Mparams", f"ms on {result.base}"], rows)
    print_lines([*([f"written to {result.written_to}"] if result.written_to else []), f"then: {result.next}"])
