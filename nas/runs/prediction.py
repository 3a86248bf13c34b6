"""How long a network takes on a device: by a model's word, or by the device's own."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from nas.devices.alike import WIDE, networks_alike, shares_of
from nas.devices.names import find_profile
from nas.devices.new_device import calibrate_command
from nas.devices.peak_memory import peak_memory
from nas.devices.placement import placement
from nas.devices.predictor import Estimate as Priced
from nas.devices.predictor import Predictor, batch_of, estimate_hash, for_batch, load_predictor, measured
from nas.devices.profile import PrecisionProfile, Profile, load_profile
from nas.devices.slower import slower_than_float
from nas.devices.twins import remarks
from nas.errors import ArtifactError, NasError, UsageError
from nas.graphs.features import SIZES, backbone, resized
from nas.graphs.graph import Graph
from nas.graphs.images import with_normalisation
from nas.graphs.operators import Shape
from nas.quantisation.risk import predicted_drop
from nas.results import Estimate, Measurement, Modelled, OperatorShare, Placement, Unpriced
from nas.runs.budgets import Judged, check_budgets, read_budgets
from nas.runs.comparison import compared
from nas.searching.judge import precision_of
from nas.searching.objective import Budget
from nas.spaces.network import Network, load_network
from nas.units import Precision, parse_resolution

if TYPE_CHECKING:
    from torch import nn

    from nas.devices.measure import LocalDevice
    from nas.devices.measure import Measurement as Timings


Task = Literal["classes", "features"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How networks are to be priced.

    Attributes:
        precision: For what a network leaves open; None for the device's own.
        confidence: Nominal coverage of the intervals.
        budgets: As `nas.runs.budgets.read_budgets` takes them.
        on: What of an estimate is held against them.
        profile_hash: Hashes that the devices' profiles must have, as ``HASH`` or ``device:HASH``; none to take them as they are.
    """

    precision: str | None = None
    confidence: float = 0.9
    budgets: tuple[str, ...] = ()
    on: Judged = "upper"
    profile_hash: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """How networks are to be read.

    Attributes:
        resolution: Of an architecture's input.
        input_shape: Of a module's input.
        input_shapes: Of a model file's inputs by name.
        dims: Values of a model file's symbolic sizes by name.
        task: ``classes`` for a network as it is, ``features`` for its maps at strides 4 to 32, as detectors and segmenters take them.
    """

    resolution: str | int | None = None
    input_shape: Sequence[int] | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    task: Task = "classes"

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise UsageError(f"task: unknown, got {self.task!r}. Expected {' or '.join(get_args(Task))}.")
        if self.resolution is not None:
            parse_resolution(str(self.resolution))

    def read(self, network: str | Path | nn.Module | Graph) -> Network:
        """Return the network that a user means."""
        if self.task == "classes":
            return _subject(network, self.resolution, self.input_shape, self.input_shapes, self.dims)
        any_size = str(network).endswith(".json")  # an architecture is built at the size; a published network or a file has its own
        whole = _subject(network, self.resolution if any_size else None, self.input_shape, self.input_shapes, self.dims)
        part = backbone(whole.graph)
        if self.resolution is not None and not any_size and (size := parse_resolution(str(self.resolution))) != part.inputs[0].shape[2:]:
            part = resized(part, size)
        height, width = part.inputs[0].shape[2:]
        return Network(f"{whole.name} features {height}x{width}", part)

    @property
    def sizes(self) -> tuple[Reading, ...]:
        """Itself, or for features of which no size is asked, one for each size at which backbones are compared."""
        if self.task == "classes" or self.resolution is not None or self.input_shape or self.input_shapes:
            return (self,)
        return tuple(replace(self, resolution=side) for side in SIZES)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that prices: its profile, the folder in which that lies, the budgets of all devices, and what other profiles say of it."""

    profile: Profile
    folder: Path
    budgets: tuple[Budget, ...]
    remarks: tuple[str, ...] = ()


def predict_network(
    network: str | Path | nn.Module | Graph, device: str, reading: Reading, terms: Terms, compare: str | Path | None = None
) -> Estimate:
    """Estimate how long a network takes on a device; see `nas.api.predict`."""
    place = _devices([device], terms)[0]
    subject = reading.read(network)
    estimate = price(subject, place, terms)
    if compare is None:
        return estimate
    older = _older(compare, network) if isinstance(network, str | Path) else compare
    return estimate.model_copy(update={"comparison": compared(price(reading.read(older), place, terms), estimate)})


def _older(compare: str | Path, network: str | Path) -> str | Path:
    """Return the older network itself, or the one under a file's name where a folder is given."""
    return Path(compare) / Path(network).name if Path(compare).is_dir() else compare


def predict_all(
    networks: Sequence[str | Path], devices: Sequence[str], reading: Reading, terms: Terms, compare: Path | None = None
) -> Iterator[Estimate | Unpriced]:
    """Yield what each network takes on each device, network by network; one that cannot be priced says why.

    Args:
        networks: Read one after the other, so that memory holds one of them.
        devices: Names or paths of profiles.
        reading: How networks are read.
        terms: How they are priced.
        compare: An older network, or a folder that holds one under the name of each file.

    Raises:
        UsageError: A wrong device or budget; nothing has been read then.
        NasError: A device's profile has another hash than `terms` ask for.
    """
    places = _devices(devices, terms)
    for network, at_size in itertools.product(networks, reading.sizes):
        older = None if compare is None else _older(compare, network)
        try:
            subject = at_size.read(network)
            before = None if older is None else at_size.read(older)
        except NasError as error:
            yield from (Unpriced(network=Path(network).name, device=place.profile.name, error=str(error)) for place in places)
            continue
        for place in places:
            try:
                estimate = price(subject, place, terms)
                if before is not None:
                    estimate = estimate.model_copy(update={"comparison": compared(price(before, place, terms), estimate)})
            except NasError as error:
                yield Unpriced(network=subject.name, device=place.profile.name, error=str(error))
            else:
                yield estimate


def _devices(names: Sequence[str], terms: Terms) -> list[Device]:
    """Return the devices that a user means, each once, with the budgets of all.

    Raises:
        UsageError: A device, a budget or a pinned hash that is none, or is of a device that is not asked for.
        NasError: A profile has another hash than it should.
    """
    files = {name: find_profile(name) for name in dict.fromkeys(names)}
    profiles = {profile.name: (profile, files[name].parent) for name in files for profile in [load_profile(name)]}
    budgets = read_budgets({name: profile for name, (profile, _) in profiles.items()}, terms.budgets)
    places = {name: Device(profile, folder, budgets, remarks(profile)) for name, (profile, folder) in profiles.items()}
    for text in terms.profile_hash:
        device, colon, wanted = text.rpartition(":")
        if not re.fullmatch("[0-9a-f]{16}", wanted) or (colon and device not in places) or (not colon and len(places) > 1):
            form = "HASH of 16 hex digits" if len(places) == 1 else f"D:HASH with D one of {', '.join(places)}"
            raise UsageError(f"--profile-hash: cannot be read, got {text!r}. Expected {form}.")
        place = places[device] if colon else next(iter(places.values()))
        precision = terms.precision or place.profile.default_precision
        if (own := estimate_hash(place.profile, precision, place.folder)) != wanted:
            raise NasError(
                f"--profile-hash: {place.profile.name} at {precision} has another profile or latency model, got {own}. Expected {wanted}. "
                f"Do this: look at its estimates again, then pin {own}."
            )
    return list(places.values())


def price(subject: Network, place: Device, terms: Terms) -> Estimate:
    """Return what a network takes on a device.

    Raises:
        UsageError: The device lacks the precision, or has no latency model for it.
    """
    profile, graph, confidence = place.profile, subject.graph, terms.confidence
    chosen = terms.precision or _own_precision(graph) or profile.default_precision
    at = profile.at(chosen)
    predictor = load_predictor(profile, chosen, place.folder)
    fixed = {p for p in graph.precisions if p}
    if fixed - {chosen} and not predictor.prices_mixed:
        listed = ", ".join(sorted(fixed))
        raise UsageError(f"predict {subject.name}: fixes {listed}, and the latency model of {profile.name} prices one precision at a time.")
    form = predictor.form_timed(subject.timed_as) or graph
    estimate = for_batch(predictor.estimate(form, profile, chosen, confidence), graph, profile)
    timing = measured(profile, chosen, subject.timed_as, confidence)
    shown = timing or estimate
    doubts = (*(estimate.extrapolated if timing is None else ()), *_faster_than_possible(shown, graph, profile, chosen))
    priced = Estimate(
        network=subject.name,
        device=profile.name,
        precision=precision_of([("", graph)], chosen) if _own_precision(graph) != chosen else chosen,
        runtime=profile.runtime,
        quantity=profile.quantity,
        batch=batch_of(graph) if batch_of(graph) > 1 else profile.batch,
        latency_ms=shown.latency_ms,
        lower_ms=shown.lower_ms,
        upper_ms=shown.upper_ms,
        confidence=at.stated_confidence(estimate.confidence) if timing is None else estimate.confidence,
        grade=at.grade,
        model_error=at.model_error,
        basis=shown.basis,
        extrapolated=bool(doubts),
        extrapolated_why=doubts,
        unsupported=estimate.unsupported,
        unchecked=at.unchecked(graph),
        precisions=_operators_at(graph, chosen),
        input_normalisation_ms=_normalisation_ms(predictor, graph, profile, chosen),
        input_normalised=form is not graph and predictor.normalises_images,
        notices=(*graph.notices, *place.remarks, *_slower(subject, place, chosen), *_carried_over(at, shown, subject.timed_as)),
        macs=graph.cost.macs,
        params=graph.cost.params,
        operators=tuple(OperatorShare(name=op.name, op=op.op, latency_ms=op.latency_ms) for op in estimate.operators),
        profile_hash=estimate_hash(profile, chosen, place.folder),
    )
    added: dict[str, object] = {}
    if timing is None and estimate.upper_ms > WIDE**2 * estimate.lower_ms:
        added["width_why"] = _width_why(priced, estimate, predictor, profile, chosen)
    if (plan := profile.memory) is not None:
        added |= {"ram_bytes": int(plan.ram_bytes(graph, chosen)), "flash_bytes": int(plan.flash_bytes(graph, chosen))}
    if (peak := peak_memory(profile.name, graph, chosen)) is not None:
        added |= {"peak_memory_mb": peak.mb, "peak_memory_lower_mb": peak.lower_mb, "peak_memory_upper_mb": peak.upper_mb}
    board = profile.name.removesuffix(f"-{profile.runtime}")
    added |= {
        "placement": _placement(profile.name, profile.runtime, graph, chosen),
        "placement_onnx": _placement(f"{board}-onnx", "onnx", graph, chosen),
    }
    if chosen == "w8a8":
        lost = predicted_drop(graph, profile.runtime)
        added |= {"int8_drop_pct": lost.drop_pct, "int8_drop_upper_pct": lost.upper_pct}
    if place.budgets:
        added["budgets"] = check_budgets(place.budgets, priced, graph, profile, chosen, terms.on)
    if timing is not None:
        alone = Modelled(
            latency_ms=estimate.latency_ms, lower_ms=estimate.lower_ms, upper_ms=estimate.upper_ms, extrapolated_why=estimate.extrapolated
        )
        added |= {"repeats_within_pct": at.repeats_within_pct, "estimated": alone}
    return priced.model_copy(update=added)


def _placement(device: str, runtime: str, graph: Graph, precision: str) -> Placement | None:
    """Return where a network is likely to run; None where no job of that device, runtime and precision is known."""
    likely = placement(device, runtime, graph, precision)
    if likely is None:
        return None
    return Placement(
        off_npu_pct=round(100 * likely.off_npu, 1),
        wholly_on_npu=likely.wholly_on_npu,
        operator=likely.operator,
        slower=likely.slower,
        why=likely.why,
    )


def _carried_over(at: PrecisionProfile, shown: Priced, network: str) -> tuple[str, ...]:
    """Say so where a figure is of a former SDK and was moved to the newer one."""
    if at.drift is None or shown.basis != "estimated":
        return ()
    timed_ms = at.former_timings_ms.get(network)
    what = "an estimate" if timed_ms is None else f"a timing of {timed_ms:g} ms"
    return (f"{what} {at.carried_over}",)


def _slower(subject: Network, place: Device, chosen: str) -> tuple[str, ...]:
    """Say so where a network without precisions of its own takes longer at a quantised one than in float."""
    if subject.graph.precisions - {None}:
        return ()
    line = slower_than_float(subject.graph, place.profile, chosen, subject.timed_as, place.folder)
    return (line,) if line else ()


def _width_why(priced: Estimate, estimate: Priced, predictor: Predictor, profile: Profile, precision: str) -> str:
    """Return why an interval is wide and which three networks to time."""
    at = profile.at(precision)
    if not at.timings_ms and not at.held_out:
        why = "; ".join(filter(None, ["no network was timed on this device", at.facts_doubt]))
    else:
        why = "; ".join(priced.extrapolated_why) or "its operators are unlike those of the networks that were timed"
    names = networks_alike(shares_of(estimate.operators), priced.macs, predictor, profile, precision)
    factor = math.sqrt(estimate.upper_ms / max(estimate.lower_ms, 1e-9))
    do = f" Do this: time {', '.join(names)} there, then {calibrate_command(profile)}." if names else ""
    return f"an interval of ×/÷ {factor:.1f}: {why}.{do}"


def _faster_than_possible(shown: Priced, graph: Graph, profile: Profile, precision: str) -> tuple[str, ...]:
    """Say so where even the upper end is below what the profile's own facts allow."""
    least_ms = profile.least_ms(graph, precision) * (1.0 if profile.quantity == "latency" else 0.0)
    if shown.upper_ms >= least_ms:
        return ()
    return (f"faster than the peak, the bandwidth and the launch that the profile states allow: no less than {least_ms:.3g} ms",)


def _own_precision(graph: Graph) -> str | None:
    """Return the precision that all operators that compute have of their own; what moves data follows them."""
    own = {op.precision for op in graph.operators if op.category != "layout"}
    return next(iter(own)) if len(own) == 1 else None


def _operators_at(graph: Graph, chosen: str) -> dict[str, int]:
    """Count operators by the precision at which they run: their own, else the run's."""
    counts = Counter(op.precision or chosen for op in graph.operators)
    return {precision: counts[precision] for precision in Precision if counts[precision]}


def _normalisation_ms(predictor: Predictor, graph: Graph, profile: Profile, precision: str) -> float | None:
    """Return what the normalisation of its images, as the device's tables have it, adds to a network; None where they have none."""
    if not predictor.normalises_images:
        return None
    plain, normalising = (predictor.estimate(g, profile, precision).latency_ms for g in (graph, with_normalisation(graph)))
    return max(0.0, normalising - plain)


def _subject(
    network: str | Path | nn.Module | Graph,
    resolution: str | int | None,
    input_shape: Sequence[int] | None,
    input_shapes: Mapping[str, Shape],
    dims: Mapping[str, int],
) -> Network:
    if isinstance(network, str | Path):
        if input_shape is not None:
            raise UsageError(f"predict: input_shape belongs to a module, got {input_shape} for {network}. Do this: leave it out.")
        return load_network(str(network), parse_resolution(str(resolution)) if resolution else None, input_shapes=input_shapes, dims=dims)
    if input_shapes or dims:
        raise UsageError("predict: input_shapes and dims belong to a model file. Do this: leave them out.")
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


def measure_network(
    network: str,
    device: str | None,
    *,
    runner: str,
    threads: int | None,
    resolution: str | int | None,
    input_shapes: Mapping[str, Shape] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Measurement:
    """Time a network; see `nas.api.measure`."""
    from nas.devices.measure import measure_graph, measure_onnx, measure_with_runner

    if runner and (device or threads):
        raise UsageError(
            f"measure: the runner says where a file is timed and with how many threads, got {f'the device {device!r}' if device else f'{threads} threads'} "
            "beside it. Do this: leave it out."
        )
    here = device or "local-cpu"
    if here not in ("local-cpu", "local-cuda"):
        raise UsageError(
            f"device: cannot be measured from here, got {device!r}. Expected local-cpu or local-cuda, or do this: --runner 'CMD {{onnx}}'."
        )

    def timed(path: Path) -> Timings:
        if runner:
            return measure_with_runner(path, runner)
        return measure_onnx(path, cast("LocalDevice", here), threads=threads or 1, input_shapes=input_shapes, dims=dims)

    if (input_shapes or dims) and (runner or not network.endswith(".onnx")):
        raise UsageError(f"input shape: belongs to an .onnx file that is timed here, got {network!r}. Do this: leave it out.")

    if network.endswith((".onnx", ".tflite", ".xml") if runner else ".onnx"):
        if resolution:
            raise UsageError(f"resolution: a file has its own, got {resolution!r} for {network!r}. Do this: leave it out.")
        if not Path(network).is_file():
            raise ArtifactError(f"measure: no such file, got {network!r}.")
        timings = timed(Path(network))
    else:
        timings = measure_graph(load_network(network, parse_resolution(str(resolution)) if resolution else None).graph, timed)
    return Measurement(**timings.to_json(), network=network)
