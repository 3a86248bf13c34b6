"""A network as a model file: the choice of a run or another of its networks, or an architecture with weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.devices.slower import slower_than_float
from nas.errors import ArtifactError, UsageError
from nas.exporting.exporter import PEAKS, Artifact, ExportOrder, exporter_for, exporters
from nas.exporting.features import with_features
from nas.exporting.trained import Trained, accuracy_in_runtime_pct, normalising, spared
from nas.graphs.features import stage_maps
from nas.quantisation.method import DEFAULT_RECIPE, methods
from nas.results import Export, ExportAtPrecision, Exports, Genotype
from nas.runs.delivery import MEMBER_FILE
from nas.runs.directory import RunDirectory
from nas.runs.facts import as_expected, data_facts, run_facts
from nas.runs.lifecycle import check_facts, problem_of, request_of
from nas.runs.problem import Problem
from nas.runs.targets import load_targets
from nas.runs.trainable import as_searched
from nas.runs.trained_search import SUPERNET_FILE, open_study
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.network import read_architecture
from nas.spaces.precision import PrecisionSpace
from nas.spaces.space import Resolution, SearchSpace
from nas.training.dataset import Dataset, load_dataset
from nas.units import QUANTISED, Precision

if TYPE_CHECKING:
    from torch import nn

    from nas.searching.judge import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What a user asked to export.

    Attributes:
        space: Of the architecture.
        architecture: Its genes.
        module: With weights.
        resolution: At which it runs; None for its own.
        origin: What the weights are.
        dataset: Calibrates and tests; None where there is none.
        precision: At which a run chose it.
        target: The run's first device.
        device: Its name or the path of its profile, as the run was asked.
        input_range: Pictures that the file is to expect, a key of `nas.exporting.exporter.PEAKS`.
        recipe: Of a quantised file, see `nas.quantisation.method`.
        known: What a run says of the network; see `nas.runs.facts`.
    """

    space: SearchSpace
    architecture: Architecture
    module: nn.Module
    resolution: Resolution | None
    origin: str
    dataset: Dataset | None = None
    precision: str = "fp32"
    target: Target | None = None
    device: str = ""
    input_range: str = "normalised"
    recipe: tuple[str, ...] = DEFAULT_RECIPE
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def genotype(self) -> Genotype:
        """The architecture as results show it."""
        return Genotype(space=self.architecture.space, version=self.architecture.version, genes=self.architecture.genes)

    @property
    def facts(self) -> dict[str, str]:
        """What is written into the file."""
        own = {"architecture": self.architecture.to_json(), "weights": self.origin}
        return (data_facts(self.dataset) if self.dataset else {}) | dict(self.known) | own

    @property
    def part_precisions(self) -> Mapping[str, str]:
        """The precision of each part, where the architecture says it."""
        return self.space.part_precisions(self.architecture) if isinstance(self.space, ElasticSpace) else {}


def export(
    subject: str | Path,
    to: Path,
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
        to: File to write; its suffix says the format.
        trial: Number of another network of the run than its choice.
        weights: Checkpoint of trained weights, or ``random``.
        precision: ``fp32``, ``fp16``, ``w8a16``, ``w8a8``, ``mixed``, or ``all`` for one file each; None for the network's own.
        quantisation: Other methods for a quantised file than the usual ones, in order, with commas between.
        data: For an architecture file: what calibrates and tests a quantised file, and normalises; with weights of a file, the data of their training.
        input_range: Pictures that the file expects, a key of `nas.exporting.exporter.PEAKS`.
        exporter: Name of the format, where the suffix does not say it.
        task: ``classes`` for the classifier, ``features`` for its maps at strides 4 to 32 as outputs ``stride4`` to ``stride32``.

    Raises:
        UsageError: Something in the request is wrong; nothing has been written.
        ArtifactError: The run or the weights cannot be read, or the written file disagrees with the network.
    """
    form = exporter or exporter_for(to)
    if input_range not in (kind := exporters.get(form)).input_ranges:
        raise UsageError(
            f"--input {input_range}: a file of {form} takes {' or '.join(sorted(kind.input_ranges))} pictures. Do this: leave --input out."
        )
    if precision not in (None, *Precision, "mixed", "all"):
        raise UsageError(f"--precision: unknown, got {precision!r}. Expected one of {', '.join(Precision)}, mixed or all.")
    if to.exists():
        raise UsageError(f"--to {to}: the file exists. Do this: name another or remove it.")
    recipe = tuple(quantisation.split(",")) if quantisation else ()
    methods(recipe)
    source = _subject(Path(subject), trial, weights, data)
    if input_range != "normalised" and source.dataset is None:
        raise UsageError(f"--input {input_range}: mean and deviation are those of the data. Do this: --data NAME|DIR, or export a run.")
    source = replace(source, input_range=input_range, recipe=recipe or source.recipe)
    chosen = precision or source.precision
    if quantisation and chosen not in (*QUANTISED, "mixed", "all"):
        raise UsageError(f"--quantisation: has no effect on a file in {chosen}. Do this: --precision w8a8, or leave it out.")
    if quantisation and kind.own_quantisation:
        raise UsageError(f"--quantisation: has no effect on a file of {form}, which its own tool quantises. Do this: leave it out.")
    if task == "features" and (form != "onnx" or chosen not in (Precision.FP32, Precision.FP16)):
        raise UsageError(
            f"--task features: writes ONNX files in fp32 or fp16, got {form} in {chosen}. Do this: --precision fp32 and --to NET.onnx."
        )
    if precision == "all":
        return _at_all(source, to, form)
    notices = _slower(source, chosen)
    if task == "features":
        stage_maps(source.space.lower(source.architecture, source.resolution))  # before anything is written
    artifact, accuracy_pct = _written(source, chosen, to, form)
    if task == "features":
        artifact, accuracy_pct = with_features(artifact), None
    return Export(
        path=str(artifact.path),
        format=artifact.format,
        precision=artifact.precision,
        architecture=source.genotype,
        weights=source.origin,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        max_difference=artifact.max_difference,
        accuracy_pct=accuracy_pct,
        operators=dict(artifact.operators),
        notices=notices,
    )


def _slower(subject: Subject, precision: str) -> tuple[str, ...]:
    """Warn, before anything is written, of a quantised network that takes longer on the run's device than in float."""
    if subject.target is None or not isinstance(subject.space, ElasticSpace):
        return ()
    graph = subject.space.plain.lower(subject.space.without_precisions(subject.architecture), subject.resolution)
    line = slower_than_float(graph, subject.target.profile, precision)
    if line:
        log.warning("%s", line)
    return (line,) if line else ()


def _written(subject: Subject, precision: str, to: Path, form: str) -> tuple[Artifact, float | None]:
    """Write one file; with data and trained weights its accuracy is measured in the file's runtime and written into it."""
    kind, graph = exporters.get(form), subject.space.lower(subject.architecture, subject.resolution)
    if subject.dataset is None or not (isinstance(subject.space, ElasticSpace) or subject.origin == "trained"):
        artifact = kind.make(ExportOrder(precision)).export(subject.module, graph, to, metadata=subject.facts)
        return (normalising(artifact, subject.input_range, subject.dataset) if subject.dataset else artifact), None
    height, width = graph.inputs[0].shape[-2:]
    trained = Trained(subject.space, subject.architecture, subject.module, (height, width), subject.dataset, subject.recipe)
    if precision == "mixed" and len(set(subject.part_precisions.values())) < 2:
        raise UsageError("--precision mixed: this network runs at one precision. Do this: nas search --precision any, or --precision all.")
    artifact = trained.export(precision, to, subject.facts, subject.input_range, form)
    scores = kind.reload(to)
    if scores is None:
        return artifact, None
    accuracy_pct = accuracy_in_runtime_pct(
        scores, subject.dataset, trained.resolution, PEAKS[subject.input_range], concurrent=kind.concurrent
    )
    return kind.annotate(artifact, {"test_accuracy_pct": f"{accuracy_pct:.4f}"}), accuracy_pct


def _at_all(subject: Subject, to: Path, form: str) -> Exports:
    """Write a network at every precision that its device prices, and mixed; return latency, size and accuracy of each."""
    if subject.dataset is None or subject.target is None or not isinstance(subject.space, ElasticSpace):
        raise UsageError("--precision all: compares on a run's device and data. Do this: give a run directory.")
    targets = {t.precision: t for t in load_targets([subject.device], "any")}
    subjects = _subjects(subject, subject.space, targets)
    paths = {name: to.with_stem(f"{to.stem}-{name}") for name in subjects}
    if taken := [path for path in paths.values() if path.exists()]:
        raise UsageError(f"--to {to}: {taken[0]} exists. Do this: name another or remove it.")
    rows = []
    for name, one in subjects.items():
        target = targets.get(name) or next(iter(targets.values()))
        assert target.predictor is not None
        artifact, accuracy_pct = _written(one, name, paths[name], form)
        graph = one.space.lower(one.architecture, subject.resolution)
        estimate = target.predictor.estimate(graph, target.profile, target.precision)
        spared_parts = sorted(k for k, p in one.part_precisions.items() if p not in QUANTISED) if name == "mixed" else []
        rows.append(
            ExportAtPrecision(
                precision=name,
                path=str(paths[name]),
                latency_ms=estimate.latency_ms,
                lower_ms=estimate.lower_ms,
                upper_ms=estimate.upper_ms,
                extrapolated=bool(estimate.extrapolated),
                size_bytes=artifact.size_bytes,
                accuracy_pct=accuracy_pct,
                float_parts=tuple(spared_parts),
            )
        )
    return Exports(device=subject.target.profile.name, architecture=subject.genotype, precisions=tuple(rows))


def _subjects(subject: Subject, space: ElasticSpace, targets: Mapping[str, Target]) -> dict[str, Subject]:
    """Return what is written under each name: the plain network at each precision, and a mixture where the device prices one."""
    plain, member = space.plain, space.without_precisions(subject.architecture)
    subjects = {name: replace(subject, space=plain, architecture=member) for name in targets}
    if len(targets) < 2 or not all(t.predictor is not None and t.predictor.prices_mixed for t in targets.values()):
        return subjects
    mixed = subject
    if len(set(subject.part_precisions.values())) < 2:
        assert subject.dataset is not None
        choosing = PrecisionSpace(plain, list(targets))
        height, width = plain.lower(member, subject.resolution).inputs[0].shape[-2:]
        trained = Trained(plain, member, subject.module, (height, width), subject.dataset)
        mixed = replace(subject, space=choosing, architecture=spared(trained, choosing))
    return subjects | {"mixed": mixed}


def _subject(path: Path, trial: int | None, weights: str | None, data: str | None) -> Subject:
    if path.suffix != ".json":
        if data is not None:
            raise UsageError("--data: a run has its own data. Do this: leave it out.")
        return _of_run(path, trial, weights)
    if trial is not None:
        raise UsageError("--trial: belongs to a run directory. Do this: leave it out.")
    return _of_file(path, weights, data)


def _of_file(path: Path, weights: str | None, data: str | None) -> Subject:
    space, architecture = read_architecture(path)
    if weights is None and not space.recipe(architecture):
        raise UsageError(f"export: {path} is an architecture without weights. Do this: --weights FILE.safetensors, or --weights random.")
    dataset = load_dataset(data, seed=_seed_of(weights)) if data else None
    if weights is None:
        return Subject(space, architecture, space.build(architecture), None, "published", dataset)
    return replace(_with_weights(space, architecture, weights, dataset), dataset=dataset)


def _seed_of(weights: str | None) -> int:
    """Return the seed by which the pictures were split that a file's weights were trained on; 0 where no file is given."""
    from nas.training.supernet.checkpoint import read_checkpoint

    return 0 if weights in (None, "random") else int(read_checkpoint(Path(weights), "member").identity.get("seed", 0))


def _of_run(path: Path, trial: int | None, weights: str | None) -> Subject:
    run = RunDirectory.open(path)
    problem = problem_of(run, request_of(run))
    check_facts(run, problem, only="the data")
    if trial is not None:
        return _of_trial(run, problem, trial, weights)
    result = run.results
    data = result.chosen.architecture.dump() if result and result.chosen else run.read("architecture.json")
    if data is None:
        raise ArtifactError(f"run {path}: has chosen nothing yet. Do this: nas resume {path}, or --trial N.")
    space = problem.space
    architecture = Architecture(data["space"], data["version"], tuple(data["genes"]))
    if problem.dataset is None:
        if weights is not None:
            raise UsageError("--weights: this run's networks are published, with their own. Do this: leave it out.")
        return Subject(space, architecture, space.build(architecture), None, "published")
    if weights is not None:
        return _of_problem(_with_weights(space, architecture, weights, problem.dataset), problem, run)
    subject = _of_problem(_with_weights(space, architecture, str(path / MEMBER_FILE), None), problem, run)
    return replace(subject, known={**subject.known, **_accuracies(run)})


def _accuracies(run: RunDirectory) -> dict[str, str]:
    """Return what the choice of a run scored."""
    chosen = run.results.chosen if run.results else None
    scores = {
        "validation_accuracy_pct": chosen and chosen.validation_accuracy_pct,
        "float_test_accuracy_pct": chosen and (chosen.float_accuracy_pct or chosen.accuracy_pct),
    }
    return {name: f"{value:.4f}" for name, value in scores.items() if value is not None}


def _of_trial(run: RunDirectory, problem: Problem, trial: int, weights: str | None) -> Subject:
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.reconstruction import Members
    from nas.training.supernet.statistics import calibration_indices, pictures, recalibrate
    from nas.training.supernet.train import load_supernet

    space, dataset = problem.space, problem.dataset
    if dataset is None:
        raise UsageError("--trial: this run keeps no trials, its networks are published. Do this: nas export with an architecture file.")
    trials = {row.number: row.architecture for row in open_study(run, as_searched(run, problem), create=False).trials()}
    if trial not in trials:
        raise UsageError(f"--trial {trial}: not in this run. Expected 0 to {max(trials, default=0)}.")
    architecture = trials[trial]
    if weights is not None:
        return _of_problem(_with_weights(space, architecture, weights, dataset), problem, run)
    if not isinstance(space, ElasticSpace):
        raise UsageError(f"--trial: space {space.name} has no shared weights. Do this: --weights FILE.safetensors, or --weights random.")
    supernet = load_supernet(Path(problem.request.supernet or run.path / SUPERNET_FILE), space.plain, dataset)
    resolution = problem.judge.verdicts([architecture])[0].resolution
    module = Members(supernet, dataset).module(space.without_precisions(architecture), resolution)
    train = Batches(dataset, "train", resolution, supernet.device)
    recalibrate(module, pictures(train.plain(128, calibration_indices(train))))
    return _of_problem(Subject(space, architecture, module, resolution, "shared, not fine-tuned"), problem, run)


def _of_problem(subject: Subject, problem: Problem, run: RunDirectory) -> Subject:
    """Add what the run knows: data, device, and the precision if the choice is a quantised one."""
    precision = problem.judge.verdicts([subject.architecture])[0].precisions[problem.device]
    chosen = precision if precision in (*QUANTISED, "mixed") else Precision.FP32
    known = run_facts(run, problem, subject.architecture)
    dataset = None if problem.dataset is None else as_expected(problem.dataset, subject.space, subject.architecture)
    device = problem.request.devices[0]
    return replace(subject, dataset=dataset, precision=chosen, target=problem.targets[0], device=device, recipe=problem.recipe, known=known)


def _with_weights(space: SearchSpace, architecture: Architecture, weights: str, dataset: Dataset | None) -> Subject:
    """Return an architecture with fresh weights or those of a file, which must be trained on the data that test it, if there are some."""
    from nas.training.supernet.checkpoint import check_pictures, read_checkpoint
    from nas.training.supernet.finetune import fresh, load_member

    if weights == "random":
        height, width = space.lower(architecture).inputs[0].shape[-2:]
        classes = getattr(space, "num_classes", 1000)
        module = fresh(space, architecture, num_classes=classes, resolution=(height, width), seed=0)
        return Subject(space, architecture, module, None, "random")
    actual, module, resolution = load_member(Path(weights), space)
    if actual != architecture:
        raise ArtifactError(f"--weights {weights}: of another architecture, got {actual.key}. Expected {architecture.key}.")
    if dataset is not None:
        remedy = "Do this: give weights that were trained on these, or an architecture without --data."
        check_pictures(Path(weights), read_checkpoint(Path(weights), "member").identity, dataset, remedy)
    return Subject(space, architecture, module, resolution, "trained")
