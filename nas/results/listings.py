"""What commands that list, show and sample answer; see `nas.results`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from nas.results import Basis, DeviceLatency, Genotype, Grade, Record, Scores


class ChoiceOverview(Record):
    """One gene of a space.

    Attributes:
        name: Of the choice.
        values: What it can be.
        ordered: Whether neighbours are alike.
    """

    name: str
    values: tuple[int | str, ...]
    ordered: bool


class SpaceOverview(Record):
    """A search space (``spaces show``).

    Attributes:
        name: With preset and options.
        version: Of its encoding.
        size: Number of encodings, in digits.
        choices: The genes.
        about: What it is.
    """

    name: str
    version: int
    size: str
    choices: tuple[ChoiceOverview, ...]
    about: str


class Sample(Record):
    """A member of a space, drawn at random (``spaces sample``).

    Attributes:
        architecture: As `nas predict` and `nas export` take it.
        key: Of the architecture.
        macs: At batch 1.
        params: Of the deploy form.
        resolution: Height x width in pixels.
    """

    architecture: Genotype
    key: str
    macs: int
    params: int
    resolution: str


class AddedDevice(Record):
    """A device that is known from now on (``devices add``).

    Attributes:
        name: Of the device.
        path: Of its profile.
        artifacts: Files of fitted coefficients beside it.
    """

    name: str
    path: str
    artifacts: tuple[str, ...]


class ModelScores(Scores):
    """How good a latency model is on networks that it never saw (``bench latency-models``).

    Attributes:
        protocol: What was left out.
        device: Name in the table.
        precision: In question.
        runtime: In question.
        predictor: Under test.
        seed: Of draws.
        baselines: Errors of plain models on the same networks, and how many they answered.
        repeats_within_pct: Median difference of two measurements: no model can be better.
        without_graph: Networks of the table that have no graph here.
        notes: What is wrong with the table.
    """

    protocol: str
    device: str
    precision: str
    runtime: str
    predictor: str
    seed: int
    baselines: dict[str, dict[str, float]]
    repeats_within_pct: float | None
    without_graph: tuple[str, ...]
    notes: tuple[str, ...]


class SpaceRow(Record):
    """A search space in the list (``spaces list``).

    Attributes:
        name: With preset.
        summary: What it is for.
        choices: How many genes; with ``--sizes``, None where the space cannot be built here.
        log10_size: Of the number of encodings; the same.
        needs: What is missing to build it; the same, None where nothing is.
    """

    name: str
    summary: str
    choices: int | None = None
    log10_size: float | None = None
    needs: str | None = None


class DeviceRow(Record):
    """A device in the list (``devices list``); all but name and fault are those of its default precision.

    Attributes:
        name: Of the device.
        error: Why its profile cannot be read; nothing else is known then.
        title: As its vendor writes it.
        aliases: What people type.
        vendor: Who makes it.
        grade: How far to believe its latency model.
        kind: What computes.
        family: Devices of one family share a prior.
        generation: Within the family.
        runtime: What executed the networks.
        quantity: ``latency`` or ``reciprocal_throughput``.
        batch: Images a run.
        precisions: The default first.
        fitted: Precisions with a latency model.
        networks: Held out, or timed where none was held out.
        timed_networks: By precision.
        families: Held out.
        mean_error_pct: On networks held out.
        mean_error_interval_pct: 90 % bootstrap interval over families, or networks.
        later_networks: First timed after everything that a fit knew.
        later_mean_error_pct: On these.
        above_upper_pct: Share of the networks held out that took longer than the upper end.
        coverage_pct: Share of those inside their interval.
    """

    name: str
    error: str = ""
    title: str = ""
    aliases: tuple[str, ...] = ()
    vendor: str = ""
    grade: Grade = "D"
    kind: str = ""
    family: str = ""
    generation: str = ""
    runtime: str = ""
    quantity: str = "latency"
    batch: int = 1
    precisions: tuple[str, ...] = ()
    fitted: tuple[str, ...] = ()
    networks: int = 0
    timed_networks: dict[str, int] = Field(default_factory=dict)
    families: int | None = None
    mean_error_pct: float | None = None
    mean_error_interval_pct: tuple[float, float] | None = None
    later_networks: int | None = None
    later_mean_error_pct: float | None = None
    above_upper_pct: float | None = None
    coverage_pct: float | None = None


class SuggestedNetwork(Record):
    """A network to time on a new device.

    Attributes:
        name: Of the network.
        macs: At batch 1.
        params: As it is deployed.
        base_latency_ms: On the device that is known.
    """

    name: str
    macs: int
    params: int
    base_latency_ms: float


class Suggestion(Record):
    """Networks whose timings say most about a new device (``devices suggest``).

    Attributes:
        name: Of the new device.
        base: Of the device that is known.
        precision: At which they are to be timed.
        networks: The most telling first.
        written_to: Folder of the files, where they were written.
        next: The command that follows.
    """

    name: str
    base: str
    precision: str
    networks: tuple[SuggestedNetwork, ...]
    written_to: str | None
    next: str


class Installation(Record):
    """What is installed and what is wrong with it (``doctor``).

    Attributes:
        nas: Version.
        python: Version.
        platform: Operating system and processor.
        cores: Processors that the system counts.
        gpus: Their names.
        packages: Version by distribution, None where it is missing.
        extras: Extra by distribution; the empty string for what is always needed.
        config_home: Where the user's own profiles lie.
        plugins: Names by kind of plug-in.
        devices: Valid profiles.
        faults: One line each.
    """

    nas: str
    python: str
    platform: str
    cores: int | None
    gpus: tuple[str, ...]
    packages: dict[str, str | None]
    extras: dict[str, str]
    config_home: str
    plugins: dict[str, tuple[str, ...]]
    devices: int
    faults: tuple[str, ...]


class WholeLatency(Record):
    """Latency of a whole network on a device.

    Attributes:
        latency_ms: Central value.
        lower_ms: Lower end of the interval.
        upper_ms: Upper end.
        basis: How it is known.
    """

    latency_ms: float
    lower_ms: float
    upper_ms: float
    basis: Basis


class SegmentCost(Record):
    """A segment of a network between two cut points.

    Attributes:
        point: Number of the point at its end.
        label: Of that point.
        shape: Of the tensor there.
        layout: Of its axes.
        reduction: Input size by size there; 0 where it has no height and width.
        macs: Of the segment at batch 1.
        params: Of the segment.
        latency_ms: Its share, by device and precision.
    """

    point: int
    label: str
    shape: tuple[int, ...]
    layout: str
    reduction: float
    macs: int
    params: int
    latency_ms: dict[str, float] = Field(default_factory=dict)


class AnchorOverview(Record):
    """Where a trained network can be cut (``anchors show``).

    Attributes:
        network: Name, or the file and function that made it.
        resolution: Height and width in pixels.
        weights: File of the weights.
        source: Of the weights.
        assigned_by: ``name`` or ``order``; the empty string where none were loaded.
        points: How many cut points.
        devices: Latency of the whole by device and precision.
        segments: In order.
    """

    network: str
    resolution: tuple[int, int]
    weights: str
    source: str
    assigned_by: str
    points: int
    devices: dict[str, WholeLatency]
    segments: tuple[SegmentCost, ...]


class DeviceOverview(Record):
    """Everything that is known of a device (``devices show``): its profile, as `nas.devices.profile.Profile` describes it, and what follows.

    Attributes:
        hash: Over profile and its runtime's operators; runs record it.
        grades: By precision.
        remarks: What other profiles say of it: of the same chip with other times, of the same source with newer ones.
    """

    name: str
    title: str
    kind: str
    family: str
    generation: str
    aliases: tuple[str, ...]
    quantity: Literal["latency", "reciprocal_throughput"]
    batch: int
    runtime: str
    operators: str
    compiled: bool
    threads: int | None
    on_chip_memory_mb: float | None
    default_precision: str
    precisions: dict[str, dict[str, object]]
    origin: dict[str, object]
    memory: dict[str, object] | None
    proxy: str
    notes: tuple[str, ...]
    hash: str
    grades: dict[str, Grade]
    remarks: tuple[str, ...] = ()


class RunSummary(Record):
    """One run among others (``compare``).

    Attributes:
        run: Name of its directory.
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
        space: Of the choice.
        network: The choice; None where there is none yet.
        accuracy_pct: Of the choice, on the test pictures or as published.
        devices: Latency of the choice by device.
        front_size: Networks of the front.
        evaluations: Accuracies that were computed.
        seconds: Of all phases.
    """

    run: str
    status: str
    space: str | None
    network: str | None
    accuracy_pct: float | None
    devices: dict[str, DeviceLatency]
    front_size: int
    evaluations: int
    seconds: float


class SearcherTask(Record):
    """Means of a searcher on one device and budget; further figures stand beside them.

    Attributes:
        device: Column of the latencies.
        budget_quantile: Share of the space within the budget.
        budget_ms: The budget.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    device: str
    budget_quantile: float
    budget_ms: float


class SearcherFigures(Record):
    """Means of a searcher over tasks and seeds; the figures, each a number, stand beside these.

    Attributes:
        standard_error: Of each figure.
        runs: How many.
        tasks: Means by device and budget.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    standard_error: dict[str, float]
    runs: int
    tasks: tuple[SearcherTask, ...]

    @property
    def figures(self) -> dict[str, float]:
        """The means by name."""
        return {name: value for name, value in (self.model_extra or {}).items() if isinstance(value, float)}


class SearcherComparison(Record):
    """Searchers on tables whose best answer is known (``bench search``).

    Attributes:
        protocol: Settings of the comparison.
        searchers: Figures by searcher.
    """

    protocol: dict[str, object]
    searchers: dict[str, SearcherFigures]


class TransferScores(Record):
    """Means over repetitions for one device; a predictor's own notes on its fit stand beside them.

    Attributes:
        spearman: Rank correlation.
        kendall: The same, Kendall's τ.
        mean_error_pct: Of |predicted / measured − 1|.
        median_error_pct: The same, median.
        within_10_pct: Share of networks within 10 %.
        within_25_pct: Share within 25 %.
        coverage_pct: Share of timings inside their interval.
        halfwidth_pct: Median half width of the intervals.
        spearman_sd: Over the repetitions.
        ceiling: What the same model reaches with every row of the pool timed.
        baselines: Spearman of plain models.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    spearman: float
    kendall: float
    mean_error_pct: float
    median_error_pct: float
    within_10_pct: float
    within_25_pct: float
    coverage_pct: float
    halfwidth_pct: float
    spearman_sd: float
    ceiling: dict[str, float]
    baselines: dict[str, float]


class TransferComparison(Record):
    """Devices predicted from a few timings each (``bench latency-transfer``).

    Attributes:
        devices: Scores by device.
        mean_spearman: Over the devices.
        mean_ceiling_spearman: Of the ceilings.
        baselines: Plain models over the devices.
        protocol: Settings.
        defects: What is wrong with the table.
    """

    devices: dict[str, TransferScores]
    mean_spearman: float
    mean_ceiling_spearman: float
    baselines: dict[str, dict[str, float]]
    protocol: dict[str, object]
    defects: tuple[str, ...]


class NetworkMoved(Record):
    """A network's latency before and after an update.

    Attributes:
        network: Its published name.
        before_ms: As the profile had it; null where it had none.
        ms: In the newer table.
        change_pct: From one to the other; null where there was none.
    """

    network: str
    before_ms: float | None
    ms: float
    change_pct: float | None


class PrecisionMoved(Record):
    """What newer timings moved on a device at one precision.

    Attributes:
        device: Name of the profile.
        precision: Of the timings.
        before: Version of the SDK that the profile stated.
        after: Newest version in the table.
        networks: That were timed again or for the first time.
        n: Networks timed under both, in earlier updates too.
        factor: On the work of all others; 1 where the SDK is the same or too few networks say so.
        start_ms: What starting a network costs more; negative where less.
        halfwidth_pct: Of the 90 % interval of the others; null where they do not move.
        carried: Networks whose former timing is carried over by factor and start.
    """

    device: str
    precision: str
    before: str
    after: str
    networks: tuple[NetworkMoved, ...]
    n: int
    factor: float
    start_ms: float
    halfwidth_pct: float | None
    carried: int


class Updated(Record):
    """What newer timings changed (``devices update``).

    Attributes:
        source: Name of the file or folder.
        release: Its version; empty where not stated.
        moved: By device and precision.
        paths: Profiles that were written, by device.
        older: Devices for which the table has nothing newer than their profiles; they stay as they are.
        unknown_devices: Names of the table that no profile has.
        unknown_networks: Networks of the table without a graph here.
    """

    source: str
    release: str
    moved: tuple[PrecisionMoved, ...]
    paths: dict[str, str]
    older: tuple[str, ...]
    unknown_devices: tuple[str, ...]
    unknown_networks: tuple[str, ...]


COMMANDS = {
    "anchors-show": "AnchorOverview",
    "bench-latency-models": "ModelScores",
    "bench-latency-transfer": "TransferComparison",
    "bench-search": "SearcherComparison",
    "compare": "RunSummary",
    "devices-add": "AddedDevice",
    "devices-list": "DeviceRow",
    "devices-show": "DeviceOverview",
    "devices-suggest": "Suggestion",
    "devices-update": "Updated",
    "doctor": "Installation",
    "spaces-list": "SpaceRow",
    "spaces-sample": "Sample",
    "spaces-show": "SpaceOverview",
}
"""The record that each of these commands prints; ``spaces sample`` of one architecture as JSON prints a `Genotype`."""


def schemas() -> dict[str, type[Record]]:
    """Return every record of this file by its name."""
    return {
        name: kind
        for name, kind in globals().items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == __name__
    }
