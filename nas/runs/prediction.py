"""How long a network takes on a device: by a model's word, or by the device's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nas.devices.predictor import load_predictor, measured
from nas.devices.profile import find_profile, load_profile
from nas.errors import ArtifactError, UsageError
from nas.graphs.graph import Graph
from nas.results import Estimate, Interval, Measurement, OperatorShare
from nas.searching.judge import precision_of
from nas.spaces.network import Network, load_network
from nas.units import parse_resolution

if TYPE_CHECKING:
    from torch import nn

    from nas.devices.measure import LocalDevice
    from nas.devices.measure import Measurement as Timings


def predict_network(
    network: str | Path | nn.Module | Graph,
    device: str,
    *,
    precision: str | None = None,
    resolution: str | int | None = None,
    input_shape: Sequence[int] | None = None,
    confidence: float = 0.9,
) -> Estimate:
    """Estimate how long a network takes on a device; see `nas.api.predict`."""
    profile = load_profile(device)
    subject = _subject(network, resolution, input_shape)
    fixed = {p for p in subject.graph.precisions if p}
    chosen = precision or (next(iter(fixed)) if len(fixed) == 1 else profile.default_precision)
    at = profile.at(chosen)
    predictor = load_predictor(profile, chosen, find_profile(device).parent)
    if fixed - {chosen} and not predictor.prices_mixed:
        said = ", ".join(sorted(fixed))
        raise UsageError(f"predict {subject.name}: fixes {said}, and the latency model of {profile.name} prices one precision at a time.")
    estimate = predictor.estimate(predictor.form_timed(subject.timed_as) or subject.graph, profile, chosen, confidence)
    timing = measured(at, subject.timed_as, confidence)
    shown = timing or estimate
    found = Estimate(
        network=subject.name,
        device=profile.name,
        precision=precision_of([("", subject.graph)], chosen),
        runtime=profile.runtime,
        quantity=profile.quantity,
        batch=profile.batch,
        latency_ms=shown.latency_ms,
        lower_ms=shown.lower_ms,
        upper_ms=shown.upper_ms,
        confidence=estimate.confidence,
        basis=shown.basis,
        extrapolated=bool(estimate.extrapolated),
        extrapolated_why=estimate.extrapolated,
        unsupported=estimate.unsupported,
        macs=subject.graph.cost.macs,
        params=subject.graph.cost.params,
        operators=tuple(OperatorShare(name=op.name, op=op.op, latency_ms=op.latency_ms) for op in estimate.operators),
    )
    if timing is None:
        return found
    alone = Interval(latency_ms=estimate.latency_ms, lower_ms=estimate.lower_ms, upper_ms=estimate.upper_ms)
    return found.model_copy(update={"repeats_within_pct": at.repeats_within_pct, "estimated": alone})


def _subject(network: str | Path | nn.Module | Graph, resolution: str | int | None, input_shape: Sequence[int] | None) -> Network:
    if isinstance(network, str | Path):
        if input_shape is not None:
            raise UsageError(f"predict: input_shape belongs to a module, got {input_shape} for {network}. Do this: leave it out.")
        return load_network(str(network), parse_resolution(str(resolution)) if resolution else None)
    if resolution is not None:
        raise UsageError("predict: resolution belongs to an architecture. Do this: input_shape=(1, 3, 224, 224) for a module.")
    if isinstance(network, Graph):
        return Network(network.name or "graph", network)
    if input_shape is None:
        raise UsageError("predict: a module needs the shape of its input. Do this: input_shape=(1, 3, 224, 224).")
    from nas.graphs.frontends.torch_module import trace_module
    from nas.spaces.operator_family import fuse

    name = type(network).__name__
    return Network(name, trace_module(fuse(network), tuple(input_shape), name))


def measure_network(network: str, device: str, *, runner: str, threads: int, resolution: str | int | None) -> Measurement:
    """Time a network; see `nas.api.measure`."""
    from nas.devices.measure import measure_graph, measure_onnx, measure_with_runner

    if not runner and device not in ("local-cpu", "local-cuda"):
        raise UsageError(
            f"device: cannot be measured from here, got {device!r}. Expected local-cpu or local-cuda, or do this: --runner 'CMD {{onnx}}'."
        )

    def timed(path: Path) -> Timings:
        return measure_with_runner(path, runner) if runner else measure_onnx(path, cast("LocalDevice", device), threads=threads)

    if network.endswith(".onnx"):
        if not Path(network).is_file():
            raise ArtifactError(f"measure: no such file, got {network!r}.")
        timings = timed(Path(network))
    else:
        timings = measure_graph(load_network(network, parse_resolution(str(resolution)) if resolution else None).graph, timed)
    return Measurement(**timings.to_json(), network=network)
