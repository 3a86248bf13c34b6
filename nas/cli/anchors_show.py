"""``nas anchors show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, Precision, write

if TYPE_CHECKING:
    from nas.results.listings import AnchorOverview


def command(
    network: Annotated[
        str,
        typer.Argument(
            help="Network: a name of timm or torchvision, a function FILE.py:FUNCTION, or an exported program NET.pt2.",
            metavar="NAME|FILE.py:FUNCTION|NET.pt2",
        ),
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device", "--profile", help="Device on which the segments are priced; default: none; may be given several times.", metavar="D"
        ),
    ] = None,
    precision: Precision = None,
    resolution: Annotated[
        str | None, typer.Option("--resolution", help="Size of the pictures, 224 or HEIGHTxWIDTH; default: the network's own.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weight file, or random; default: the published weights.", metavar="FILE|random")
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option("--weights-dir", help="Folder of weight files, each named like its network.", metavar="DIR")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every point, not only those between blocks.")] = False,
    form: Format = "table",
) -> None:
    """Show where a trained network can be cut: the points with their shapes, and the costs of the segments between them."""
    from nas.devices.names import find_profile
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import load_profile
    from nas.devices.shares import shares
    from nas.results.listings import AnchorOverview, SegmentCost, WholeLatency
    from nas.spaces.chain import describe, open_chain
    from nas.spaces.pretrained import open_pretrained
    from nas.units import canonical_precision, parse_resolution

    size = parse_resolution(resolution) if resolution else None
    opened = open_pretrained(network, weights=weights, folder=weights_dir, resolution=size)
    chain = open_chain(opened, size)
    segments = chain.between(range(len(chain.points))) if every else chain.blocks()
    rows = describe(segments)
    totals: dict[str, WholeLatency] = {}
    for name in device or ():
        profile = load_profile(name)
        at = canonical_precision(precision) or profile.default_precision
        predictor = load_predictor(profile, at, find_profile(name).parent)
        whole, parts = shares([(s.label, s.graph()) for s in segments], predictor, profile, at)
        key = f"{profile.name} {at}"
        totals[key] = WholeLatency.model_validate(whole, from_attributes=True).model_copy(update={"quantity": profile.quantity})
        for row, segment in zip(rows, segments, strict=True):
            row.setdefault("latency_ms", {})[key] = parts[segment.label]
    result = AnchorOverview(
        network=chain.name,
        resolution=chain.resolution,
        weights=str(opened.origin.path) if opened.origin else "fresh or the function's own",
        source=opened.origin.source if opened.origin else "",
        assigned_by=opened.assignment.by if opened.assignment else "",
        points=len(chain.points),
        devices=totals,
        segments=tuple(SegmentCost.model_validate(row) for row in rows),
    )
    write(result, form, _render)


def _render(result: AnchorOverview) -> None:
    from nas.report.tables import print_lines, print_table

    devices = list(result.devices)
    columns = ["point", "where", "shape", "axes", "reduction", "MMACs", "kparams", *(f"{device} ms" for device in devices)]
    body = [
        [
            str(row.point),
            row.label,
            "×".join(map(str, row.shape)),
            row.layout,
            f"{row.reduction:g}" if row.reduction else "",
            f"{row.macs / 1e6:.2f}",
            f"{row.params / 1e3:.1f}",
            *(f"{row.latency_ms[device]:.4f}" for device in devices),
        ]
        for row in result.segments
    ]
    print_table("", columns, body)
    height, width = result.resolution
    by = f", given by {result.assigned_by}" if result.assigned_by else ""
    source = f" ({result.source}{by})" if result.source else ""
    print_lines([f"{result.network} at {height}x{width}: {result.points} points; weights {result.weights}{source}"])
    for device, shares in result.devices.items():
        spread = f"{shares.lower_ms:.3g}–{shares.upper_ms:.3g}"
        what = "" if shares.quantity == "latency" else " a frame at full load, no latency"
        lines = [f"{device}: {shares.latency_ms:.4g} ms{what}, {shares.basis} for the whole, {spread} ms"]
        if shares.unsupported:
            lines.append(f"{device}: without {', '.join(shares.unsupported)}, which it lacks: the network does not run there as it is")
        lines += [f"{device}: extrapolated: {why}" for why in shares.extrapolated]
        print_lines(lines)
