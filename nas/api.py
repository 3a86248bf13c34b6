"""The product in Python: ``import nas``, then `nas.search`, `nas.predict` and the rest of this page.

Every function answers with a frozen record of `nas.results`, raises a `nas.errors.NasError` whose message is one line, and prints nothing.
Names and units are those of the command line: milliseconds a picture, multiply-adds (one is one MAC), accuracies in percent.

Example::

    import nas

    result = nas.search(device="sa8295p", budget="5ms", data="photos/")
    print(result.chosen.latency_ms, result.model)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas import __all__ as __all__
from nas.results import Calibrated, Estimate, Export, Exports, Measurement, Ranking, Reference, Result, SystemEntry, Training, Unpriced
from nas.units import canonical_precision

if TYPE_CHECKING:
    from torch import nn

    from nas.events import EventBus
    from nas.graphs.graph import Graph
    from nas.registry import Registry
    from nas.results.listings import RunSummary, Updated


def search(
    device: str | Sequence[str],
    budget: str | Sequence[str] = (),
    *,
    max_drop: float | None = None,
    minimize: Sequence[str] = (),
    precision: str | None = None,
    space: str | None = None,
    anchor: str | Sequence[str] = (),
    weights_dir: str | Path | None = None,
    mixers: Sequence[str] = (),
    knobs: Sequence[str] = (),
    evaluator: str | None = None,
    table: str | Path | Sequence[str | Path] = (),
    column: str | None = None,
    data: str | Path | None = None,
    resolution: str | int | None = None,
    proxy_resolution: int | None = None,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    time_limit: str | None = None,
    searcher: str | None = None,
    evals: int | None = None,
    confidence: float = 0.9,
    supernet: str | Path | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    storage: str | None = None,
    study: str = "nas",
    storage_timeout: float = 60.0,
    workers: str = "",
    quantisation: Sequence[str] = (),
    exporter: str = "onnx",
    input_range: str = "normalised",
    verify: int = 0,
    runner: str = "",
    batch: int | None = None,
    from_scratch: bool = False,
    bus: EventBus | None = None,
) -> Result:
    """Find the most accurate network that the devices run within the budgets, and write its model file.

    Args:
        device: Names or paths of profiles, or columns of a table of latencies; the first decides where one has to.
        budget: ``5ms``, ``200fps``, ``20MB``, ``1.2GMACs``, ``5Mparams``, ``300MB-peak``, ``2.5MB-ram``, ``6MB-flash``; for one device ``NAME:8ms``.
        max_drop: Points of accuracy that a network may be likely to lose in 8 bits (`nas.quantisation.risk`): the budget ``1pct-drop``.
        minimize: Beside accuracy: ``latency`` (of every device; the default), ``macs``, ``params``, ``size``, ``memory``.
        precision: ``fp32``, ``fp16``, ``w8a16``, ``w8a8``, or ``any``: chosen for each part. None for each device's own.
        space: Search space; None takes what is worth trying where `data` are given (published networks, ``chain``, ``hybrid``, ``vit-t``), else ``hybrid``.
        anchor: Trained networks to start from: names of timm or torchvision, ``FILE.py:FUNCTION``, ``NET.pt2``.
        weights_dir: Folder of files of weights, named like networks.
        mixers: Operator families to choose from, or ``green``; none for the preset's.
        knobs: Knobs of families that are searched beside the first, as ``family.knob``.
        evaluator: Who scores candidates; None for the space's own.
        table: Files of known accuracies and latencies.
        column: Of the accuracies.
        data: Name of a data set, a folder of class folders, or a tar of one; None for the embedded digits.
        resolution: Of the deployed network: 224, or ``192x256``.
        proxy_resolution: Side in pixels at which the supernet trains.
        epochs: Of the supernet's training.
        finetune_epochs: Of the choice.
        time_limit: For everything until the exported file is tested: ``30min``, ``2h``, ``90s``; None for what data and machine allow.
        searcher: How candidates are proposed.
        evals: Accuracies to compute.
        confidence: Nominal coverage of the intervals.
        supernet: Trained weights to start from.
        seed: All randomness comes from it.
        out: Run directory to make.
        storage: URL of a shared study, or path of a journal.
        study: Its name there.
        storage_timeout: How long the storage may be away, in seconds.
        workers: ``ray://ADDRESS`` of a cluster that evaluates.
        quantisation: Methods by which candidates are scored and the choice is written at 8 bits, in order; none for the usual ones.
        exporter: Format of the model file.
        input_range: Pictures that it expects: ``normalised``, ``unit`` or ``bytes``.
        verify: How many of the front's best are measured at the end.
        runner: Command that times ``{onnx}`` on the device, for `verify`.
        batch: Pictures a run, for devices that state throughput.
        from_scratch: Whether published weights are left alone where no `space` is named.
        bus: Told of the progress.

    Raises:
        UsageError: A wrong name or value, or an option that this search cannot use.
        InfeasibleError: Nothing is within the budgets; the message names the nearest miss.
        NasError: What went wrong later; `nas resume` goes on from there.
    """
    from nas.errors import UsageError
    from nas.runs.lifecycle import start
    from nas.runs.request import Request
    from nas.searching.address import keep_password

    if evals is not None and evals < 1:
        raise UsageError(f"evals: too few, got {evals}. Expected at least 1.")
    _check_confidence(confidence)
    fields = {
        "devices": tuple(_absolute(name) for name in _several(device)),
        "budgets": (*_several(budget), *([] if max_drop is None else [f"{max_drop:g}pct-drop"])),
        "minimize": tuple(minimize),
        "precision": canonical_precision(precision),
        "space": space,
        "anchors": tuple(_anchor(name) for name in _several(anchor)),
        "weights_dir": str(Path(weights_dir).resolve()) if weights_dir else None,
        "mixers": tuple(mixers),
        "knobs": tuple(knobs),
        "evaluator": evaluator,
        "tables": tuple(str(Path(path).resolve()) for path in _several(table)),
        "column": column,
        "data": None if data is None else str(data),
        "resolution": None if resolution is None else str(resolution),
        "proxy_resolution": proxy_resolution,
        "epochs": epochs,
        "finetune_epochs": finetune_epochs,
        "time_limit": time_limit,
        "searcher": searcher,
        "evals": evals,
        "confidence": confidence,
        "supernet": str(Path(supernet).resolve()) if supernet else None,
        "seed": seed,
        "storage": keep_password(storage) if storage else None,
        "study": study,
        "storage_timeout": storage_timeout,
        "workers": workers,
        "quantisation": tuple(quantisation),
        "exporter": exporter,
        "takes": input_range,
        "verify": verify,
        "runner": runner,
        "batch": batch,
        "from_scratch": from_scratch,
    }
    options = {name: value for name, value in fields.items() if value != Request.model_fields[name].default}
    options["space"] = space  # a space that is named is not decided
    options = {name: value for name, value in options.items() if value is not None}
    return start(Request.model_validate(options), None if out is None else Path(out), bus or _silent())


def survey(device: str | Sequence[str], budget: str | Sequence[str] = (), *, space: str = "zoo", **options: Any) -> Result:
    """Find the most accurate published network within the budgets; nothing is trained.

    Args:
        device: As `search`.
        budget: As `search`.
        space: Of published networks: ``zoo``, or ``zoo-in1k`` for weights that saw ImageNet-1k alone.
        options: Further arguments of `search`.

    Raises:
        NasError: As `search`.
    """
    return search(device, budget, space=space, **options)


def predict(
    network: str | Path | nn.Module | Graph,
    device: str,
    *,
    precision: str | None = None,
    resolution: str | int | None = None,
    input_shape: Sequence[int] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
    confidence: float = 0.9,
    budget: str | Sequence[str] = (),
    on: Literal["upper", "point"] = "upper",
    compare: str | Path | None = None,
    profile_hash: str | Sequence[str] = (),
    task: Literal["classes", "features"] = "classes",
) -> Estimate:
    """Estimate how long a network takes on a device; the device's own timing is given where there is one.

    Args:
        network: Name of a published network, path of a model or architecture file, a module, or a graph.
        device: Name or path of a profile.
        precision: For what the network leaves open; None for the device's own.
        resolution: Of an architecture's input: 224, or ``192x256``.
        input_shape: Of a module's input, batch first: ``(1, 3, 224, 224)``.
        input_shapes: Of a model file's inputs by name, for sizes that it leaves open or to replace.
        dims: Values of a model file's symbolic sizes by name.
        confidence: Nominal coverage of the interval, 0.5 to 0.99.
        budget: ``5ms``, ``200fps``, ``20MB``, …: the estimate says how it stands to each.
        on: What is held against a budget: the ``upper`` end of the interval, or the ``point``.
        compare: An older network: the estimate says what got slower, and where.
        profile_hash: That the device's profile must have, so that estimates do not change unnoticed.
        task: ``classes`` for the network as it is, ``features`` for its maps at strides 4 to 32, as detectors and segmenters take them.

    Raises:
        UnknownNameError: No such network or device.
        UsageError: A module without a shape, or a shape for what has its own.
        NasError: The network cannot be read or priced, or the profile has another hash.
    """
    from nas.runs.prediction import Reading, Terms, predict_network

    _check_confidence(confidence)
    reading = Reading(resolution, input_shape, input_shapes or {}, dims or {}, task)
    terms = Terms(canonical_precision(precision), confidence, tuple(_several(budget)), on, tuple(_several(profile_hash)))
    return predict_network(network, device, reading, terms, compare)


def predict_all(
    networks: Sequence[str | Path],
    devices: str | Sequence[str],
    *,
    precision: str | None = None,
    resolution: str | int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
    confidence: float = 0.9,
    budget: str | Sequence[str] = (),
    on: Literal["upper", "point"] = "upper",
    compare: str | Path | None = None,
    profile_hash: str | Sequence[str] = (),
    task: Literal["classes", "features"] = "classes",
) -> Iterator[Estimate | Unpriced]:
    """Estimate many networks on several devices, network by network; one that cannot be read or priced says why and stops no other.

    Args:
        networks: Names and files.
        devices: Names or paths of profiles.
        precision: As `predict`.
        resolution: As `predict`.
        input_shapes: As `predict`, of every file.
        dims: As `predict`, of every file.
        confidence: As `predict`.
        budget: As `predict`; for one device ``NAME:8ms``.
        on: As `predict`.
        compare: An older network, or a folder that holds one under the name of each file.
        profile_hash: ``NAME:HASH`` of each device that is pinned.
        task: As `predict`; of features without a resolution, each network comes at 512 and at 640 pixels.

    Raises:
        UsageError: A wrong device, budget or hash; no network has been read then.
        NasError: A device's profile has another hash.
    """
    from nas.runs.prediction import Reading, Terms
    from nas.runs.prediction import predict_all as each

    _check_confidence(confidence)
    reading = Reading(resolution, None, input_shapes or {}, dims or {}, task)
    terms = Terms(canonical_precision(precision), confidence, tuple(_several(budget)), on, tuple(_several(profile_hash)))
    return each(networks, _several(devices), reading, terms, None if compare is None else Path(compare))


def measure(
    network: str | Path,
    device: str = "local-cpu",
    *,
    runner: str = "",
    threads: int = 1,
    resolution: str | int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Measurement:
    """Time a network on this machine, or on any device that a command can reach.

    Args:
        network: Architecture or model file, or name of a published network; weights are random unless a file brings them.
        device: ``local-cpu`` or ``local-cuda``.
        runner: Command that times ``{onnx}`` and prints milliseconds.
        threads: Of ONNX Runtime, each bound to a processor.
        resolution: Of an architecture's input.
        input_shapes: Of a model file's inputs by name, where it leaves sizes open.
        dims: Values of a model file's symbolic sizes by name.

    Raises:
        UsageError: A device that cannot be measured from here, or open sizes that nobody gave.
        MeasurementError: No usable timing.
    """
    from nas.runs.prediction import measure_network

    return measure_network(
        str(network), device, runner=runner, threads=threads, resolution=resolution, input_shapes=input_shapes or {}, dims=dims or {}
    )


def train(
    architecture: str | Path | None = None,
    *,
    data: str | Path = "digits",
    space: str | None = None,
    images: int | None = None,
    resolution: str | int | None = None,
    seed: int = 0,
    out: str | Path = "weights.safetensors",
    bus: EventBus | None = None,
    **settings: Any,
) -> Training:
    """Train the supernet of a space, or one architecture alone; a training that was interrupted goes on.

    Args:
        architecture: File of the architecture that is trained alone; None for the supernet of `space`.
        data: Name of a data set, a folder of class folders, or a tar of one.
        space: Whose supernet is trained; None for ``hybrid-s``.
        images: Keep so many pictures of train and validation.
        resolution: Of the pictures; None for what a search would take.
        seed: All randomness comes from it.
        out: Checkpoint to write, or to go on with.
        bus: Told of the progress.
        settings: Fields of `nas.training.supernet.train.Recipe`: ``epochs``, ``batch``, ``learning_rate``, ``optimizer``, ``mixed_precision``,
            ``methods`` (names of recipes of supernet training).

    Raises:
        UsageError: No such space or setting, or a space for an architecture that has its own.
        NasError: Data that cannot be used, or a training that diverged.
    """
    from nas.errors import UsageError
    from nas.events import Notice
    from nas.runs.training import train_alone, train_supernet
    from nas.spaces.naming import get_elastic_space
    from nas.training.dataset import load_dataset
    from nas.training.recipe import compose
    from nas.units import parse_resolution

    if architecture is not None and space is not None:
        raise UsageError("train: --space has no effect with an architecture, which names its own. Do this: leave one of them out.")
    if space is not None:
        get_elastic_space(space)  # before the data are read
    if architecture is None:
        compose(settings.get("methods", ()))
    size = parse_resolution(str(resolution)) if resolution else None
    dataset = load_dataset(str(data), seed=seed, images=images)
    listening = bus or _silent()
    for text in dataset.notices:
        listening.emit(Notice(text))
    if architecture is None:
        return train_supernet(space or "hybrid-s", dataset, Path(out), resolution=size, settings=settings, seed=seed, bus=listening)
    return train_alone(Path(architecture), dataset, Path(out), resolution=size, settings=settings, seed=seed, bus=listening)


def rank(
    *,
    supernet: str | Path | None = None,
    data: str | Path | None = None,
    space: str = "hybrid-s",
    images: int | None = None,
    resolution: str | int | None = None,
    count: int = 12,
    epochs: int | None = None,
    ceiling: int = 0,
    known: int = 0,
    table: str | Path | None = None,
    column: str | None = None,
    device: Sequence[str] = (),
    precision: str | None = None,
    seed: int = 0,
    out: str | Path = "rank",
    bus: EventBus | None = None,
) -> Ranking:
    """Say how well scores order members of a space that were trained alone, or whose accuracy a table knows.

    Args:
        supernet: Trained supernet whose scores are judged; None for the baselines alone.
        data: That members, and the supernet, are trained on; None for digits, or for none where nothing is trained.
        space: Whose members are drawn.
        images: Keep so many pictures of train and validation.
        resolution: At which members are trained where no supernet says it; None for the data's own.
        count: Networks.
        epochs: Passes over the training pictures, for each network.
        ceiling: Networks that are trained with a second seed: how well that orders them is the most that a score can reach.
        known: Networks whose accuracies calibrate all scores together: each other network gets an accuracy with an interval; at least 9.
        table: File of known accuracies in place of training alone.
        column: Of the table.
        device: Names of devices whose estimated latency is a baseline.
        precision: On the devices.
        seed: All randomness comes from it.
        out: Folder for the result and the networks; what was trained once is not trained again.
        bus: Told of the progress.

    Raises:
        UsageError: Fewer than three networks, an option without effect, or a supernet of other classes.
        ArtifactError: The supernet cannot be read.
    """
    from nas.runs.ranking import rank_members
    from nas.runs.ranking_request import RankingRequest

    request = RankingRequest(
        space=space,
        supernet=Path(supernet) if supernet else None,
        data=str(data) if data else None,
        images=images,
        resolution=str(resolution) if resolution else None,
        epochs=epochs,
        ceiling=ceiling,
        known=known,
        table=Path(table) if table else None,
        column=column,
        devices=tuple(device),
        precision=canonical_precision(precision) if precision else None,
        count=count,
        seed=seed,
        folder=Path(out),
    )
    return rank_members(request.contest(bus or _silent()))


def export(
    subject: str | Path,
    to: str | Path,
    *,
    trial: int | None = None,
    weights: str | None = None,
    precision: str | None = None,
    quantisation: str | None = None,
    data: str | None = None,
    input_range: str = "normalised",
    exporter: str | None = None,
    task: Literal["classes", "features"] = "classes",
) -> Export | Exports:
    """Write a network as a model file that has been reloaded and compared.

    Args:
        subject: Run directory or architecture file.
        to: File to write; its ending says the format.
        trial: Number of another network of the run than its choice.
        weights: Checkpoint of trained weights, or ``random``.
        precision: ``fp32``, ``fp16``, ``w8a16``, ``w8a8``, ``mixed``, or ``all`` for one file each; None for the network's own.
        quantisation: Other methods for a quantised file than the usual ones, in order, with commas between.
        data: For an architecture file: what calibrates and tests a quantised file, and normalises.
        input_range: Pictures that the file expects: ``normalised``, ``unit`` or ``bytes``.
        exporter: Name of the format, where the ending does not say it.
        task: ``classes`` for the classifier, ``features`` for its maps at strides 4 to 32, as outputs ``stride4`` to ``stride32``.

    Raises:
        UsageError: Something in the request is wrong; nothing has been written.
        ArtifactError: The run or the weights cannot be read, or the written file disagrees with the network.
    """
    from nas.runs.export import export as write_network

    return write_network(
        subject,
        Path(to),
        trial=trial,
        weights=weights,
        precision=canonical_precision(precision),
        quantisation=quantisation,
        data=data,
        input_range=input_range,
        exporter=exporter,
        task=task,
    )


def calibrate(
    name: str, timings: str | Path, *, base: str = "sa8295p", precision: str | None = None, to: str | Path | None = None
) -> Calibrated:
    """Make a profile of your own device from a few timings, and say how wrong it is on networks that it has not seen.

    Args:
        name: Of the new device: lower-case letters, digits, dots and hyphens.
        timings: CSV with the columns ``network``, ``latency_ms`` and, where several were timed, ``precision``.
        base: A related device that is known; its family is the prior.
        precision: Of rows that name none.
        to: Folder for the profile; None for the user's device folder.

    Raises:
        UsageError: The name is taken, or the timings cannot be used.
        ArtifactError: The folder cannot be written.
    """
    from nas.devices.new_device import make_profile

    return make_profile(name, Path(timings), base=base, precision=precision, to=None if to is None else Path(to))


def update_devices(source: str | Path, *, devices: Collection[str] = (), to: str | Path | None = None) -> Updated:
    """Put newer timings, as Qualcomm AI Hub publishes them, into its devices' profiles, and say what moved.

    What was timed again is replaced; what was not is carried over by a factor and a constant start that the others show, and so are estimates.
    Shipped profiles stay as they are: an updated one lies in the user's folder of updates and goes before them.

    Args:
        source: A wheel of ``qai-hub-models``, or a folder that holds its ``models/NETWORK/perf.yaml``.
        devices: Which; none for all that such tables can update.
        to: Folder for the profiles; None for the user's folder of updates.

    Raises:
        UsageError: No such file, or an unknown device.
        DataError: No wheel, a damaged one, or one without timings newer than the profiles'. Nothing has been written then.
        ArtifactError: The folder cannot be written.
    """
    from nas.devices.update import update_profiles

    return update_profiles(Path(source), devices, None if to is None else Path(to))


def load_run(path: str | Path) -> Result:
    """Return what is known of a run, finished or not, without touching it.

    Raises:
        ArtifactError: No run, or one of another version.
    """
    from nas.runs.lifecycle import show

    return show(Path(path))


def compare(runs: Sequence[str | Path], *, to: str | Path | None = None) -> tuple[RunSummary, ...]:
    """Return what each of several runs has chosen so far.

    Args:
        runs: Run directories, two or more.
        to: A page of charts and tables to write; None for none.

    Raises:
        UsageError: Fewer than two runs, one twice, or `to` exists.
        ArtifactError: No run, one of another version, or `to` cannot be written.
    """
    from nas.runs.several import compare_runs

    return compare_runs([Path(run) for run in runs], None if to is None else Path(to))


def list_devices(pattern: str = "*") -> tuple[str, ...]:
    """Return the names of all profiles that match a pattern such as ``"sa8*"``, sorted, without reading any."""
    from nas.devices.names import profile_files

    return tuple(sorted(name for name in profile_files() if fnmatchcase(name, pattern)))


def list_spaces(pattern: str = "*") -> tuple[str, ...]:
    """Return the names of all search spaces, presets included, that match a pattern."""
    from nas.spaces.space import spaces

    names = (f"{family}-{preset}" if preset else family for family, kind in spaces.items() for preset in kind.presets or ("",))
    return tuple(name for name in names if fnmatchcase(name, pattern))


def list_references(pattern: str = "*") -> tuple[Reference, ...]:
    """Return the published networks that are built here and whose name matches a pattern, in their deploy form."""
    from nas.spaces.reference import references
    from nas.units import write_resolution

    return tuple(
        Reference(
            name=variant.name,
            system=variant.system,
            space=name,
            params=variant.params,
            macs=variant.macs,
            resolution=write_resolution(variant.resolution),
            top1_pct=variant.top1_pct,
        )
        for name, kind in references.items()
        for variant in kind.variants().values()
        if fnmatchcase(variant.name, pattern)
    )


def list_systems(pattern: str = "*") -> tuple[SystemEntry, ...]:
    """Return the published systems whose name matches a pattern, with what of each is built here."""
    from nas.spaces import operator_family as families
    from nas.spaces.reference import references
    from nas.spaces.systems import systems
    from nas.spaces.token_reduction import token_reductions

    registries: dict[str, Registry[Any]] = {
        "mixer": families.mixers,
        "channel-mixer": families.channel_mixers,
        "reparam": families.reparam,
        "token-reduction": token_reductions,
    }
    rows = []
    for system in systems():
        if not fnmatchcase(system.name, pattern):
            continue
        operators = [registry.get(name) for kind, registry in registries.items() for name in system.names(kind)]
        built = [references.get(name) for name in system.names("reference")]
        sources = [*(kind.source for kind in built), *(kind.source for kind in operators)]
        rows.append(
            SystemEntry(
                number=system.number,
                system=system.name,
                kind=system.kind,
                priority=system.priority,
                parts=system.parts,
                grade=max((kind.npu_grade for kind in operators), key=("green", "amber", "red").index, default=None),
                networks=sum(len(kind.table) for kind in built),
                paper=f"{sources[0].title}, {sources[0].reference}" if sources else "",
                note=system.note,
            )
        )
    return tuple(rows)


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Path) else list(value)


def _absolute(device: str) -> str:
    return str(Path(device).resolve()) if device.endswith(".toml") else device


def _anchor(name: str) -> str:
    """Return the name of a trained network; of a file, so that it means the same wherever the run is taken up again."""
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{Path(file).resolve()}:{function}"
    return str(Path(name).resolve()) if name.endswith(".pt2") else name


def _silent() -> EventBus:
    from nas.events import EventBus

    return EventBus()


def _check_confidence(value: float) -> None:
    from nas.errors import UsageError

    if not 0.5 <= value <= 0.99:
        raise UsageError(f"confidence: out of range, got {value}. Expected 0.5 to 0.99.")
