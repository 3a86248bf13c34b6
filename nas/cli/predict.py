"""``nas predict``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli._options import Confidence, Device, Format, Precision, checked_confidence, write


def command(
    network: Annotated[
        str, typer.Argument(help="ARCH.json, MODEL.onnx or the name of a published network.", metavar="ARCH.json|MODEL.onnx|REFERENCE")
    ],
    device: Device,
    precision: Precision = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Show the share of every operator.")] = False,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Of an architecture's input: 224 or 192x256.")] = None,
    confidence: Confidence = 0.9,
    form: Format = "table",
) -> None:
    """Estimate how long a network takes on a device, with an interval; a device's own timing is shown where there is one."""
    from nas.devices.predictor import load_predictor, measured
    from nas.devices.profile import find_profile, load_profile
    from nas.errors import UsageError
    from nas.searching.judge import precision_of
    from nas.spaces.network import load_network
    from nas.units import parse_resolution

    coverage = checked_confidence(confidence)
    size = parse_resolution(resolution) if resolution else None
    profile = load_profile(device)
    found = load_network(network, size)
    fixed = {p for p in found.graph.precisions if p}
    chosen = precision or (next(iter(fixed)) if len(fixed) == 1 else profile.default_precision)
    at = profile.at(chosen)
    predictor = load_predictor(profile, chosen, find_profile(device).parent)
    if fixed - {chosen} and not predictor.prices_mixed:
        said = ", ".join(sorted(fixed))
        raise UsageError(f"predict {found.name}: fixes {said}, and the latency model of {profile.name} prices one precision at a time.")
    estimate = predictor.estimate(predictor.form_timed(found.timed_as) or found.graph, profile, chosen, coverage)
    result: dict[str, Any] = {
        "network": found.name,
        "device": profile.name,
        "precision": precision_of([("", found.graph)], chosen),
        "runtime": profile.runtime,
        "quantity": profile.quantity,
        "batch": profile.batch,
        "latency_ms": estimate.latency_ms,
        "lower_ms": estimate.lower_ms,
        "upper_ms": estimate.upper_ms,
        "confidence": estimate.confidence,
        "basis": estimate.basis,
        "extrapolated": bool(estimate.extrapolated),
        "extrapolated_why": list(estimate.extrapolated),
        "unsupported": list(estimate.unsupported),
        "macs": found.graph.cost.macs,
        "params": found.graph.cost.params,
        "operators": [{"name": op.name, "op": op.op, "latency_ms": op.latency_ms} for op in estimate.operators],
    }
    if timing := measured(at, found.timed_as, coverage):
        result |= {"latency_ms": timing.latency_ms, "lower_ms": timing.lower_ms, "upper_ms": timing.upper_ms, "basis": timing.basis}
        result["repeats_within_pct"] = at.repeats_within_pct
        result["estimated"] = {"latency_ms": estimate.latency_ms, "lower_ms": estimate.lower_ms, "upper_ms": estimate.upper_ms}
    write(result, form, lambda data: _render(data, breakdown))


def _render(result: dict[str, Any], breakdown: bool) -> None:
    from nas.devices.predictor import TYPICAL_REPEATS_PCT
    from nas.report.tables import print_lines, print_table

    what = "latency" if result["quantity"] == "latency" else "time a frame at full load (throughput, not latency)"
    spread = f"{result['lower_ms']:.3g}–{result['upper_ms']:.3g} ms at {100 * result['confidence']:.0f} %"
    head = f"{result['network']} on {result['device']} {result['precision']} ({result['runtime']}, batch {result['batch']})"
    print_lines([f"{head}: {what} {result['latency_ms']:.4g} ms {result['basis']}, {spread}"])
    if "estimated" in result:
        if not result["repeats_within_pct"]:
            print_lines([f"repeats on this device are not known: {TYPICAL_REPEATS_PCT:g} % is taken for the usual difference of two"])
        model = result["estimated"]
        print_lines([f"the model alone would say {model['latency_ms']:.3g} ms, {model['lower_ms']:.3g}–{model['upper_ms']:.3g} ms"])
    print_lines([f"{result['macs'] / 1e6:,.0f} MMACs, {result['params'] / 1e6:.2f} M parameters"])
    if result["unsupported"]:
        print_lines([f"NOT counted, as the device or its model lacks them: {', '.join(result['unsupported'])}"])
    if result["extrapolated"]:
        print_lines([f"outside what was calibrated: {'; '.join(result['extrapolated_why'])}"])
    if not breakdown:
        return
    total = sum(op["latency_ms"] for op in result["operators"]) or 1.0
    kinds: dict[str, list[float]] = {}
    for op in result["operators"]:
        kinds.setdefault(op["op"], []).append(op["latency_ms"])
    ranked = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [[kind, str(len(ms)), f"{sum(ms):.4f}", f"{100 * sum(ms) / total:.1f}"] for kind, ms in ranked]
    print_table("by kind of operator", ["operator", "count", "ms", "%"], rows)
    rows = [[op["name"], op["op"], f"{op['latency_ms']:.4f}", f"{100 * op['latency_ms'] / total:.1f}"] for op in result["operators"]]
    print_table("in order", ["name", "operator", "ms", "%"], rows)
