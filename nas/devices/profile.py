"""The contract of a hardware profile: facts of a device from one TOML file, every number with its unit and its source.

Profiles are found in ``hardware_profiles/``, in the user's configuration folder (``$NAS_CONFIG_HOME/devices``, else
``~/.config/nas/devices``), at a path, or in another distribution's package of files, named by an entry point in the
group ``nas.devices``.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas.devices.names import config_home, find_profile, is_plain_name
from nas.devices.trust import grade_of, model_error, stated_confidence
from nas.errors import UnknownNameError, UsageError, did_you_mean, one_line
from nas.results import CARRIED_OVER, Grade, ModelError, StatedQuantity
from nas.units import Precision

_MOST_FAULTS = 8
"""Faults of a file that one line names. Set by hand."""

if TYPE_CHECKING:
    from nas.graphs.graph import Graph


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be text that can be printed on one line")
    return text


def _harmless(text: str) -> str:
    _printable(text.replace("\n", "").replace("\t", ""))
    return text


Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
"""A fact in its unit: beyond a thousand million of them there is no device."""

Milliseconds = Annotated[float, Field(ge=1e-6, le=1e7, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_harmless)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_printable)]


def _plain(name: str) -> str:
    if name and not is_plain_name(name):
        raise ValueError("must be the name of a file next to the profile")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_File = TypeVar("_File", bound=_Strict)


class Origin(_Strict):
    """Where numbers come from: who measured, which release, which licence, which command made the fit."""

    title: Name
    reference: Text = ""
    licence: Text = ""
    retrieved: Text = ""
    command: Text = ""


class FitQuality(_Strict):
    """The errors of a fit on networks that it had not seen. The protocol says how they were left out.

    Attributes:
        families: Number of families that were left out, one after the other or by folds; None where single networks were left out.
        mean_error_interval_pct: 90 % bootstrap interval over families, or networks.
        above_upper_pct: Share of timings above the upper end of their interval, which budgets are compared with.
        halfwidth_pct: Median half width of the intervals.
    """

    protocol: Text
    networks: Annotated[int, Field(ge=1, le=10**9)]
    families: Annotated[int, Field(ge=1, le=10**9)] | None = None
    mean_error_pct: Percent
    mean_error_interval_pct: tuple[Percent, Percent] | None = None
    median_error_pct: Percent
    within_10_pct: Share
    within_25_pct: Share
    coverage_pct: Share | None = None
    above_upper_pct: Share | None = None
    halfwidth_pct: Percent | None = None
    spearman: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None


class Placement(_Strict):
    """The operators that a runtime or a compiler supports: one file for all its devices, in ``hardware_profiles/operators/``.

    Attributes:
        title: Name of the runtime.
        sources: Sources of the facts, by the keys that the entries name.
        supported: Operators that run, each with its source.
        unsupported: Operators that do not run, each with its source; an operator in neither is unknown there.
    """

    title: Name
    sources: Mapping[str, Origin]
    supported: Mapping[str, str] = Field(default_factory=dict)
    unsupported: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_has_a_source(self) -> Placement:
        for op, source in (*self.supported.items(), *self.unsupported.items()):
            if source not in self.sources:
                raise ValueError(f"{op} names a source that is not there, got {source!r}")
        if both := sorted(set(self.supported) & set(self.unsupported)):
            raise ValueError(f"{both[0]} is both supported and unsupported")
        return self


LEAST_SHARE = 0.3
"""Of its latency by the factor alone, below which no network falls by the constant of a drift. Set by hand."""


class SdkDrift(_Strict):
    """What a newer SDK does to the latencies that a profile was fitted to: ``factor`` × ms + ``start_ms``; see `nas.devices.drift`.

    Attributes:
        factor: On all work.
        start_ms: What starting a network costs more (or less, where negative).
        networks: Timed under both.
        halfwidth_pct: Of the 90 % interval of the others.
        since: SDK that latencies are carried over from.
        between: SDK of each network that was first timed after that one; its former timing is taken back by the change until then.
    """

    factor: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
    start_ms: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] = 0.0
    networks: Annotated[int, Field(ge=0, le=10**9)]
    halfwidth_pct: Share = 0.0
    since: Text = ""
    between: Mapping[Name, Text] = Field(default_factory=dict)

    def moved(self, latency_ms: float) -> float:
        """Return a latency under the newer SDK."""
        return max(self.factor * latency_ms + self.start_ms, LEAST_SHARE * self.factor * latency_ms)

    def before(self, latency_ms: float) -> float:
        """Return the latency under the former SDK that is `latency_ms` under the newer one."""
        scaled = latency_ms / self.factor
        return max(min(scaled - self.start_ms / self.factor, scaled / LEAST_SHARE), scaled / 10)

    def spread(self, log_width: float, confidence: float) -> float:
        """Return the half width of an interval in the logarithm with what is not known of the change added to it."""
        own = math.log1p(self.halfwidth_pct / 100) * NormalDist().inv_cdf((1 + confidence) / 2) / NormalDist().inv_cdf(0.95)
        return math.hypot(log_width, own)


_FACTS_DOUBTS = {
    "reported": "its facts are as others report them, no page of the maker was read",
    "unverified": "its facts are unverified: figures as commonly quoted",
}


class PrecisionProfile(_Strict):
    """What a device does at one precision.

    Attributes:
        predictor: Name of the latency predictor; empty where nothing is fitted.
        artifact: File of fitted coefficients in ``latency_predictors/artifacts/``, or next to the profile.
        peak_gmacs: Vendor's or measured peak, in 10⁹ multiply-adds a second.
        bandwidth_gb_s: Memory bandwidth in 10⁹ bytes a second.
        launch_us: Cost of starting one operator, in microseconds.
        facts: How these were checked: ``verified`` on a page of the maker, ``reported`` by others alone, ``unverified``; empty where that is not stated.
        runtime_version: Version of the SDK or driver of the timings.
        runtime_built: Date of that version's build, which orders timings of one version; empty where unknown.
        held_out: Errors on networks that were left out.
        held_out_later: Errors on networks that were first timed after everything in the fit.
        repeats_within_pct: Median difference of repeated measurements, below which no fit can come.
        timings_ms: The device's own timings by reference network (``basis: measured``).
        timings_step_ms: Step to which the timings were rounded.
        former_timings_ms: Timings under the former SDK. A network's timing under the newer one takes precedence.
        drift: Change since the SDK of those timings and of the fit; None where there is none.
        unsupported_ops: Operators that this precision cannot run on the device.
        supported_ops: Operators that it can run. An operator in neither list is unknown.
        notes: What a user must know before trusting a number.
    """

    predictor: Text = ""
    artifact: Annotated[str, AfterValidator(_plain)] = ""
    peak_gmacs: Positive | None = None
    bandwidth_gb_s: Positive | None = None
    launch_us: Positive | None = None
    facts: Literal["", "verified", "reported", "unverified"] = ""
    runtime_version: Text = ""
    runtime_built: Text = ""
    held_out: FitQuality | None = None
    held_out_later: FitQuality | None = None
    repeats_within_pct: Percent | None = None
    timings_ms: Mapping[Name, Milliseconds] = Field(default_factory=dict)
    timings_step_ms: Positive | None = None
    former_timings_ms: Mapping[Name, Milliseconds] = Field(default_factory=dict)
    drift: SdkDrift | None = None
    unsupported_ops: tuple[Name, ...] = ()
    supported_ops: tuple[Name, ...] = ()
    notes: tuple[Text, ...] = ()

    @property
    def grade(self) -> Grade:
        """Trust in the latency model, A to D; see `nas.devices.trust`."""
        quality = self.held_out
        return grade_of(
            fitted=bool(self.predictor),
            mean_error_pct=quality.mean_error_pct if quality else None,
            families=quality.families if quality else None,
            coverage_pct=quality.coverage_pct if quality else None,
        )

    @property
    def carried_over(self) -> str:
        """How estimates came from the SDK of the fit to that of the newest timings; empty where they did not."""
        if (drift := self.drift) is None:
            return ""
        move = f"{drift.factor:.3f} × ms {drift.start_ms:+.3f} ms, ±{drift.halfwidth_pct:.0f} %"
        return f"{CARRIED_OVER} {drift.since} to {self.runtime_version}: {move}, by {drift.networks} networks timed on both"

    @property
    def facts_doubt(self) -> str:
        """What an estimate says of facts that were not read on a page of the maker; empty where they were, or where nothing says."""
        return _FACTS_DOUBTS.get(self.facts, "")

    @property
    def model_error(self) -> ModelError | None:
        """Errors of the latency model on networks that the fit had not seen; None where that was not tested."""
        held_out, later = (quality.model_dump() if quality else None for quality in (self.held_out, self.held_out_later))
        return model_error(held_out, later)

    def stated_confidence(self, confidence: float) -> float:
        """Return the confidence to state for an interval of nominal `confidence`: lower where such intervals covered too little."""
        return stated_confidence(confidence, self.held_out.coverage_pct if self.held_out else None)

    def unchecked(self, graph: Graph) -> tuple[str, ...]:
        """Return the kinds of a graph's operators of which no source says whether the device has them, sorted."""
        known = {*self.supported_ops, *self.unsupported_ops, *graph.unknown, "Constant", "Identity"}
        return tuple(sorted({op.op for op in graph.operators} - known))


class DeviceMemory(_Strict):
    """RAM and flash of a device that runs a network from them, and how its tools fill them.

    Attributes:
        ram_mb: For activations, in 10⁶ bytes; None where it is not the limit.
        flash_mb: For weights.
        planner: How activations share the RAM; see `nas.graphs.arena`.
        packing_pct: What the layout of the weights adds to them, the head's aside.
        spill_factor: How much longer a network takes whose activations leave the RAM.
        spill_spread: Factor within which that is known.
        source: Where these come from.
    """

    ram_mb: Positive | None = None
    flash_mb: Positive | None = None
    planner: Literal["lifetimes", "stedgeai"] = "lifetimes"
    packing_pct: Percent = 0.0
    spill_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    spill_spread: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    source: str

    def ram_bytes(self, graph: Graph, precision: str) -> float:
        """Return the RAM that a network's activations take."""
        from nas.graphs.arena import PLANNERS

        return PLANNERS[self.planner](graph, precision)

    def flash_bytes(self, graph: Graph, precision: str) -> float:
        """Return the flash that a network's weights take."""
        from nas.graphs.arena import flash_bytes

        return flash_bytes(graph, precision, self.packing_pct)


_ADDED = ("operators", "proxy", "memory")
_ADDED_TO_PRECISIONS = ("facts", "timings_step_ms", "supported_ops", "runtime_built", "held_out_later", "former_timings_ms", "drift")
_ADDED_TO_HELD_OUT = ("families", "mean_error_interval_pct", "above_upper_pct", "halfwidth_pct")
"""Fields that 0.1.0 did not have."""


class Profile(_Strict):
    """A device.

    Attributes:
        name: File stem; lower case, digits and hyphens.
        title: Title by its vendor.
        kind: Kind of processor.
        family: Devices of one family share a prior (``hexagon``, ``nvidia``, ``cortex-a``).
        generation: Generation within the family (``v68``).
        aliases: Other names of the same data and short names (``rpi5``).
        quantity: ``latency``, or ``reciprocal_throughput`` (milliseconds a frame at full load: not a latency).
        batch: Pictures in one run.
        runtime: Runtime that executed the networks (``qnn``, ``tflite``, ``onnxruntime-cpu``, ``tensorrt``).
        operators: File of the operators that this runtime supports, in ``operators/`` beside the profiles; by default the one with the name of the
            runtime's first word, where it exists.
        compiled: Whether the runtime removes dead code and fuses; eager runtimes follow the graph as written.
        threads: CPU threads where that matters.
        on_chip_memory_mb: Memory on the chip in 10⁶ bytes.
        default_precision: Precision where the user names none.
        precisions: Precisions of the device.
        origin: Origin of the facts.
        memory: RAM and flash, for devices that run networks from them.
        proxy: Devices that this one stands in for, where it is not the device of its names (``SA8255 (Proxy), …``). Its timings are never called measured.
        notes: What a user must know.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Name
    kind: Literal["npu", "gpu", "cpu", "dsp", "tpu", "fpga", "asic"]
    family: Text = ""
    generation: Text = ""
    aliases: tuple[Name, ...] = ()
    quantity: StatedQuantity = "latency"
    batch: Annotated[int, Field(ge=1, le=65_536)] = 1
    runtime: Name
    operators: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    compiled: bool = True
    threads: Annotated[int, Field(ge=1, le=65_536)] | None = None
    on_chip_memory_mb: Positive | None = None
    default_precision: Precision
    precisions: Mapping[Precision, PrecisionProfile]
    origin: Origin
    memory: DeviceMemory | None = None
    proxy: Text = ""
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _default_exists(self) -> Profile:
        if self.default_precision not in self.precisions:
            raise ValueError(f"default_precision {self.default_precision!r} is not among the precisions {sorted(self.precisions)}")
        return self

    def at(self, precision: str | None) -> PrecisionProfile:
        """Return what the device does at `precision` (default: its own default).

        Raises:
            UsageError: The device does not have it.
        """
        wanted = precision or self.default_precision
        if (placed := self._placed.get(wanted)) is not None:
            return placed
        raise UsageError(f"device {self.name}: has no precision {wanted!r}.{did_you_mean(wanted, self.precisions)}")

    @cached_property
    def placement(self) -> Placement | None:
        """The operators that the runtime has, None where no source says.

        Raises:
            UnknownNameError: The profile names a file that is not there.
        """
        name = self.operators or (self.runtime.split() or [""])[0]
        return read_placement(name) if self.operators or name in placement_files() else None

    @cached_property
    def _placed(self) -> Mapping[str, PrecisionProfile]:
        """What the device does by precision, with the operators that its runtime has; the profile's own word goes first."""
        runtime = self.placement
        if runtime is None:
            return {str(name): own for name, own in self.precisions.items()}
        placed: dict[str, PrecisionProfile] = {}
        for name, own in self.precisions.items():
            lacks = [op for op in runtime.unsupported if op not in own.supported_ops]
            has = [op for op in runtime.supported if op not in own.unsupported_ops]
            placed[name] = own.model_copy(
                update={"unsupported_ops": (*own.unsupported_ops, *lacks), "supported_ops": (*own.supported_ops, *has)}
            )
        return placed

    def least_ms(self, graph: Graph, precision: str) -> float:
        """Return the time in ms below which no run of a network can be, by the facts that the profile states; 0 where it states none.

        The larger of its multiply-adds at the peak and of its weights, as far as they do not fit on the chip, through the memory; and one launch.
        """
        at = self.at(precision)
        compute_ms = graph.cost.macs / (1e6 * at.peak_gmacs) if at.peak_gmacs else 0.0
        moved_bytes = max(0.0, graph.size_bytes(precision) - 1e6 * (self.on_chip_memory_mb or 0.0))
        traffic_ms = moved_bytes / (1e6 * at.bandwidth_gb_s) if at.bandwidth_gb_s else 0.0
        return max(compute_ms, traffic_ms) + 1e-3 * (at.launch_us or 0.0)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over what the profile and the list of its runtime's operators say of networks; a run records it."""
        own = self.model_dump_json(exclude={"precisions": {"__all__": {"runtime_built"}}})  # no figure is of it
        text = own + (self.placement.model_dump_json() if self.placement else "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def former_hash(self) -> str:
        """The hash as 0.1.0 wrote it into its runs: without the list of operators, and without later fields that say nothing."""
        content = self.model_dump(mode="json", exclude={name for name in _ADDED if not getattr(self, name)})
        for at in content["precisions"].values():
            for name in _ADDED_TO_PRECISIONS:
                if not at[name] or name == "runtime_built":
                    del at[name]
            for name in _ADDED_TO_HELD_OUT if at["held_out"] else ():
                if at["held_out"][name] is None:
                    del at["held_out"][name]
        return hashlib.sha256(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()[:16]


def load_profile(device: str | Path) -> Profile:
    """Return the profile of a device by name or by the path of its file.

    Raises:
        UnknownNameError: No such device.
        UsageError: The file breaks the schema; every fault is named in one line.
    """
    return read_profile(find_profile(device))


def placement_files() -> dict[str, Path]:
    """Return every list of a runtime's operators by its name, without reading any; a user's own goes first."""
    spec = find_spec("hardware_profiles")
    rooms = [Path(root) for root in (spec.submodule_search_locations if spec else None) or ()] + [config_home() / "devices"]
    return {path.stem: path for room in rooms for path in sorted((room / "operators").glob("*.toml"))}


@lru_cache(maxsize=64)
def read_placement(name: str) -> Placement:
    """Return the operators of a runtime by the name of its file.

    Raises:
        UnknownNameError: No such file.
        UsageError: The file breaks the schema.
    """
    files = placement_files()
    if name not in files:
        raise UnknownNameError(
            "operators", name, files, "A list of a runtime's operators is one file: hardware_profiles/operators/NAME.toml."
        )
    return _validated(Placement, files[name], "")


def read_profile(path: Path) -> Profile:
    """Read and validate one file.

    Raises:
        UsageError: Missing, not TOML, an unknown key, a value out of range.
    """
    return _validated(Profile, path, path.stem)


def _validated(kind: type[_File], path: Path, name: str) -> _File:
    try:
        data: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"profile {path}: no such file.") from None
    except OSError as error:
        raise UsageError(f"profile {path}: cannot be read ({error.strerror}).") from None
    except RecursionError:
        raise UsageError(f"profile {path}: cannot be read (nested too deeply).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"profile {path}: not TOML ({one_line(error)}).") from None
    if name and data.get("name", name) != name:
        stated = one_line(repr(data["name"]))
        raise UsageError(f"profile {path}: says another name than its file, got {stated}. Expected {name!r}, or leave it out.")
    try:
        return kind.model_validate({**data, "name": name} if name else data)
    except ValidationError as error:
        faults = [_fault(dict(fault)) for fault in error.errors()]
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise UsageError(f"profile {path}: {'; '.join(faults[:_MOST_FAULTS])}{more}.") from None


def _fault(fault: Mapping[str, Any]) -> str:
    where = one_line(".".join(map(str, fault["loc"])) or "profile")
    if fault["type"] == "extra_forbidden":
        known = {
            *Profile.model_fields,
            *PrecisionProfile.model_fields,
            *FitQuality.model_fields,
            *Origin.model_fields,
            *Placement.model_fields,
            *DeviceMemory.model_fields,
            *SdkDrift.model_fields,
        }
        return f"{where}: unknown key.{did_you_mean(str(fault['loc'][-1]), known)}"
    return f"{where}: {one_line(fault['msg']).lower()}, got {one_line(repr(fault['input']))}"
