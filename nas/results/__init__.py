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

StatedQuantity = Literal["latency", "reciprocal_throughput"]
"""What milliseconds are: those of one picture, or those of a frame at full load."""

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
    """The errors of a device's latency model on networks that the fit had not seen.

    Attributes:
        mean_error_pct: Mean of |predicted / measured − 1| on the networks or lineages left out.
        median_error_pct: Median of the same.
        networks: Number of networks left out.
        lineages: Number of lineages, each left out whole; None where each network was left out alone.
        above_upper_pct: Share that took longer than the upper end of the interval, which budgets are compared with.
        later_mean_error_pct: Mean error on networks that were first timed after everything in the fit.
        later_median_error_pct: Median of the same.
        later_networks: Number of those networks.
        line: The same in one sentence.
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
        space: Name of the space, preset included.
        version: Version of the space. The same genes may mean another network in another version.
        genes: One value for each choice of the space.
    """

    space: str
    version: int
    genes: tuple[int | str, ...]


class DeviceLatency(Record):
    """The latency of one network on one device, in milliseconds a picture.

    Attributes:
        latency_ms: Central value.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end of the interval; budgets are compared with it.
        basis: ``measured``, ``estimated`` or ``proxy``.
        precision: Precision of the network there; ``mixed`` where its parts differ.
        extrapolated: Whether the network lies outside of what the model was calibrated on.
        grade: Trust in the device's latency model, A to D; see `nas.devices.trust`.
        budget_ms: Budget for this device; None without one.
        margin_ms: Budget minus upper end.
        quantity: ``latency``, or ``reciprocal_throughput`` where the milliseconds are those of a frame at full load.
        budget_fps: Budget of throughput for this device; None without one.
        margin_fps: Throughput at the upper end minus that budget.
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
    quantity: StatedQuantity = "latency"
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
        key: Short hash of the architecture.
        architecture: The architecture.
        devices: Latency by device. The first device's is repeated below.
        latency_ms: Central value on the first device.
        lower_ms: Lower end of the interval on the first device.
        upper_ms: Upper end of the interval on the first device.
        precision: Precision on the first device.
        resolution: Input size in pixels: ``224``, or ``192x256`` (height x width).
        accuracy_pct: Accuracy on the test pictures; for published networks as published; None where the network was not fine-tuned.
        float_accuracy_pct: Accuracy on the test pictures before quantisation.
        validation_accuracy_pct: Accuracy on the validation pictures after fine-tuning.
        supernet_accuracy_pct: Score that the search used, see `Result.scored`: of a supernet score, accuracy on validation pictures at the proxy resolution.
        probe_accuracy_pct: Accuracy of a linear classifier on the frozen features of a published network, see `Contender`.
        macs: Multiply-adds of one picture.
        params: Parameters of the deploy form.
        size_bytes: Size of the exported file, where it is an objective.
        memory_bytes: Peak memory of the activations, where it is an objective.
        peak_memory_bytes: Upper end of the process's peak memory on the first device, where a budget limits it; of the activations alone where no
            memory is fitted for the device.
        ram_bytes: RAM of the activations on the first device, where a budget limits it.
        flash_bytes: Flash of the weights on the first device, where a budget limits it.
        int8_drop_pct: Points of accuracy that the network is predicted to lose at 8 bits, where it runs so and was not quantised to measure it.
        off_npu_pct: Chance that a part runs on CPU or GPU of the first device, where the runtime's published jobs allow a prediction.
        trial: Number of the trial in the study.
        network: Name of a published network.
        weights: Name of its published weights.
        pretraining: Data on which these weights were pretrained.
        distilled: Whether these weights were distilled.
        source: Publisher of the accuracy.
        chain: The trained networks that the chain is made of: which blocks, and what was done to them.
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
        factor: Factor on all budgets.
        network: The most accurate network within them; None where no scored network fits.
        accuracy_pct: Accuracy of that network.
        line: The same in one sentence.
    """

    factor: float
    network: str | None
    accuracy_pct: float | None
    line: str


class WhyNotMore(Record):
    """What excludes more accurate networks.

    Attributes:
        network: The most accurate network that was excluded; None without one.
        architecture: Its architecture.
        accuracy_pct: Its accuracy.
        nearest: The more accurate network that exceeds the budgets least.
        nearest_accuracy_pct: Accuracy of that network.
        nearest_over_pct: By how much it exceeds the budget that it exceeds most.
        device: Device whose budget the most accurate network exceeds most.
        upper_ms: Upper end of its interval there.
        over_pct: By how much it exceeds that budget.
        stages: Latency by stage, largest first.
        operators: Latency by kind of operator, largest first.
        budget_changes: What slightly smaller and larger budgets would give.
        lines: The same in sentences.
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
        key: Short hash of the architecture.
        line: The same in one sentence.
        device: Device that was timed.
        precision: Precision of the file.
        median_ms: Median of the samples.
        iqr_ms: Their interquartile range.
        samples_ms: Samples in the order of timing.
        runtime: Runtime that executed the file.
        threads: Number of threads.
        pinned: Whether each thread was bound to one processor.
        network: Its name; None in runs of before, as the estimate is.
        latency_ms: What was estimated.
        lower_ms: Lower end of its interval.
        upper_ms: Upper end.
        error_pct: Error of the estimate.
        inside: Whether the median lies inside the interval.
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
    network: str | None = None
    latency_ms: float | None = None
    lower_ms: float | None = None
    upper_ms: float | None = None
    error_pct: float | None = None
    inside: bool | None = None


class Revision(Record):
    """What timings of the finalists change in the estimates of all candidates on that device, and in the choice.

    Attributes:
        device: Device that was timed.
        count: Number of networks that were timed.
        factor: Factor on the estimates.
        width_factor: Factor on the logarithm of the intervals' half widths.
        former_choice: Key of the choice before the timings; of published networks on your pictures, of the best probe before them.
        line: The same in one sentence.
    """

    device: str
    count: int
    factor: float
    width_factor: float
    former_choice: str
    line: str


class Blind(Record):
    """The accuracies that need no network: of naming classes without looking at the pictures.

    Attributes:
        chance_pct: Accuracy of naming any class at random.
        majority_class: The most frequent class of the training pictures.
        majority_pct: Accuracy of always naming that class.
        pictures: Number of pictures that were scored.
        verdict: A sentence where the network is not clearly better than both; empty where it is.
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
    """A network at one input size, compared with others on the user's pictures.

    Attributes:
        key: Short hash of the architecture.
        kind: Space of the network, where several spaces shared a run.
        network: Name of the network, or its key.
        resolution: Input size in pixels.
        latency_ms: Latency on the first device.
        upper_ms: Upper end of its interval.
        probe_accuracy_pct: Accuracy of a linear classifier on the frozen features of a published network: on `pictures` validation pictures, and by cross-validation
            on the training pictures that it is fitted to.
        probe_pictures: Number of pictures of that accuracy.
        supernet_accuracy_pct: Accuracy with shared weights, at the proxy resolution, on `scored_pictures` validation pictures.
        scored_pictures: Number of validation pictures of that score.
        raced_accuracy_pct: Accuracies on `pictures` validation pictures at each comparison during fine-tuning, in order.
        validation_accuracy_pct: Accuracy on the same pictures after fine-tuning; None where that was stopped early.
        accuracy_pct: Accuracy on the test pictures; None where the network was not exported.
        pictures: Number of validation pictures that were compared.
        epochs: Fine-tuning so far, in passes over the training pictures.
        outcome: What became of it, in words.
    """

    key: str
    kind: str = ""
    network: str
    resolution: int | str
    latency_ms: float
    upper_ms: float
    probe_accuracy_pct: float | None = None
    probe_pictures: int = 0
    supernet_accuracy_pct: float | None = None
    scored_pictures: int = 0
    raced_accuracy_pct: tuple[float, ...] = ()
    validation_accuracy_pct: float | None = None
    accuracy_pct: float | None = None
    pictures: int
    epochs: float = 0.0
    outcome: str = ""


class PhaseCost(Record):
    """The forecast and the real cost of a phase.

    Attributes:
        phase: Name of the phase.
        forecast_s: Forecast before training, in seconds by the clock; None without one.
        seconds: Real time in seconds by the clock.
    """

    phase: str
    forecast_s: float | None = None
    seconds: float


class Ledger(Record):
    """The cost of a run, all its sessions together.

    Attributes:
        limit_s: Time limit of the request; None without one.
        forecast_s: Forecast for the whole run before training; None without one.
        seconds: Time by the clock.
        processor_s: Processor time of all cores.
        energy_j: Energy of the processor package, where the system states it. It includes everything that ran beside.
        phases: Costs by phase, in order.
    """

    limit_s: float | None = None
    forecast_s: float | None = None
    seconds: float
    processor_s: float
    energy_j: float | None = None
    phases: tuple[PhaseCost, ...] = ()

    @property
    def other_s(self) -> float:
        """Seconds of no phase: reading pictures, pricing and choosing."""
        return max(0.0, self.seconds - sum(cost.seconds for cost in self.phases))


class ByClass(Record):
    """The accuracy of the exported file by class, on the test pictures.

    Attributes:
        classes: Names of the classes.
        pictures: Number of test pictures of each class.
        accuracy_pct: Accuracy of each class; None for a class without pictures.
        confusion: Counts of pictures: a row for each true class, a column for each class that the file names.
    """

    classes: tuple[str, ...]
    pictures: tuple[int, ...]
    accuracy_pct: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]


class Result(Record):
    """The result of a search, finished or not (``search``, ``show``, ``resume``).

    Attributes:
        run_dir: Run directory.
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
        chosen: The chosen network.
        front: Networks that no other beats in every objective.
        zoo: Published networks within the same budgets, on their own front.
        model: Path of the exported file; None without one.
        model_reason: Why there is no file.
        evaluations: Number of accuracies that were computed.
        proposals: Number of candidates that were proposed.
        seconds: Time by phase.
        notices: Remarks for the user.
        why: Reason for the choice.
        blocks: The chosen network in words, one line a stage.
        compared: Candidates that were compared picture by picture.
        knee: Key of the knee of the front.
        scored: What the scores of the search (`Point.supernet_accuracy_pct`) are.
        counting: Kendall's tau of the scores with parameters, multiply-adds and each device's estimated latency, over the candidates that were scored.
        objectives: Names of the objectives, accuracy first.
        hypervolume_history: Hypervolume of the front after each evaluation.
        model_sha256: SHA-256 of the file.
        lacking_operators: Operators that a device lacks.
        sensitivity_db: Signal-to-noise ratio of the scores where one block alone has 8 bits, by block.
        why_not_more: What excludes more accurate networks.
        verified: Timings of the finalists.
        revision: What those timings change in the estimates and in the choice; None where nothing was timed.
        latency_models: Errors of each device's latency model on networks that the fit had not seen, where that was tested.
        open: Steps that wait for the user, each with what to do.
        blind: Accuracies of naming classes without looking at the pictures; None where no network was tested.
        by_class: Accuracy of the exported file by class; None where it was not tested.
        contenders: Networks that were compared on the user's pictures.
        ledger: Cost of the run; None where nothing was fine-tuned with a clock.
        phase: Current phase of an unfinished run.
        done: Finished steps of that phase.
        total: Number of steps of that phase.
        eta_s: Forecast of the time that the phase still takes.
        evaluations_per_s: Evaluations a second.
        best_accuracy_pct: Best accuracy so far.
        front_size: Size of the front so far.
        hypervolume: Hypervolume of the front so far.
        error: Reason why a run failed.
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
    counting: dict[str, float] = Field(default_factory=dict)
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
    """A budget, and whether a network keeps it.

    Attributes:
        budget: The budget as it was written.
        quantity: ``latency``, ``throughput``, ``size``, ``memory``, ``ram``, ``flash``, ``macs``, ``params`` or ``drop``.
        unit: Unit of `limit` and `value`: ``ms``, ``fps``, ``MB``, ``points``, …
        limit: The limit: a lower one for throughput, else an upper one.
        value: Value of the network.
        judged: What was compared with it: ``upper`` (the worse end of the interval), ``point`` (its centre), or ``count`` for what is counted.
        holds: Whether the budget is kept; false where the device lacks an operator.
        over_pct: By how much the limit is exceeded, in percent of it; negative where there is room.
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
    """The latency of one operator, or one kind of operator, before and after; None where it is absent.

    Attributes:
        name: Name of the operator; empty for a kind.
        op: Kind of operator.
        before_ms: Latency in the older network.
        after_ms: Latency in the newer network.
        before_count: Number of operators of the kind in the older network.
        after_count: Number in the newer network.
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
        network: The older network.
        before: Latency of the older network.
        change_ms: Newer minus older, by the latency model alone on both sides.
        change_pct: The same in percent of the older.
        kinds: Changes by kind of operator, largest increase first.
        operators: Changes by operator, largest increase first. Operators are paired by name, or by order where the names do not agree.
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
        wholly_on_npu: Whether it is predicted to run wholly on the NPU.
        operator: Kind of operator that runs elsewhere; empty where no operator is the reason.
        slower: Median factor by which networks that did not run wholly on the NPU took longer; None where that is unknown.
        why: Reason in words; empty where it is predicted to run wholly on the NPU.
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
    """The latency of a network on a device (``predict``).

    Attributes:
        network: Name of the network as it was given.
        device: Name of the profile.
        precision: Precision of the network; ``mixed`` where its operators differ.
        runtime: Runtime of the profile.
        quantity: ``latency``, or ``reciprocal_throughput``.
        batch: Pictures in one run: the network's own batch where it has one, else the profile's.
        latency_ms: Central value for one run; for one picture where the quantity is ``reciprocal_throughput``.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end of the interval.
        confidence: Nominal coverage of the interval. It is lower than requested where the device's intervals covered too few of the networks left out.
        grade: Trust in the device's latency model, A to D; see `nas.devices.trust`.
        model_error: Errors of that model on networks that the fit had not seen; None where that was not tested.
        width_why: Why an interval is wider than ×/÷ 3, and what to do; else empty.
        basis: ``measured``, ``estimated`` or ``proxy``.
        extrapolated: Whether the network lies outside of what the model was calibrated on.
        extrapolated_why: Reasons in words.
        unsupported: Operators that the device or its model lacks. The figures do not include them.
        unchecked: Operators of which no source states whether the device has them. The figures include them.
        precisions: Number of operators by precision.
        input_normalisation_ms: What it would add to normalise images on the device, as the networks of its tables do; None where they do not.
        input_normalised: Whether the figures include that: true for published networks, false for files and architectures.
        notices: What reading the network left out or assumed.
        macs: Multiply-adds of one run.
        params: Parameters.
        peak_memory_mb: Peak memory of the process in 10⁶ bytes, where it is fitted for the device; see `nas.devices.peak_memory`.
        peak_memory_lower_mb: Lower end of its 90 % interval.
        peak_memory_upper_mb: Upper end; budgets are compared with it.
        placement: Prediction whether the network runs wholly on the NPU; None where the runtime has no published jobs.
        placement_onnx: The same on that board under ONNX Runtime, which has no profiles of its own.
        ram_bytes: RAM of the activations, on a device that runs from RAM and flash.
        flash_bytes: Flash of the weights there.
        int8_drop_pct: Points of accuracy that the network is predicted to lose from float to int8 (``w8a8`` alone); see `nas.quantisation.risk`.
        int8_drop_upper_pct: Upper end: nine of ten such networks lose less.
        operators: Latency of each operator by the model.
        repeats_within_pct: Median difference of two measurements on this device, for a measured latency.
        estimated: Estimate of the model, for a measured latency.
        profile_hash: Hash over the profile, its runtime's operators and the fitted coefficients.
        budgets: Each budget, and whether the network keeps it.
        comparison: Comparison with an older network, where one was given.
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
    placement_onnx: Placement | None = None
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
        device: Device that was timed.
        precision: Precision of the file; None where its format does not tell.
        median_ms: Median of the samples.
        iqr_ms: Interquartile range of the samples.
        samples_ms: Samples in the order of timing.
        runtime: Runtime that executed the file, with its version.
        threads: Number of threads; None where unknown.
        pinned: Whether each thread was bound to one processor.
        network: Name of the network as it was given.
    """

    device: str
    precision: str | None
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
    """Errors, coverage and rank correlation of predictions against timings.

    Attributes:
        networks: The networks that were tested.
        networks_tested: Number of different networks.
        lineages_tested: Number of their lineages, from which the bootstrap draws; None where it draws networks.
        mean_error_pct: Mean of |predicted / measured − 1|.
        mean_error_interval_pct: 90 % bootstrap interval over lineages, or networks.
        median_error_pct: Median of the same.
        median_error_interval_pct: 90 % bootstrap interval over lineages, or networks.
        within_10_pct: Share of networks within 10 %.
        within_25_pct: Share within 25 %.
        spearman: Spearman's rank correlation; None where it is undefined.
        coverage_pct: Share of timings inside their interval.
        above_upper_pct: Share of timings above the upper end, which budgets are compared with.
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
        name: Name of the device.
        path: Path of its profile.
        base: The related device whose family was the prior.
        quantity: What timings are taken for, as the base has it: ``latency``, or ``reciprocal_throughput``, milliseconds a frame at full load.
        precisions: Errors on networks that the fit has not seen, by precision.
        broken: Timings that were left out, with the reason.
    """

    name: str
    path: str
    base: str
    quantity: StatedQuantity
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
    """The state of a study when a worker has finished its part (``worker``).

    Attributes:
        storage: URL or path of the storage, without a password.
        study: Name of the study.
        evaluations: Number of accuracies, by all workers.
        proposals: Number of trials, finished or not, by all workers.
    """

    storage: str
    study: str
    evaluations: int
    proposals: int


class StudySummary(Record):
    """One search of a storage (``studies``).

    Attributes:
        study: Name of the study.
        status: ``new``, ``training``, ``running``, ``interrupted`` or ``finished``.
        space: Space that is searched, with its version.
        devices: Devices of the search.
        goal: Objectives and budgets.
        searcher: Name of the searcher.
        evaluations: Number of accuracies that were computed.
        proposals: Number of trials, finished or not.
        workers: Number of processes that hold a valid lease.
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
        n: Number of networks.
        kendall: Kendall's tau, −1 to 1; None where it is undefined, as for all below.
        spearman: Spearman's rank correlation, −1 to 1.
        top_tenth_kendall: Kendall's tau among the best tenth.
        regret_points: Percentage points of accuracy by which its first choice is below the best network.
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
    """How often intervals on accuracy hold, for networks whose accuracy the calibration did not use.

    Attributes:
        known: Number of networks whose accuracy the calibration used.
        n: Number of other networks.
        nominal: Nominal coverage of the intervals, 0 to 1.
        covered: Share of networks inside their interval, 0 to 1.
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
        architecture: The architecture as JSON.
        accuracy_pct: Accuracy after training alone, or from the table.
        again_pct: Accuracy after training alone with another seed; None where that was not done.
        scores: Scores and baselines by name.
        known: Whether the calibration used its accuracy. Such a network is in no comparison.
        interval_pct: Interval of its accuracy by the calibration; None without one.
    """

    architecture: str
    accuracy_pct: float
    again_pct: float | None = None
    scores: dict[str, float]
    known: bool = False
    interval_pct: tuple[float, float] | None = None


class Predicted(Record):
    """A network that was not trained, by the networks of a ranking that were.

    Attributes:
        key: Of the network.
        accuracy_pct: Predicted accuracy after the same training.
        interval_pct: Interval of it. It holds for networks drawn as those of the ranking were; one that was picked by its score may lie outside more often.
    """

    key: str
    accuracy_pct: float
    interval_pct: tuple[float, float]


class Ranking(Record):
    """How well scores order networks whose accuracy is known (``rank``).

    Attributes:
        n: Number of networks that are compared.
        space: Space of the networks.
        truth: Where the known accuracies come from.
        data: Name and content address of the pictures; None where none were used.
        scores: Agreement of the scores that need training or calibration, by name.
        baselines: Agreement of what costs next to nothing, by name: parameters, multiply-adds, latency by device, and a vote of training-free scores.
        intervals: How often the calibration's intervals hold; None without a calibration.
        ceiling: How well training alone with another seed orders the networks that were trained twice; None where none were.
        networks: Each with its accuracy and its scores.
        predicted: Networks of the front of the run whose scores are judged.
        plot: Path of the plot.
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
    predicted: tuple[Predicted, ...] = ()
    plot: str | None = None


class Training(Record):
    """A training (``train``).

    Attributes:
        file: Path of the checkpoint.
        kind: ``supernet`` or ``member``.
        space: Space of the weights.
        data: Name and content address of the data.
        resolution: Height and width in pixels.
        epochs: Passes over the training pictures.
        validation_accuracy_pct: Accuracy on the validation pictures by member.
        blind: Accuracies of naming classes without looking at the same pictures.
        weights: Content address of a supernet's weights.
        seconds: Time of this session.
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
        number: Number of the entry.
        system: Name of the system.
        kind: Subject, such as ``attention``.
        priority: ``A`` (first) to ``C`` (last).
        parts: What is built of it, as ``mixer/window``.
        grade: The worst NPU grade of its operators; None without operators.
        networks: Published networks that are built and counted.
        paper: Title and identifier of the paper of what is built.
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
        path: Path of the file.
        format: Name of the exporter.
        precision: Precision of the arithmetic.
        architecture: Architecture of the network.
        weights: Origin of the weights.
        sha256: SHA-256 of the file.
        size_bytes: Size of the file.
        max_difference: Largest difference between module and reloaded file on the probe input.
        accuracy_pct: Accuracy on the test pictures, in the runtime; None without data.
        operators: Number of operators by kind in the file.
        notices: Remarks from before it was written, such as a quantised network that takes longer than in float.
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
    """The contents of a model file (``show FILE``).

    Attributes:
        path: Path of the file.
        format: Format of the file.
        size_bytes: Size of the file and of its external data.
        facts: Metadata as they were written: classes, mean, std, layout, devices, precision, accuracies, hashes, …
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
