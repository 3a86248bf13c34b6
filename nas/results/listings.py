"""What commands that list, show and sample answer; see `nas.results`."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from nas.results import Basis, DeviceLatency, Genotype, Grade, Record, Scores, StatedQuantity


class ChoiceOverview(Record):
    """One gene of a space.

    Attributes:
        name: Name of the choice.
        values: Values that its gene may have.
        ordered: Whether neighbouring values give similar networks.
    """

    name: str
    values: tuple[int | str, ...]
    ordered: bool


class SpaceOverview(Record):
    """A search space (``spaces show``).

    Attributes:
        name: Name with preset and options.
        version: Version of its encoding.
        size: Number of encodings, in digits.
        choices: The choices in order.
        about: Description.
    """

    name: str
    version: int
    size: str
    choices: tuple[ChoiceOverview, ...]
    about: str


class Sample(Record):
    """A member of a space, drawn at random (``spaces sample``).

    Attributes:
        architecture: The architecture as `nas predict` and `nas export` read it.
        key: Short hash of the architecture.
        macs: Multiply-adds at batch 1.
        params: Parameters of the deploy form.
        resolution: Height x width in pixels.
    """

    architecture: Genotype
    key: str
    macs: int
    params: int
    resolution: str


class AddedDevice(Record):
    """A device that was added (``devices add``).

    Attributes:
        name: Name of the device.
        path: Path of its profile.
        artifacts: Files of fitted coefficients beside it.
    """

    name: str
    path: str
    artifacts: tuple[str, ...]


class ModelScores(Scores):
    """The errors of a latency model on networks that the fit had not seen (``bench latency-models``).

    Attributes:
        protocol: What was left out.
        device: Name of the device in the table.
        precision: Precision that was tested.
        runtime: Runtime that was tested.
        predictor: Predictor that was tested.
        seed: Seed of the draws.
        baselines: Errors of simple models on the same networks, and how many networks they could price.
        repeats_within_pct: Median difference of two measurements, below which no model can come.
        without_graph: Networks of the table that have no graph here.
        notes: Faults of the table.
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
        name: Name with preset.
        summary: Purpose in one line.
        choices: Number of choices; with ``--sizes``, None where the space cannot be built here.
        log10_size: Logarithm to base 10 of the number of encodings; with ``--sizes``, None where the space cannot be built here.
        needs: What is missing to build it; None where nothing is.
    """

    name: str
    summary: str
    choices: int | None = None
    log10_size: float | None = None
    needs: str | None = None


class DeviceRow(Record):
    """A device in the list (``devices list``). All but name and error are those of its default precision.

    Attributes:
        name: Name of the device.
        error: Why its profile cannot be read; all other fields are empty then.
        title: Title by its vendor.
        aliases: Other names of the device.
        vendor: Name of the vendor.
        grade: Trust in its latency model, A to D.
        kind: Kind of processor.
        family: Family of devices, which share a prior.
        generation: Generation within the family.
        runtime: Runtime that executed the networks.
        quantity: ``latency`` or ``reciprocal_throughput``.
        batch: Pictures in one run.
        precisions: Precisions, the default first.
        fitted: Precisions with a latency model.
        networks: Number of networks left out, or timed where none was left out.
        timed_networks: Number of timed networks by precision.
        families: Number of families left out.
        mean_error_pct: Mean error on the networks left out.
        mean_error_interval_pct: 90 % bootstrap interval over families, or networks.
        later_networks: Number of networks that were first timed after everything in the fit.
        later_mean_error_pct: Mean error on these.
        above_upper_pct: Share of the networks left out that took longer than the upper end.
        coverage_pct: Share of the networks left out inside their interval.
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
        name: Name of the network.
        macs: Multiply-adds at batch 1.
        params: Parameters of the deploy form.
        base_latency_ms: Latency on the related device.
    """

    name: str
    macs: int
    params: int
    base_latency_ms: float


class Suggestion(Record):
    """Networks whose timings say most about a new device (``devices suggest``).

    Attributes:
        name: Name of the new device.
        base: Name of the related device.
        precision: Precision at which they are to be timed.
        networks: Networks, the most informative first.
        written_to: Folder of the model files; None where none were written.
        next: Next command.
    """

    name: str
    base: str
    precision: str
    networks: tuple[SuggestedNetwork, ...]
    written_to: str | None
    next: str


class Installation(Record):
    """An installation and its faults (``doctor``).

    Attributes:
        nas: Version of this distribution.
        python: Version of Python.
        platform: Operating system and processor.
        cores: Number of processors.
        gpus: Names of the GPUs.
        packages: Version by distribution, None where it is missing.
        extras: Extra by distribution; the empty string for what is always needed.
        config_home: Folder of the user's own profiles.
        plugins: Names by kind of plug-in.
        devices: Number of valid profiles.
        faults: Faults, one line each.
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
        basis: ``measured``, ``estimated`` or ``proxy``.
        quantity: ``latency``, or ``reciprocal_throughput`` where the milliseconds are those of a frame at full load.
        unsupported: Operators that the device or its latency model lacks; the milliseconds are without them.
        extrapolated: In which respects the network lies outside of what the model was calibrated on.
    """

    latency_ms: float
    lower_ms: float
    upper_ms: float
    basis: Basis
    quantity: StatedQuantity = "latency"
    unsupported: tuple[str, ...] = ()
    extrapolated: tuple[str, ...] = ()


class SegmentCost(Record):
    """A segment of a network between two cut points.

    Attributes:
        point: Number of the cut point at its end.
        label: Label of that point.
        shape: Shape of the tensor there.
        layout: Layout of its axes.
        reduction: Input size divided by the size there; 0 where the tensor has no height and width.
        macs: Multiply-adds of the segment at batch 1.
        params: Parameters of the segment.
        latency_ms: Latency of the segment by device and precision.
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
        network: Name of the network, or the file and function that built it.
        resolution: Height and width in pixels.
        weights: File of the weights.
        source: Origin of the weights.
        assigned_by: How weights were assigned: by ``name`` or ``order``; empty where none were loaded.
        points: Number of cut points.
        devices: Latency of the whole network by device and precision.
        segments: Segments in order.
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
        hash: Hash over the profile and its runtime's operators; runs record it.
        grades: Grade by precision.
        remarks: Remarks on other profiles: of the same chip with other times, of the same source with newer ones.
    """

    name: str
    title: str
    kind: str
    family: str
    generation: str
    aliases: tuple[str, ...]
    quantity: StatedQuantity
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
        run: Name of the run directory.
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
        space: Space of the choice.
        network: The chosen network; None where there is none yet.
        accuracy_pct: Accuracy of the choice, on the test pictures or as published.
        devices: Latency of the choice by device.
        front_size: Number of networks on the front.
        evaluations: Number of accuracies that were computed.
        seconds: Time of all phases.
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
        standard_error: Standard error of each figure.
        runs: Number of runs.
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
        spearman: Spearman's rank correlation.
        kendall: Kendall's tau.
        mean_error_pct: Mean of |predicted / measured − 1|.
        median_error_pct: Median of the same.
        within_10_pct: Share of networks within 10 %.
        within_25_pct: Share within 25 %.
        coverage_pct: Share of timings inside their interval.
        halfwidth_pct: Median half width of the intervals.
        spearman_sd: Standard deviation of Spearman's correlation over the repetitions.
        ceiling: Scores of the same model with every network of the pool timed.
        baselines: Spearman's correlation of simple models.
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
        mean_spearman: Mean of Spearman's correlation over the devices.
        mean_ceiling_spearman: Mean of the ceilings.
        baselines: Means of simple models over the devices.
        protocol: Settings of the comparison.
        defects: Faults of the table.
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
        network: Published name of the network.
        before_ms: Latency in the former profile; None without one.
        ms: Latency in the newer table.
        change_pct: Change from one to the other; None without a former one.
    """

    network: str
    before_ms: float | None
    ms: float
    change_pct: float | None


class PrecisionMoved(Record):
    """What newer timings changed on a device at one precision.

    Attributes:
        device: Name of the profile.
        precision: Precision of the timings.
        before: Version of the SDK in the former profile.
        after: Newest version in the table.
        networks: Networks that were timed again or for the first time.
        n: Number of networks timed under both versions, in earlier updates too.
        factor: Factor on the latency of all other networks; 1 where the SDK is the same or too few networks were timed.
        start_ms: Constant that is added to them; negative where networks start faster.
        halfwidth_pct: Half width of their 90 % interval; None where they do not change.
        carried: Number of networks whose former timing was changed by factor and constant.
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
        release: Version of the source; empty where it states none.
        moved: Changes by device and precision.
        paths: Paths of the profiles that were written, by device.
        older: Devices for which the table has nothing newer than their profiles, which stay as they are.
        unknown_devices: Device names of the table that no profile has.
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
