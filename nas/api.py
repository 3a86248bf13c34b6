"""The product in Python: ``import nas``, then `nas.search`, `nas.predict` and the rest of this page.

Every function returns a frozen record of `nas.results`, raises a `nas.errors.NasError` whose message is one line, and prints nothing.
Names and units are those of the command line: milliseconds a picture, multiply-adds (one is one MAC), accuracies in percent.

Example::

    import nas

    result = nas.search(device="sa8295p", budget="5ms", data="photos/")
    print(result.chosen.latency_ms, result.model)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nas import __all__ as __all__
from nas.results import Calibrated, Estimate, Export, Exports, Measurement, Ranking, Reference, Result, SystemEntry, Training, Unpriced
from nas.units import canonical_precision, checked_confidence

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
    pairs: str | Sequence[str] = (),
    edits: str | Sequence[str] = (),
    importance: str | None = None,
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
    """Find the most accurate network that runs within the budgets on the devices, and write its model file.

    Args:
        device: Names or paths of profiles, or columns of a table of latencies. The first device decides where one of them has to.
        budget: Limits of any kind: ``5ms``, ``200fps``, ``20MB``, ``1.2GMACs``, ``5Mparams``, ``300MB-peak``, ``2.5MB-ram``, ``6MB-flash``.
            ``NAME:8ms`` is a limit for one device.
        max_drop: Points of accuracy that a network may be predicted to lose at 8 bits, as the budget ``1pct-drop``. See `nas.quantisation.risk`.
        minimize: What is minimised beside the error: ``latency`` (of every device; the default), ``macs``, ``params``, ``size`` or ``memory``.
        precision: ``fp32``, ``fp16``, ``w8a16``, ``w8a8``, or ``any``, which chooses one for each part. None takes each device's own.
        space: Search space. None decides by `data`: published networks, ``chain``, ``hybrid`` or ``vit-t`` with pictures, ``hybrid`` without.
        anchor: Trained networks to start from: names of timm or torchvision, ``FILE.py:FUNCTION``, or ``NET.pt2``.
        weights_dir: Folder of weight files that are named like networks.
        pairs: Where one trained network may go on in another: ``near`` in depth, ``similar`` by what both make of the pictures, ``all``, or pairs by name
            (``A:3>B:4``). None are the near ones.
        edits: What may be done to the blocks of trained networks: ``out``, ``width``, ``merge``, ``rank``. None are all.
        importance: By which inner channels of theirs are put in order, see `nas.training.importance`.
        mixers: Operator families to choose from, or ``green`` for those of convolutions and matrix products, which suit NPUs. None are the preset's.
        knobs: Further parameters of operator families to search, as ``family.knob``.
        evaluator: Name of the method that scores candidates. None takes the space's own.
        table: Files of known accuracies and latencies.
        column: Column of the table that holds the accuracies.
        data: Name of a data set, a folder with one folder for each class, or a tar of it. None takes the embedded digits.
        resolution: Input size of the deployed network in pixels: ``224``, or ``192x256`` (height x width).
        proxy_resolution: Side in pixels of the pictures on which the supernet trains.
        epochs: Epochs of the supernet's training.
        finetune_epochs: Epochs of the fine-tuning of the choice.
        time_limit: Time until the exported file is tested: ``30min``, ``2h`` or ``90s``. None takes what data and machine need.
        searcher: Name of the method that proposes candidates.
        evals: Number of accuracies to compute.
        confidence: Nominal coverage of the latency intervals, 0.5 to 0.99.
        supernet: File of supernet weights to use, trained on the same data with the same seed.
        seed: Seed of all randomness.
        out: Run directory to create. None makes ``runs/TIME-SPACE-DEVICE``.
        storage: URL of a shared study, or path of a journal file.
        study: Name of the study in the storage.
        storage_timeout: Time in seconds for which the storage may be unreachable.
        workers: ``ray://ADDRESS`` of a cluster that evaluates the candidates.
        quantisation: Names of quantisation methods, in order, for candidates and for the choice at 8 bits. None are the usual ones.
        exporter: Format of the model file.
        input_range: Input that the model file expects: ``normalised``, ``unit`` (0 to 1) or ``bytes`` (0 to 255).
        verify: Number of finalists that are measured before the choice.
        runner: Command that times the file ``{onnx}`` on the device, for `verify`.
        batch: Pictures in one run, for devices whose profile states throughput.
        from_scratch: Train without published weights where no `space` is named.
        bus: Receives the events of the run, such as progress.

    Returns:
        The chosen network, the front, the run directory and the path of the model file. Latencies are in milliseconds, accuracies in percent.

    Raises:
        UsageError: A name or value is wrong, or this search cannot use an option.
        InfeasibleError: No network is within the budgets. The message names the nearest miss.
        NasError: A later phase failed. `nas resume` continues from there.
    """
    from nas.errors import UsageError
    from nas.runs.lifecycle import start
    from nas.runs.request import Request
    from nas.searching.address import keep_password

    if evals is not None and evals < 1:
        raise UsageError(f"evals: too few, got {evals}. Expected at least 1.")
    checked_confidence(confidence)
    fields = {
        "devices": tuple(_absolute(name) for name in _several(device, "device")),
        "budgets": (*_several(budget, "budget"), *([] if max_drop is None else [f"{max_drop:g}pct-drop"])),
        "minimize": tuple(minimize),
        "precision": canonical_precision(precision),
        "space": space,
        "anchors": tuple(_anchor(name) for name in _several(anchor, "anchor")),
        "weights_dir": str(Path(weights_dir).resolve()) if weights_dir else None,
        "pairs": tuple(_several(pairs, "pairs")),
        "edits": tuple(_several(edits, "edits")),
        "importance": importance,
        "mixers": tuple(mixers),
        "knobs": tuple(knobs),
        "evaluator": evaluator,
        "tables": tuple(str(Path(path).resolve()) for path in _several(table, "table")),
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
    """Find the most accurate published network within the budgets, without training.

    Args:
        device: As in `search`.
        budget: As in `search`.
        space: Space of published networks: ``zoo``, or ``zoo-in1k`` for weights that were trained on ImageNet-1k alone.
        options: Further arguments of `search`.

    Returns:
        As `search`, with published accuracies in percent and without a model file.

    Raises:
        NasError: As in `search`.
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
    """Estimate the latency of a network on a device. Where the device itself timed this network, that timing is returned.

    Args:
        network: Name of a published network, path of a model or architecture file, a module, or a graph.
        device: Name or path of a profile.
        precision: Precision of everything that the network does not fix. None takes the device's own.
        resolution: Input size in pixels for an architecture: ``224``, or ``192x256`` (height x width).
        input_shape: Input shape for a module, batch first: ``(1, 3, 224, 224)``.
        input_shapes: Input shapes for a model file, by name of the input: for sizes that it leaves open, or in place of its own.
        dims: Values for a model file's symbolic sizes, by name.
        confidence: Nominal coverage of the interval, 0.5 to 0.99.
        budget: Limits such as ``5ms``, ``200fps`` or ``20MB``. The estimate says which hold.
        on: What is compared with a budget in milliseconds: the ``upper`` end of the interval, or the central ``point``.
        compare: An older network. The estimate says which operators became slower.
        profile_hash: Hash that the profile must have, so that a changed profile is noticed.
        task: ``classes`` for the whole network, or ``features`` for the maps at strides 4 to 32 that detectors and segmenters use.

    Returns:
        Latency and interval in milliseconds, basis, grade, multiply-adds, parameters, and the latency of every operator.

    Raises:
        UnknownNameError: There is no such network or device.
        UsageError: A module comes without a shape, or a shape is given for a network that has its own.
        NasError: The network cannot be read or priced, or the profile has another hash.
    """
    from nas.runs.prediction import Reading, Terms, predict_network

    checked_confidence(confidence)
    reading = Reading(resolution, input_shape, input_shapes or {}, dims or {}, task)
    terms = Terms(
        canonical_precision(precision), confidence, tuple(_several(budget, "budget")), on, tuple(_several(profile_hash, "profile_hash"))
    )
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
    """Estimate the latency of many networks on several devices, one network after the other.

    A network that cannot be read or priced gives an `Unpriced` record with the reason; the others follow.

    Args:
        networks: Names and files.
        devices: Names or paths of profiles.
        precision: As in `predict`.
        resolution: As in `predict`.
        input_shapes: As in `predict`, for every file.
        dims: As in `predict`, for every file.
        confidence: As in `predict`.
        budget: As in `predict`. ``NAME:8ms`` is a limit for one device.
        on: As in `predict`.
        compare: An older network, or a folder that holds an older version of each file under the same name.
        profile_hash: ``NAME:HASH`` for each device whose profile must not change.
        task: As in `predict`. With ``features`` and no resolution, each network is priced at 512 and at 640 pixels.

    Yields:
        One record for each network and device, in milliseconds.

    Raises:
        UsageError: A device, budget or hash is wrong. No network has been read then.
        NasError: A profile has another hash.
    """
    from nas.runs.prediction import Reading, Terms
    from nas.runs.prediction import predict_all as each

    checked_confidence(confidence)
    reading = Reading(resolution, None, input_shapes or {}, dims or {}, task)
    terms = Terms(
        canonical_precision(precision), confidence, tuple(_several(budget, "budget")), on, tuple(_several(profile_hash, "profile_hash"))
    )
    return each(networks, _several(devices, "devices"), reading, terms, None if compare is None else Path(compare))


def measure(
    network: str | Path,
    device: str | None = None,
    *,
    runner: str = "",
    threads: int | None = None,
    resolution: str | int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Measurement:
    """Time a network on this machine, or on any device that a command can reach.

    Args:
        network: Architecture or model file, or name of a published network. Weights are random unless the file has them.
        device: ``local-cpu``, the default, or ``local-cuda``; not beside a runner.
        runner: Command that times the file ``{onnx}`` and prints milliseconds.
        threads: Threads of ONNX Runtime, by default one; each is bound to one processor. Not beside a runner.
        resolution: Input size in pixels for an architecture.
        input_shapes: Input shapes for a model file that leaves sizes open, by name of the input.
        dims: Values for a model file's symbolic sizes, by name.

    Returns:
        Median, interquartile range and all samples in milliseconds, and the runtime.

    Raises:
        UsageError: The device cannot be measured from here, a size is open, or an option has no effect.
        MeasurementError: The device gave no usable timing.
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
    """Train the supernet of a space, or one architecture alone. An interrupted training continues.

    Args:
        architecture: File of the architecture to train alone. None trains the supernet of `space`.
        data: Name of a data set, a folder with one folder for each class, or a tar of it.
        space: Space of the supernet. None takes ``hybrid-s``.
        images: Number of pictures of train and validation to use.
        resolution: Input size in pixels. None takes what a search would take.
        seed: Seed of all randomness.
        out: Checkpoint file to write, or to continue from.
        bus: Receives the events of the training, such as progress.
        settings: Fields of `nas.training.supernet.train.Recipe`: ``epochs``, ``batch``, ``learning_rate``, ``optimizer``, ``mixed_precision``,
            ``methods`` (names of recipes of supernet training).

    Returns:
        Path of the checkpoint, epochs, time in seconds, and accuracies in percent.

    Raises:
        UsageError: There is no such space or setting, or a space is given for an architecture, which has its own.
        NasError: The data cannot be used, or the training diverged.
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
    run: str | Path | None = None,
    *,
    supernet: str | Path | None = None,
    data: str | Path | None = None,
    space: str | None = None,
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
    out: str | Path | None = None,
    bus: EventBus | None = None,
) -> Ranking:
    """Measure how well scores order members of a space, against training each alone or against a table of accuracies.

    Args:
        run: Finished run whose scores are judged, on members within its budgets. It says what `supernet`, `space` and `device` say elsewhere, and its report
            then shows the answer.
        supernet: Supernet whose scores are judged, trained on the same data with the same seed. None judges the baselines alone.
        data: Data on which the members and the supernet are trained. None takes the digits, or nothing where nothing is trained. Beside a run, the place
            where its pictures lie by now.
        space: Space from which the members are drawn. None takes ``hybrid-s``.
        images: Number of pictures of train and validation to use.
        resolution: Input size in pixels for training members, where no supernet fixes it. None takes the data's own.
        count: Number of networks.
        epochs: Passes over the training pictures, for each network.
        ceiling: Number of networks that are trained with a second seed. How well that orders them is the most that a score can reach.
        known: Number of networks, at least 5, whose accuracies calibrate all scores together. Each other network gets an accuracy with an interval.
        table: File of known accuracies, in place of training alone.
        column: Column of the table.
        device: Names of devices whose estimated latency is a baseline.
        precision: Precision on the devices.
        seed: Seed of all randomness.
        out: Folder for the result and the networks. Networks that lie there are not trained again. None takes ``rank``, inside the run if there is one.
        bus: Receives the events, such as progress.

    Returns:
        Rank correlations with intervals for the scores and the baselines, and accuracies in percent.

    Raises:
        UsageError: There are fewer than three networks, an option has no effect, or the supernet has other classes.
        ArtifactError: The supernet cannot be read, or the run is none, unfinished or in use.
    """
    from nas.runs.ranking import rank_members
    from nas.runs.ranking_request import RankingRequest

    request = RankingRequest(
        run=Path(run) if run else None,
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
        folder=Path(out) if out else None,
    )
    if request.run is not None:
        from nas.runs.run_ranking import rank_run

        return rank_run(request.run, request, bus or _silent())
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
    """Write a network as a model file. The file is reloaded and compared before it gets its name.

    Args:
        subject: Run directory or architecture file.
        to: File to write. Its ending decides the format.
        trial: Number of another network of the run than its choice.
        weights: Checkpoint of trained weights, or ``random``.
        precision: ``fp32``, ``fp16``, ``w8a16``, ``w8a8``, ``mixed``, or ``all`` for one file each. None takes the network's own.
        quantisation: Names of quantisation methods, in order, with commas between. None are the usual ones.
        data: Data for an architecture file: it gives the normalisation, and calibrates and tests a quantised file.
        input_range: Input that the file expects: ``normalised``, ``unit`` (0 to 1) or ``bytes`` (0 to 255).
        exporter: Name of the format, where the ending does not decide it.
        task: ``classes`` for the classifier, or ``features`` for its maps at strides 4 to 32, as outputs ``stride4`` to ``stride32``.

    Returns:
        Path and size in bytes of the file, its operators, the largest difference from the network, and its accuracy in percent where it was tested.

    Raises:
        UsageError: The request is wrong. Nothing has been written.
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
    """Make a profile of your own device from a few timings, and state its errors on networks that the fit has not seen.

    Args:
        name: Name of the new device: lower-case letters, digits, dots and hyphens.
        timings: CSV file with the columns ``network``, ``latency_ms`` and, where there are several, ``precision``.
        base: Name of a related device, whose estimates fill in what the timings do not say.
        precision: Precision of rows that name none.
        to: Folder for the profile. None takes the user's device folder.

    Returns:
        Path of the profile, and by precision the errors in percent and the coverage.

    Raises:
        UsageError: The name is taken, or the timings cannot be used.
        ArtifactError: The folder cannot be written.
    """
    from nas.devices.new_device import make_profile

    return make_profile(name, Path(timings), base=base, precision=canonical_precision(precision), to=None if to is None else Path(to))


def update_devices(source: str | Path, *, devices: Collection[str] = (), to: str | Path | None = None) -> Updated:
    """Put newer timings of Qualcomm AI Hub into the profiles of its devices, and say what changed.

    Networks that were timed again get the new timing. All others are moved by a factor and a constant that the former show, and so are estimates.
    Shipped profiles stay as they are. An updated profile lies in the user's folder of updates and is used first.

    Args:
        source: A wheel of ``qai-hub-models``, or a folder that holds its ``models/NETWORK/perf.yaml``.
        devices: Names of devices. None are all that such tables can update.
        to: Folder for the profiles. None takes the user's folder of updates.

    Returns:
        The paths of the profiles, and by device and precision how latencies moved, in percent.

    Raises:
        UsageError: There is no such file, or a device is unknown.
        DataError: The file is no wheel, is damaged, or has no timings that are newer than the profiles'. Nothing has been written then.
        ArtifactError: The folder cannot be written.
    """
    from nas.devices.update import update_profiles

    return update_profiles(Path(source), devices, None if to is None else Path(to))


def load_run(path: str | Path) -> Result:
    """Return the state of a run, finished or not. The run is only read.

    Returns:
        As `search`; parts that are not there yet are empty.

    Raises:
        ArtifactError: There is no run, or it is of another version.
    """
    from nas.runs.lifecycle import show

    return show(Path(path))


def compare(runs: Sequence[str | Path], *, to: str | Path | None = None) -> tuple[RunSummary, ...]:
    """Return what each of several runs has chosen so far.

    Args:
        runs: Two or more run directories.
        to: HTML file of charts and tables to write. None writes nothing.

    Returns:
        The state of each run, as `load_run` gives it.

    Raises:
        UsageError: There are fewer than two runs, one is named twice, or `to` exists.
        ArtifactError: There is no run, it is of another version, or `to` cannot be written.
    """
    from nas.runs.several import compare_runs

    return compare_runs([Path(run) for run in runs], None if to is None else Path(to))


def list_devices(pattern: str = "*") -> tuple[str, ...]:
    """Return the names of all profiles that match a pattern such as ``"sa8*"``, sorted. No profile is read."""
    from nas.devices.names import profile_files

    return tuple(sorted(name for name in profile_files() if fnmatchcase(name, pattern)))


def list_spaces(pattern: str = "*") -> tuple[str, ...]:
    """Return the names of all search spaces and their presets that match a pattern."""
    from nas.spaces.space import spaces

    names = (f"{family}-{preset}" if preset else family for family, kind in spaces.items() for preset in kind.presets or ("",))
    return tuple(name for name in names if fnmatchcase(name, pattern))


def list_references(pattern: str = "*") -> tuple[Reference, ...]:
    """Return the published networks whose name matches a pattern: parameters, multiply-adds and resolution in pixels of the deploy form."""
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
    """Return the published systems whose name matches a pattern, with what is built of each."""
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


def _several(value: Any, what: str) -> list[Any]:
    """Return the texts or paths that an argument gives, one or several.

    Raises:
        UsageError: It is something else.
    """
    from nas.errors import UsageError

    values = [value] if isinstance(value, str | Path) or not isinstance(value, Iterable) else list(value)
    if wrong := [one for one in values if not isinstance(one, str | Path)]:
        example = ", such as '5ms'" if what == "budget" else ""
        raise UsageError(f"{what}: got {wrong[0]!r}. Expected text{example}, or several of it.")
    return values


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
