"""``nas predict``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Confidence, Devices, Dims, Format, InputShapes, Precision, sizes, write

if TYPE_CHECKING:
    from nas.results import Estimate


def command(
    network: Annotated[
        str, typer.Argument(help="ARCH.json, MODEL.onnx or the name of a published network.", metavar="ARCH.json|MODEL.onnx|REFERENCE")
    ],
    device: Devices,
    precision: Precision = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show the share of every operator.")] = False,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Of an architecture's input: 224 or 192x256.")] = None,
    input_shape: InputShapes = None,
    dim: Dims = None,
    confidence: Confidence = 0.9,
    form: Format = "table",
) -> None:
    """Estimate how long a network takes on a device, with an interval; a device's own timing is shown where there is one."""
    from nas import api

    given = sizes(input_shape, dim)
    found = [
        api.predict(network, name, precision=precision, resolution=resolution, confidence=confidence, **given)
        for name in dict.fromkeys(device)
    ]

    def show(_: object) -> None:
        for result in found:
            _print(result, breakdown)

    write(found if len(found) > 1 else found[0], form, show)


def _print(result: Estimate, breakdown: bool) -> None:
    from nas.devices.predictor import TYPICAL_REPEATS_PCT
    from nas.report.tables import print_lines

    what = "latency" if result.quantity == "latency" else "time a frame at full load (throughput, not latency)"
    spread = f"{result.lower_ms:.3g}–{result.upper_ms:.3g} ms at {100 * result.confidence:.0f} %"
    head = f"{result.network} on {result.device} {result.precision} ({result.runtime}, batch {result.batch})"
    grade = f", grade {result.grade}" if result.grade and (result.basis == "estimated" or result.estimated) else ""
    print_lines([f"{head}: {what} {result.latency_ms:.4g} ms {result.basis}, {spread}{grade if result.basis == 'estimated' else ''}"])
    if model := result.estimated:
        if not result.repeats_within_pct:
            print_lines([f"repeats on this device are not known: {TYPICAL_REPEATS_PCT:g} % is taken for the usual difference of two"])
        print_lines([f"the model alone would say {model.latency_ms:.3g} ms, {model.lower_ms:.3g}–{model.upper_ms:.3g} ms{grade}"])
    print_lines([f"{result.macs / 1e6:,.0f} MMACs, {result.params / 1e6:.2f} M parameters"])
    if result.ram_bytes is not None and result.flash_bytes is not None:
        print_lines(
            [
                f"{result.ram_bytes / 1e6:.2f} MB of RAM for activations, {result.flash_bytes / 1e6:.2f} MB of flash for weights, as planned here"
            ]
        )
    print_lines(_remarks(result))
    if breakdown:
        _print_breakdown(result)


def _remarks(result: Estimate) -> list[str]:
    """Return what must be known of the figures, a line each."""
    lines = []
    if len(result.precisions) > 1:
        lines.append("operators " + ", ".join(f"at {precision}: {count}" for precision, count in result.precisions.items()))
    if added := result.input_normalisation_ms:
        said = (
            "is in these figures" if result.input_normalised else "is not in these figures, which are those of the network as it is given"
        )
        lines.append(f"the device's tables time networks that normalise their image: {added:.3g} ms, which {said}")
    if result.unsupported:
        lines.append(f"NOT in these figures, as the device or its model lacks them: {', '.join(result.unsupported)}")
    if result.unchecked:
        lines.append(f"unknown on this device, priced all the same: {', '.join(result.unchecked)}")
    if (drop := result.int8_drop_pct) is not None:
        lines.append(
            f"int8 is likely to cost {drop:.1f} points of accuracy, up to {result.int8_drop_upper_pct:.1f} at 90 %, by the graph alone"
        )
    if result.grade == "D" and result.basis == "estimated":
        remedy = f"nas devices calibrate NAME --from timings.csv --base {result.device}"
        lines.append(f"grade D: {result.device} has no model of its own that errs by less than 35 %. Do this: {remedy}")
    if result.extrapolated:
        lines.append(f"outside what was calibrated: {'; '.join(result.extrapolated_why)}")
    return lines + list(result.notices)


def _print_breakdown(result: Estimate) -> None:
    from nas.report.tables import print_table

    total = sum(op.latency_ms for op in result.operators) or 1.0
    kinds: dict[str, list[float]] = {}
    for op in result.operators:
        kinds.setdefault(op.op, []).append(op.latency_ms)
    ranked = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [[kind, str(len(ms)), f"{sum(ms):.4f}", f"{100 * sum(ms) / total:.1f}"] for kind, ms in ranked]
    print_table("by kind of operator", ["operator", "count", "ms", "%"], rows)
    rows = [[op.name, op.op, f"{op.latency_ms:.4f}", f"{100 * op.latency_ms / total:.1f}"] for op in result.operators]
    print_table("in order", ["name", "operator", "ms", "%"], rows)
