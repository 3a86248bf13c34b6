"""What commands and functions answer: frozen, typed, and the contract of ``--format json``.

A result prints well: as text, as a table in a notebook, as a data frame where pandas is installed. Its JSON is
`model_dump`; ``nas schema NAME`` prints the JSON Schema of each. Fields that a run has not come to are left out of the
dump; `None` says that a value is known not to exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nas.results.figure import LINES, Mark, Panel, front_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Basis = Literal["measured", "estimated", "proxy"]
"""How a latency is known: by the device itself, by a model, or by a device that stands in for it."""

Grade = Literal["A", "B", "C", "D"]
"""How far to believe a latency model, by its errors and coverage on families of networks left out."""

CARRIED_OVER = "carried over from"
"""How the words of a notice begin that an estimate is of a former SDK, moved to a newer one."""

Cell = str | int | float | None


class Record(BaseModel):
    """Base of all results: frozen; keys that a later version added are passed over when an older one reads them."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="null")

    def dump(self) -> dict[str, Any]:
        """Return the JSON contract's data: every field that was set, in order."""
        return self.model_dump(mode="json", exclude_unset=True)

    def rows(self) -> list[dict[str, Cell]]:
        """Return the result as rows of a table."""
        return [{key: value for key, value in self.dump().items() if isinstance(value, str | int | float | None)}]

    def to_frame(self) -> Any:
        """Return the rows as a `pandas.DataFrame`.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            from nas.errors import UsageError

            raise UsageError("to_frame: pandas is not installed. Do this: pip install pandas.") from None
        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        rows = self.rows()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(_shown(row.get(column)))}</td>" for column in columns) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def decimals_of(pictures: int | None) -> int:
    """Return how many decimals of a percentage so many pictures can tell apart; published ones have 50,000.

    One picture of 408 is a quarter of a point: one decimal says it.
    """
    if pictures is None or pictures >= 5_000:
        return 2
    return 1 if pictures >= 100 else 0


def _shown(value: Cell) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class ModelError(Record):
    """How far a device's latency model is off on networks that it had not seen.

    Attributes:
        mean_error_pct: Of |predicted / measured − 1|, on networks or lineages left out.
        median_error_pct: The same, median.
        networks: That were tested.
        lineages: Of these, each left out whole; None where each network was left out alone.
        above_upper_pct: Share that took longer than the upper end, by which a budget admits.
        later_mean_error_pct: On networks that were first timed after everything that the fit knew.
        later_median_error_pct: The same, median.
        later_networks: How many these are.
        line: The same in words.
    """

    mean_error_pct: float
    median_error_pct: float
    networks: int
    lineages: int | None = None
    above_upper_pct: float | None = None
    later_mean_error_pct: float | None = None
    later_median_error_pct: float | None = None
    later_networks: int | None = None
    line: str


class Genotype(Record):
    """An architecture as JSON: what `nas.spaces.architecture.Architecture` reads.

    Attributes:
        space: Its name, preset included.
        version: Of the space; another version may mean another network by the same genes.
        genes: One value for each choice of the space.
    """

    space: str
    version: int
    genes: tuple[int | str, ...]


class DeviceLatency(Record):
    """The latency of one network on one device, in ms a frame.

    Attributes:
        latency_ms: Central value.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end; budgets are judged by it.
        basis: How it is known.
        precision: At which the network runs there; ``mixed`` where its parts differ.
        extrapolated: Whether the estimate left what its model was calibrated on.
        grade: How far to believe the device's latency model: A to D, see `nas.devices.trust`.
        budget_ms: Of this device, where there is one.
        margin_ms: Budget less upper end.
        quantity: ``latency``, or ``reciprocal_throughput`` where the milliseconds are those of a frame at full load.
        budget_fps: Of this device, where there is one of throughput.
        margin_fps: Throughput at the upper end less that budget.
    """

    latency_ms: float
    lower_ms: float
    upper_ms: float
    basis: Basis
    precision: str
    extrapolated: bool = False
    grade: Grade | None = None
    budget_ms: float | None = None
    margin_ms: float | None = None
    quantity: Literal["latency", "reciprocal_throughput"] = "latency"
    budget_fps: float | None = None
    margin_fps: float | None = None

    @property
    def unit(self) -> str:
        """In which a person reads it: ``fps`` where the device states throughput, else ``ms``."""
        return "ms" if self.quantity == "latency" else "fps"

    @property
    def values(self) -> tuple[float, float, float]:
        """Central value and both ends, lower first, in `unit`."""
        if self.quantity == "latency":
            return self.latency_ms, self.lower_ms, self.upper_ms
        return tuple(1e3 / max(ms, 1e-9) for ms in (self.latency_ms, self.upper_ms, self.lower_ms))  # type: ignore[return-value]

    @property
    def shown(self) -> tuple[str, str]:
        """Value and interval as text, without the unit."""
        value, lower, upper = (_three_digits(number) for number in self.values)
        return value, f"{lower}–{upper}"

    @property
    def known_as(self) -> str:
        """``measured``, ``estimated``, ``proxy``, or ``extrapolated`` where an estimate left the calibrated range."""
        return "extrapolated" if self.basis == "estimated" and self.extrapolated else self.basis


class Point(Record):
    """One network of a front.

    Attributes:
        key: Of its architecture.
        architecture: Its genes.
        devices: Latency by device; the first device's stands beside it too.
        latency_ms: On the first device.
        lower_ms: Lower end there.
        upper_ms: Upper end there.
        precision: There.
        resolution: Of the input: 224, or ``192x256``.
        accuracy_pct: Final accuracy, on the test pictures (for published networks as published); None where it was not fine-tuned.
        float_accuracy_pct: The same before quantisation.
        validation_accuracy_pct: After fine-tuning.
        supernet_accuracy_pct: The score that the search went by: on validation pictures at the proxy resolution.
        probe_accuracy_pct: Of a linear classifier on the frozen features of a published network, on validation pictures.
        macs: Multiply-adds of one picture.
        params: Parameters of the deploy form.
        size_bytes: Of the exported file, where it is an objective.
        memory_bytes: Peak of activations, where it is an objective.
        peak_memory_bytes: Upper end of what its process takes at its peak on the first device, where a budget bounds it (of the activations alone where
            no memory is fitted for the device).
        ram_bytes: That its activations take on the first device, where a budget bounds it.
        flash_bytes: That its weights take there, where a budget bounds it.
        int8_drop_pct: Points of accuracy that it is likely to lose in 8 bits, where it runs so and nothing was quantised to see.
        off_npu_pct: Chance that a part of it runs on CPU or GPU on the first device, where the runtime's published jobs say so.
        trial: Its number in the study.
        network: Published name.
        weights: Which published weights.
        pretraining: Of these weights.
        distilled: Whether they were.
        source: Who published the accuracy.
        chain: Of what trained networks it is made: blocks of which network, and what was done to them.
    """

    key: str
    architecture: Genotype
    devices: dict[str, DeviceLatency]
    latency_ms: float
    lower_ms: float
    upper_ms: float
    precision: str
    resolution: int | str
    accuracy_pct: float | None = None
    supernet_accuracy_pct: float | None = None
    macs: int
    params: int
    size_bytes: int | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    int8_drop_pct: float | None = None
    off_npu_pct: float | None = None
    network: str | None = None
    weights: str | None = None
    pretraining: str | None = None
    distilled: str | None = None
    source: str | None = None
    chain: str | None = None
    trial: int | None = None
    float_accuracy_pct: float | None = None
    validation_accuracy_pct: float | None = None
    probe_accuracy_pct: float | None = None

    @property
    def name(self) -> str:
        """The published name with its weights, else the key."""
        return f"{self.network} ({self.weights}, {self.pretraining})" if self.network else self.key

    @property
    def label(self) -> str:
        """The published name alone, else the key: for where room is short."""
        return self.network or self.key

    @property
    def compared_accuracy_pct(self) -> float:
        """The accuracy by which a search compared it: on validation, else published."""
        scores = (self.supernet_accuracy_pct, self.probe_accuracy_pct, self.accuracy_pct)
        value = next((score for score in scores if score is not None), None)
        return float("nan") if value is None else value


class Share(Record):
    """The part of a latency that a stage or a kind of operator takes."""

    name: str
    latency_ms: float
    share_pct: float


class BudgetChange(Record):
    """What a smaller or larger budget would have bought.

    Attributes:
        factor: By which all budgets are multiplied.
        network: The most accurate one within them; None where nothing that was scored fits.
        accuracy_pct: Its accuracy.
        line: The same in words.
    """

    factor: float
    network: str | None
    accuracy_pct: float | None
    line: str


class WhyNotMore(Record):
    """What keeps a more accurate network out of the budgets.

    Attributes:
        network: The most accurate one that was excluded; None where there is none.
        architecture: Its genes.
        accuracy_pct: Its accuracy.
        nearest: Of the more accurate ones, that which breaks the budgets least.
        nearest_accuracy_pct: Its accuracy.
        nearest_over_pct: By how much it breaks the budget that it breaks most.
        device: Whose budget the most accurate one breaks most.
        upper_ms: Its upper end there.
        over_pct: By how much it breaks that budget.
        stages: Where its time goes, largest first.
        operators: The same by kind of operator.
        budget_changes: What a little less and a little more would buy.
        lines: The same in words.
    """

    network: str | None
    architecture: Genotype | None = None
    accuracy_pct: float | None = None
    nearest: str | None = None
    nearest_accuracy_pct: float | None = None
    nearest_over_pct: float | None = None
    device: str | None = None
    upper_ms: float | None = None
    over_pct: float | None = None
    stages: tuple[Share, ...] = ()
    operators: tuple[Share, ...] = ()
    budget_changes: tuple[BudgetChange, ...] = ()
    lines: tuple[str, ...] = ()


class Compared(Record):
    """A candidate of the last comparison, with its accuracy on the pictures that were compared."""

    key: str
    supernet_accuracy_pct: float


class Verification(Record):
    """One network of a front, timed on its device.

    Attributes:
        key: Of its architecture.
        line: The same in words.
        device: What was timed on.
        precision: Of the file.
        median_ms: Of the samples.
        iqr_ms: Their interquartile range.
        samples_ms: In order.
        runtime: What executed it.
        threads: That it had.
        pinned: Whether they were bound to processors.
        error_pct: Of the estimate.
        inside: Whether the timing lies inside the interval.
    """

    key: str
    line: str
    device: str | None = None
    precision: str | None = None
    median_ms: float | None = None
    iqr_ms: float | None = None
    samples_ms: tuple[float, ...] = ()
    runtime: str | None = None
    threads: int | None = None
    pinned: bool | None = None
    error_pct: float | None = None
    inside: bool | None = None


class Revision(Record):
    """What timings of a front's best say about the estimates of all candidates on that device, and about the choice.

    Attributes:
        device: That was timed.
        count: Networks that were timed there.
        factor: On the estimates.
        width_factor: On the logarithm of the intervals' half widths.
        former_choice: Key of the choice before; that of today's where it stays.
        line: The same in words.
    """

    device: str
    count: int
    factor: float
    width_factor: float
    former_choice: str
    line: str


class Blind(Record):
    """What an accuracy has to be above: that of naming classes without looking at the pictures.

    Attributes:
        chance_pct: Of naming any class at random.
        majority_class: The most frequent class of train.
        majority_pct: Of always naming it.
        pictures: That were scored.
        verdict: A line where the network is not clearly above both; empty where it is.
    """

    chance_pct: float
    majority_class: str
    majority_pct: float
    pictures: int
    verdict: str = ""

    @property
    def line(self) -> str:
        """Return both in words."""
        digits = decimals_of(self.pictures)
        return (
            f"chance is {self.chance_pct:.{digits}f} %, always naming {self.majority_class!r} {self.majority_pct:.{digits}f} %, "
            f"on {self.pictures} pictures"
        )


class Contender(Record):
    """A network at one size of picture, as it did on the user's pictures.

    Attributes:
        key: Of its architecture.
        kind: The space that it is from, where several shared a run.
        network: Its name, or its key where it has none.
        resolution: Of the pictures.
        latency_ms: On the first device, estimated or measured as `Point` says.
        upper_ms: Upper end there.
        probe_accuracy_pct: Of a linear classifier on the frozen features of a published network, on `pictures` of validation.
        supernet_accuracy_pct: With shared weights, at the proxy resolution, on `scored_pictures` of validation.
        scored_pictures: See there.
        raced_accuracy_pct: On `pictures` of validation when it was compared while fine-tuned, in order.
        validation_accuracy_pct: On the same pictures when its fine-tuning had ended; None where that was given up before.
        accuracy_pct: On the test pictures; None where it was not exported.
        pictures: Of validation that were compared.
        epochs: That it was fine-tuned, in training pictures seen by their number.
        outcome: What became of it.
    """

    key: str
    kind: str = ""
    network: str
    resolution: int | str
    latency_ms: float
    upper_ms: float
    probe_accuracy_pct: float | None = None
    supernet_accuracy_pct: float | None = None
    scored_pictures: int = 0
    raced_accuracy_pct: tuple[float, ...] = ()
    validation_accuracy_pct: float | None = None
    accuracy_pct: float | None = None
    pictures: int
    epochs: float = 0.0
    outcome: str = ""


class PhaseCost(Record):
    """What a phase was said to take before training began, and what it took.

    Attributes:
        phase: Its name.
        forecast_s: Seconds by the clock; None where nothing was said.
        seconds: By the clock.
    """

    phase: str
    forecast_s: float | None = None
    seconds: float


class Ledger(Record):
    """What a run cost, all its sessions together.

    Attributes:
        limit_s: Asked for; None where none was.
        forecast_s: Said before training began, for the whole run; None where nothing was.
        seconds: By the clock.
        processor_s: Of all cores.
        energy_j: Of the processor package, where the system tells; it is that of everything that ran beside.
        phases: In order.
    """

    limit_s: float | None = None
    forecast_s: float | None = None
    seconds: float
    processor_s: float
    energy_j: float | None = None
    phases: tuple[PhaseCost, ...] = ()


class ByClass(Record):
    """How the exported file did on the test pictures of each class.

    Attributes:
        classes: Their names.
        pictures: Of each.
        accuracy_pct: Of each; None where it has no picture.
        confusion: Row a class, column what the file says; counts.
    """

    classes: tuple[str, ...]
    pictures: tuple[int, ...]
    accuracy_pct: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]


class Result(Record):
    """What a search has found, finished or not (``search``, ``show``, ``resume``).

    Attributes:
        run_dir: The run directory.
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
        chosen: The choice.
        front: Networks that no other beats in every objective.
        zoo: Published networks within the same budgets.
        model: The exported file; None where there is none.
        model_reason: Why there is none.
        evaluations: Accuracies that were computed.
        proposals: Candidates that were looked at.
        seconds: By phase.
        notices: What a person should know.
        why: Why this choice.
        blocks: The choice in words, a line a stage.
        compared: The candidates that were told apart picture by picture.
        knee: Key of the front's knee.
        scored: What the search's scores (`Point.supernet_accuracy_pct`) are.
        objectives: Their names, accuracy first.
        hypervolume_history: After each evaluation.
        model_sha256: Of the file.
        lacking_operators: Operators that a device lacks.
        sensitivity_db: Signal-to-noise ratio of the scores where one block alone has 8 bits.
        why_not_more: What keeps a more accurate network out.
        verified: Timings of the front's best.
        revision: What they say about all estimates and about the choice; None where nothing was timed.
        latency_models: How far the latency model of each device is off on networks that it had not seen, where that was tested.
        open: Steps that wait for the user's word, each with what to do.
        blind: What naming classes blindly scores on the same test pictures; None where no network was tested.
        by_class: How the exported file did by class; None where it was not tested.
        contenders: Networks that were compared on the user's pictures, of every kind that shared the time.
        ledger: What the run cost; None where nothing was fine-tuned by the clock.
        phase: Of an unfinished run.
        done: Steps of that phase.
        total: Its number of steps.
        eta_s: Seconds that it still takes.
        evaluations_per_s: Pace of the search.
        best_accuracy_pct: So far.
        front_size: So far.
        hypervolume: So far.
        error: Why a run failed.
    """

    run_dir: str
    status: str
    chosen: Point | None = None
    front: tuple[Point, ...] = ()
    zoo: tuple[Point, ...] = ()
    model: str | None = None
    model_reason: str | None = None
    evaluations: int = 0
    proposals: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    notices: tuple[str, ...] = ()
    why: str = ""
    blocks: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()
    knee: str | None = None
    scored: str = "supernet score"
    objectives: tuple[str, ...] = ()
    hypervolume_history: tuple[float, ...] = ()
    model_sha256: str | None = None
    lacking_operators: tuple[str, ...] = ()
    sensitivity_db: dict[str, float] = Field(default_factory=dict)
    why_not_more: WhyNotMore | None = None
    verified: tuple[Verification, ...] = ()
    revision: Revision | None = None
    latency_models: dict[str, ModelError] = Field(default_factory=dict)
    open: tuple[str, ...] = ()
    blind: Blind | None = None
    by_class: ByClass | None = None
    contenders: tuple[Contender, ...] = ()
    ledger: Ledger | None = None
    phase: str | None = None
    done: int | None = None
    total: int | None = None
    eta_s: float | None = None
    evaluations_per_s: float | None = None
    best_accuracy_pct: float | None = None
    front_size: int | None = None
    hypervolume: float | None = None
    error: str | None = None

    def rows(self) -> list[dict[str, Cell]]:
        """Return the front, a row a network."""
        return [_row(point, chosen=self.chosen is not None and point.key == self.chosen.key) for point in self.front]

    @property
    def accuracy_axis(self) -> str:
        """What `Point.compared_accuracy_pct` of the front is, with its unit, for an axis."""
        if any(point.supernet_accuracy_pct is not None for point in self.front):
            return f"{self.scored}, %"
        if any(point.probe_accuracy_pct is not None for point in self.front):
            return "probe of frozen features on validation, %"
        return "top-1, %"

    def plot(self, device: str | None = None, behind: Mapping[str, Sequence[Point]] | None = None) -> Figure:
        """Return a figure of the front: accuracy over latency, intervals included, a panel a device.

        Args:
            device: Which one alone is drawn; all by default.
            behind: Further networks by what they are, drawn behind the front.

        Raises:
            UsageError: matplotlib is not installed, the front is empty, or the device is not of this run.
        """
        from nas.errors import UsageError

        if not self.front:
            raise UsageError(f"plot: the run {Path(self.run_dir).name} has no front yet.")
        devices = list(self.front[0].devices)
        if device is not None and device not in devices:
            raise UsageError(f"plot: unknown device, got {device!r}. Expected one of {', '.join(devices)}.")
        panels = [self._panel(name, behind or {}) for name in ([device] if device else devices)]
        return front_figure(self._title, self.accuracy_axis, panels)

    def labelled(self, lines: float, accuracies_pct: Sequence[float]) -> frozenset[str]:
        """Return the keys of the front's points whose labels do not stand on one another, the choice's first.

        Args:
            lines: Of text that a chart is high.
            accuracies_pct: Of all that it shows.
        """
        line = (max(accuracies_pct, default=0.0) - min(accuracies_pct, default=0.0)) / lines
        chosen = self.chosen.key if self.chosen else None
        values: dict[str, float] = {}
        for point in sorted(self.front, key=lambda p: (p.key != chosen, -p.compared_accuracy_pct, p.latency_ms)):
            if all(abs(point.compared_accuracy_pct - other) >= line for other in values.values()) and (line or not values):
                values[point.key] = point.compared_accuracy_pct
        return frozenset(values)

    @property
    def _title(self) -> str:
        if self.chosen is None:
            return "Search result"
        accuracy = self.chosen.accuracy_pct
        where = [f"{at.shown[0]} {at.unit} on {device}, {at.known_as} ({at.shown[1]})" for device, at in self.chosen.devices.items()]
        return f"{self.chosen.label}: {'' if accuracy is None else f'{accuracy:.2f} % top-1, '}{'; '.join(where)}"

    def _panel(self, device: str, behind: Mapping[str, Sequence[Point]]) -> Panel:
        first = self.front[0].devices[device]
        around = {label: [_mark(point, device) for point in points] for label, points in behind.items()} | self._probed(device)
        accuracies = [p.compared_accuracy_pct for p in self.front] + [mark.accuracy_pct for marks in around.values() for mark in marks]
        labelled = self.labelled(LINES, [value for value in accuracies if value == value])
        return Panel(
            device=device,
            unit=first.unit,
            basis=" or ".join(sorted({point.devices[device].known_as for point in self.front})),
            budget=first.budget_ms if first.unit == "ms" else first.budget_fps,
            front=[_mark(point, device, labelled=point.key in labelled) for point in self.front],
            chosen=_mark(self.chosen, device) if self.chosen else None,
            behind=around,
        )

    def _probed(self, device: str) -> dict[str, list[Mark]]:
        """Return the networks that were probed on the user's pictures; their latencies are those on the first device."""
        if not self.contenders or device != next(iter(self.front[0].devices)):
            return {}
        front = {point.key for point in self.front}
        marks = [
            Mark(c.network, c.latency_ms, c.latency_ms, c.upper_ms, c.probe_accuracy_pct)
            for c in self.contenders
            if c.key not in front and c.probe_accuracy_pct is not None
        ]
        return {"probed on these pictures": marks} if marks else {}


def _mark(point: Point, device: str, *, labelled: bool = True) -> Mark:
    value, lower, upper = point.devices[device].values
    return Mark(point.label if labelled else "", value, lower, upper, point.compared_accuracy_pct)


def _row(point: Point, *, chosen: bool) -> dict[str, Cell]:
    row: dict[str, Cell] = {"network": point.name, "chosen": "→" if chosen else "", "accuracy_pct": point.accuracy_pct}
    if point.supernet_accuracy_pct is not None:
        row["supernet_accuracy_pct"] = point.supernet_accuracy_pct
    for device, latency in point.devices.items():
        row |= {f"{device} {latency.unit}": latency.values[0], f"{device} interval": latency.shown[1]}
    return row | {"precision": point.precision, "macs": point.macs, "params": point.params, "resolution": point.resolution}


class Fronts(Record):
    """A front as a run keeps it while it works."""

    front: tuple[Point, ...]


class OperatorShare(Record):
    """The part of an estimate that one operator takes, after the runtime's fusions."""

    name: str
    op: str
    latency_ms: float


class Interval(Record):
    """A latency with the ends of its interval, in ms."""

    latency_ms: float
    lower_ms: float
    upper_ms: float


class Modelled(Interval):
    """What the latency model alone says of a network that the device has timed; `extrapolated_why` is in words."""

    extrapolated_why: tuple[str, ...] = ()


class BudgetCheck(Record):
    """How one network stands to one budget.

    Attributes:
        budget: As it was written.
        quantity: ``latency``, ``throughput``, ``size``, ``memory``, ``macs`` or ``params``.
        unit: Of `limit` and `value`: ``ms``, ``fps``, ``MB``, …
        limit: The bound; a lower one for throughput, else an upper one.
        value: Of the network.
        judged: What of an estimate was held against it: ``upper`` (the interval's worse end), ``point``, or ``count`` for what is counted.
        holds: Whether it is within; never where the device lacks an operator.
        over_pct: By how much the bound is broken, in percent of it; negative where there is room.
    """

    budget: str
    quantity: str
    unit: str
    limit: float
    value: float
    judged: Literal["upper", "point", "count"]
    holds: bool
    over_pct: float


class OperatorChange(Record):
    """What one operator, or one kind of operator, took before and takes now; `None` where it is not there.

    Attributes:
        name: Of the operator; empty for a kind.
        op: Kind.
        before_ms: In the older network.
        after_ms: In the newer one.
        before_count: Operators of the kind in the older network.
        after_count: In the newer one.
    """

    name: str
    op: str
    before_ms: float | None
    after_ms: float | None
    before_count: int = 1
    after_count: int = 1

    @property
    def change_ms(self) -> float:
        """Now less before."""
        return (self.after_ms or 0.0) - (self.before_ms or 0.0)


class Comparison(Record):
    """An older network beside a newer one on one device (``predict --compare``).

    Attributes:
        network: The older one.
        before: Its latency there.
        change_ms: Newer less older, by the latency model alone on both sides.
        change_pct: The same in percent of the older.
        kinds: By kind of operator, largest increase first.
        operators: By operator, largest increase first: paired by name, or by order where the names do not agree.
        paired_by: ``name`` or ``order``.
    """

    network: str
    before: Interval
    change_ms: float
    change_pct: float
    kinds: tuple[OperatorChange, ...]
    operators: tuple[OperatorChange, ...]
    paired_by: Literal["name", "order"]


class Placement(Record):
    """Where a network is likely to run (``predict``); see `nas.devices.placement`.

    Attributes:
        off_npu_pct: Chance that a part of it runs on CPU or GPU.
        wholly_on_npu: Whether it is said to run wholly on the NPU.
        operator: Kind of operator that falls back; empty where none is the reason.
        slower: How many times longer networks that fell back took, in the middle; null where nobody can say.
        why: In words; empty where it is said to run wholly on the NPU.
    """

    off_npu_pct: float
    wholly_on_npu: bool
    operator: str
    slower: float | None
    why: str


class Unpriced(Record):
    """A network of several that could not be read, or not be priced on a device."""

    network: str
    device: str
    error: str


class Estimate(Record):
    """How long a network takes on a device (``predict``).

    Attributes:
        network: As it was named.
        device: The profile.
        precision: At which it runs; ``mixed`` where its operators differ.
        runtime: Of the profile.
        quantity: ``latency``, or ``reciprocal_throughput``.
        batch: Pictures a run: the network's own where it has one, else the profile's.
        latency_ms: Central value of a run; of a picture where the quantity is ``reciprocal_throughput``.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end.
        confidence: Nominal coverage of the interval; less than asked where the device's intervals covered less on networks left out.
        grade: How far to believe the device's latency model: A to D, see `nas.devices.trust`.
        model_error: How far that model is off on networks that it had not seen; None where nobody has tested it.
        width_why: Why an interval is wider than ×/÷ 3, and what to do; empty where it is not.
        basis: How it is known.
        extrapolated: Whether the model left what it was calibrated on, where the figures are the model's.
        extrapolated_why: In words.
        unsupported: Operators that the device or its model lacks; the figures leave them out.
        unchecked: Operators of which no source says whether the device has them; the figures hold them.
        precisions: Operators by the precision at which they run.
        input_normalisation_ms: What normalising its images would add, as the networks of the device's tables do; None where they do not.
        input_normalised: Whether the figures hold that: those of a published network do, those of a file or an architecture do not.
        notices: What reading the network left out or took for granted.
        macs: Multiply-adds of a run.
        params: Parameters.
        peak_memory_mb: That its process takes at its peak, in 10⁶ bytes, where that is fitted for the device; see `nas.devices.peak_memory`.
        peak_memory_lower_mb: Lower end of its 90 % interval.
        peak_memory_upper_mb: Upper end, by which a budget is judged.
        placement: Whether it is likely to run wholly on the NPU, where the runtime's published jobs say so; None elsewhere.
        ram_bytes: That its activations take, on a device that runs from RAM and flash.
        flash_bytes: That its weights take there.
        int8_drop_pct: Points of accuracy that it is likely to lose from float to int8 (``w8a8`` alone); see `nas.quantisation.risk`.
        int8_drop_upper_pct: Nine of ten networks like it lose less.
        operators: The breakdown of the model's estimate.
        repeats_within_pct: Median difference of two measurements there, for a measured latency.
        estimated: What the model alone would say, for a measured latency.
        profile_hash: Of the device's profile, its runtime's operators and the fitted coefficients.
        budgets: How it stands to each budget that was given.
        comparison: With an older network, where one was given.
    """

    network: str
    device: str
    precision: str
    runtime: str
    quantity: str
    batch: int
    latency_ms: float
    lower_ms: float
    upper_ms: float
    confidence: float
    grade: Grade | None = None
    model_error: ModelError | None = None
    width_why: str = ""
    basis: Basis
    extrapolated: bool
    extrapolated_why: tuple[str, ...]
    unsupported: tuple[str, ...]
    unchecked: tuple[str, ...] = ()
    precisions: Mapping[str, int] = {}
    input_normalisation_ms: float | None = None
    input_normalised: bool = False
    notices: tuple[str, ...] = ()
    macs: int
    params: int
    peak_memory_mb: float | None = None
    peak_memory_lower_mb: float | None = None
    peak_memory_upper_mb: float | None = None
    placement: Placement | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    int8_drop_pct: float | None = None
    int8_drop_upper_pct: float | None = None
    operators: tuple[OperatorShare, ...]
    repeats_within_pct: float | None = None
    estimated: Modelled | None = None
    profile_hash: str = ""
    budgets: tuple[BudgetCheck, ...] = ()
    comparison: Comparison | None = None

    @property
    def within_budgets(self) -> bool:
        """Whether every budget holds."""
        return all(check.holds for check in self.budgets)


class Measurement(Record):
    """Timings of one network on a device (``measure``).

    Attributes:
        device: What was timed on.
        precision: Of the file.
        median_ms: Of the samples.
        iqr_ms: Their interquartile range.
        samples_ms: In order.
        runtime: What executed it, with its version.
        threads: That it had; None where unknown.
        pinned: Whether they were bound to processors of their own.
        network: As it was named.
    """

    device: str
    precision: str
    median_ms: float
    iqr_ms: float
    samples_ms: tuple[float, ...]
    runtime: str
    threads: int | None
    pinned: bool
    network: str


class HeldOut(Record):
    """One network, predicted without its own timing."""

    name: str
    measured_ms: float
    latency_ms: float
    lower_ms: float
    upper_ms: float


class Scores(Record):
    """How good predictions are: errors, coverage and rank correlation against timings.

    Attributes:
        networks: What was tested.
        networks_tested: How many different ones.
        lineages_tested: How many lineages they are of, which the bootstrap draws; None where it draws networks.
        mean_error_pct: Of |predicted / measured − 1|.
        mean_error_interval_pct: 90 % bootstrap interval over lineages, or networks.
        median_error_pct: The same, median.
        median_error_interval_pct: 90 % bootstrap interval over lineages, or networks.
        within_10_pct: Share of networks within 10 %.
        within_25_pct: Share within 25 %.
        spearman: Rank correlation; None where it is not defined.
        coverage_pct: Share of timings inside their interval.
        above_upper_pct: Share of timings above the upper end, by which a budget admits.
        halfwidth_pct: Median half width of the intervals.
    """

    networks: tuple[HeldOut, ...]
    networks_tested: int
    lineages_tested: int | None
    mean_error_pct: float
    mean_error_interval_pct: tuple[float, float]
    median_error_pct: float
    median_error_interval_pct: tuple[float, float]
    within_10_pct: float
    within_25_pct: float
    spearman: float | None
    coverage_pct: float
    above_upper_pct: float
    halfwidth_pct: float | None


class Calibrated(Record):
    """A new device's profile (``devices calibrate``).

    Attributes:
        name: Of the device.
        path: Of its profile.
        base: The related device whose family was the prior.
        precisions: How good the fit is on networks that it has not seen, by precision.
        broken: Timings that were left out, with the reason.
    """

    name: str
    path: str
    base: str
    precisions: dict[str, Scores]
    broken: tuple[str, ...]


class Reference(Record):
    """A published network that is built here (``spaces references``)."""

    name: str
    system: str
    space: str
    params: int
    macs: int
    resolution: int | str
    top1_pct: float | None


class Contribution(Record):
    """What a study holds when a worker has done its part (``worker``).

    Attributes:
        storage: URL or path, without a password.
        study: Its name there.
        evaluations: Accuracies computed, by all workers.
        proposals: Trials, finished or not, of all workers.
    """

    storage: str
    study: str
    evaluations: int
    proposals: int


class StudySummary(Record):
    """One search of a storage (``studies``).

    Attributes:
        study: Its name.
        status: ``new``, ``training``, ``running``, ``interrupted`` or ``finished``.
        space: What is searched, with its version.
        devices: For which devices.
        goal: Objectives and budgets.
        searcher: Who proposes.
        evaluations: Accuracies computed.
        proposals: Trials, finished or not.
        workers: Processes that hold a living lease.
        best: First objective of the best trial within its budgets; None where there is none.
    """

    study: str
    status: str
    space: str
    devices: tuple[str, ...]
    goal: str
    searcher: str | None
    evaluations: int
    proposals: int
    workers: int
    best: float | None


class Agreement(Record):
    """How well a score orders networks whose accuracy is known. Intervals hold the figure in 90 % of resamples over networks.

    Attributes:
        n: Networks.
        kendall: Kendall's tau, −1 to 1; None where it is undefined, as all that follow.
        spearman: Rank correlation, −1 to 1.
        top_tenth_kendall: Kendall's tau among the best tenth.
        regret_points: Percentage points of accuracy that its first choice lacks to the best of the networks.
        above_baselines: Share of the resamples in which its tau is above that of every baseline, 0 to 1; of scores alone.
    """

    n: int
    kendall: float | None
    kendall_interval: tuple[float, float] | None
    spearman: float | None
    spearman_interval: tuple[float, float] | None
    top_tenth_kendall: float | None
    top_tenth_interval: tuple[float, float] | None
    regret_points: float
    regret_interval: tuple[float, float] | None
    above_baselines: float | None = None


class Intervals(Record):
    """How often intervals on accuracy hold, of networks whose accuracy the calibration did not know.

    Attributes:
        known: Networks whose accuracy it knew.
        n: Networks that it did not know.
        nominal: The share that the intervals are made for, 0 to 1.
        covered: The share that they hold.
        median_points: Median width in percentage points.
    """

    known: int
    n: int
    nominal: float
    covered: float
    median_points: float


class Contestant(Record):
    """A network of a ranking.

    Attributes:
        architecture: As JSON.
        accuracy_pct: Trained alone, or by the table.
        again_pct: Trained alone with another seed, where it was.
        scores: By name of the score or of the baseline.
        known: Whether it lent its accuracy to the calibration; such a network is in no comparison.
        interval_pct: In which the calibration expects its accuracy; None where none was made.
    """

    architecture: str
    accuracy_pct: float
    again_pct: float | None = None
    scores: dict[str, float]
    known: bool = False
    interval_pct: tuple[float, float] | None = None


class Ranking(Record):
    """How well scores order networks whose accuracy is known (``rank``).

    Attributes:
        n: Networks that are compared.
        space: Of which they are members.
        truth: What the known accuracies are.
        data: Name and content address of the pictures; None where none were looked at.
        scores: By name: what was trained, or calibrated, to score them.
        baselines: By name: what costs next to nothing. Parameters, multiply-adds, latency by device, and a vote of training-free scores.
        intervals: How often the calibration's intervals hold; None where none was made.
        ceiling: How well training alone with another seed orders the networks that were trained twice; None where none were.
        networks: Each with its accuracy and its scores.
        plot: The picture of it.
    """

    n: int
    space: str
    truth: str
    data: str | None
    scores: dict[str, Agreement]
    baselines: dict[str, Agreement]
    intervals: Intervals | None
    ceiling: Agreement | None
    networks: tuple[Contestant, ...]
    plot: str | None = None


class Training(Record):
    """What a training has made (``train``).

    Attributes:
        file: The checkpoint.
        kind: ``supernet`` or ``member``.
        space: Of the weights.
        data: Name and content address of the data.
        resolution: Height and width in pixels.
        epochs: Passes over the training pictures.
        validation_accuracy_pct: By member.
        blind: What naming classes blindly scores on the same pictures.
        weights: Content address of a supernet's weights.
        seconds: Of this session.
    """

    file: str
    kind: Literal["supernet", "member"]
    space: str
    data: str
    resolution: tuple[int, int]
    epochs: int
    validation_accuracy_pct: dict[str, float]
    blind: Blind | None = None
    weights: str | None = None
    seconds: float


class SystemEntry(Record):
    """A published system and what of it is built here (``systems``).

    Attributes:
        number: Of the entry.
        system: Its name.
        kind: What it is about, such as ``attention``.
        priority: ``A`` first, ``C`` last.
        parts: What is built, as ``mixer/window``.
        grade: The worst NPU grade of its operators; None where there are none.
        networks: Published networks that are built and counted.
        paper: Title and number of the paper, of what is built.
        note: What is missing, and why.
    """

    number: str
    system: str
    kind: str
    priority: str
    parts: tuple[str, ...]
    grade: str | None
    networks: int
    paper: str
    note: str


class Export(Record):
    """A model file (``export``).

    Attributes:
        path: Where it is.
        format: Exporter's name.
        precision: Of its arithmetic.
        architecture: Whose weights it holds.
        weights: What they are.
        sha256: Of its bytes.
        size_bytes: Of the file.
        max_difference: Between module and reloaded file on the probe input.
        accuracy_pct: On the test pictures, in the runtime; None where there are no data.
        operators: Kinds in the file, with counts.
        notices: What was to be known before it was written, such as a quantised network that takes longer than in float.
    """

    path: str
    format: str
    precision: str
    architecture: Genotype
    weights: str
    sha256: str
    size_bytes: int
    max_difference: float
    accuracy_pct: float | None
    operators: dict[str, int]
    notices: tuple[str, ...] = ()


class ModelFile(Record):
    """What a model file says of itself (``show FILE``).

    Attributes:
        path: Where it is.
        format: Exporter's name.
        size_bytes: Of the file and of what lies beside it.
        facts: As they were written: classes, mean, std, layout, devices, precision, accuracies, hashes, …
    """

    path: str
    format: str
    size_bytes: int
    facts: dict[str, str]


class ExportAtPrecision(Record):
    """One row of ``export --precision all``."""

    precision: str
    path: str
    latency_ms: float
    lower_ms: float
    upper_ms: float
    extrapolated: bool
    size_bytes: int
    accuracy_pct: float | None
    float_parts: tuple[str, ...]


class Exports(Record):
    """One network at every precision (``export --precision all``)."""

    device: str
    architecture: Genotype
    precisions: tuple[ExportAtPrecision, ...]

    def rows(self) -> list[dict[str, Cell]]:
        """Return a row a precision."""
        return [row for precision in self.precisions for row in precision.rows()]


def as_rows(records: Sequence[Record]) -> list[dict[str, Cell]]:
    """Return the rows of several results."""
    return [row for record in records for row in record.rows()]


COMMANDS = {
    "search": "Result",
    "show": "Result",
    "resume": "Result",
    "predict": "Estimate",
    "measure": "Measurement",
    "train": "Training",
    "rank": "Ranking",
    "export": "Export",
    "worker": "Contribution",
    "devices-calibrate": "Calibrated",
    "spaces-references": "Reference",
    "studies": "StudySummary",
    "systems": "SystemEntry",
}
"""The record that each command prints; ``export --precision all`` prints `Exports`, lists hold one record a row."""


def schemas() -> dict[str, type[Record]]:
    """Return every record by its name."""
    return {name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record}
