"""What a search hands over: the choice fine-tuned, exported, reloaded and tested, and the front's best measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from nas.devices.slower import slower_than_float
from nas.errors import NasError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.exporting.exporter import PEAKS, ExportOrder, exporters
from nas.exporting.trained import Trained, predictions_of
from nas.results import ByClass, Point, Record, Revision, Verification
from nas.runs.directory import RunDirectory
from nas.runs.explain import Scored
from nas.runs.facts import run_facts
from nas.runs.pace import EXPORT_S, SHOWN_EPOCHS, Pace
from nas.runs.problem import Problem
from nas.runs.teaching import teacher_of
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.training.evaluator import Evaluator

if TYPE_CHECKING:
    from torch import nn

    from nas.devices.measure import Measurement
    from nas.spaces.space import Resolution
    from nas.training.dataset import Dataset, Labels
    from nas.training.supernet.teacher import Teacher
    from nas.training.supernet.train import Recipe

MEMBER_FILE = "finetuned.safetensors"

_TIMED_PICTURES = 64  # by hand


Finalists = Callable[[Sequence[Scored]], tuple[Verification, ...]]
"""Times the finalists among candidates of known accuracy."""


class Verifications(Record):
    """What the front's best took on the device."""

    networks: tuple[Verification, ...]


def verify(problem: Problem, scored: Sequence[Scored], bus: EventBus) -> Verifications:
    """Measure the finalists one after the other, each chosen by what those before it said; say how the estimates did."""
    from nas.devices.measure import measure_graph

    count = min(problem.request.verify, sum(verdict.feasible for _, verdict, _ in scored))
    began_s = time.monotonic()
    bus.emit(PhaseStarted("verify", total=count, detail=f"measuring {count} networks"))
    rows: list[Verification] = []
    for i in range(1, count + 1):
        finalist = next_finalist(problem, scored, rows)
        if finalist is None:
            break
        architecture, verdict, _ = finalist
        point = problem.point(architecture, verdict)
        try:
            measured = measure_graph(problem.space.lower(architecture, problem.judge.resolution), lambda path: _timed(problem, path))
        except NasError as error:
            rows.append(Verification(key=point.key, line=f"verify: {point.name}: {error}"))
            continue
        rows.append(_verified(point, measured))
        bus.emit(PhaseAdvanced("verify", i, {"measured_ms": measured.median_ms}))
    bus.emit(PhaseFinished("verify", time.monotonic() - began_s))
    return Verifications(networks=tuple(rows))


def next_finalist(problem: Problem, scored: Sequence[Scored], rows: Sequence[Verification]) -> Scored | None:
    """Return the candidate to be timed next, of those more accurate than what holds by now.

    First the most accurate whose central value is within the budgets; then, of those that may be within them, the one nearest to it; then the most
    accurate of the rest within the budgets, for what its timing says about the others.

    Args:
        problem: Before any timing.
        scored: Candidates of known accuracy.
        rows: Timings up to now.
    """
    device, tried = problem.device, {row.key for row in rows}
    revised = problem.revised(rows, {a.key: v.estimates[device] for a, v, _ in scored if a.key in tried})
    judge = revised.judge
    verdicts = [judge.revised(a.key, v, device) if revised is not problem else v for a, v, _ in scored]
    accuracies = [accuracy for (a, _, accuracy), v in zip(scored, verdicts, strict=True) if a.key in tried and v.feasible]
    untried = sorted(
        (i for i in range(len(scored)) if scored[i][0].key not in tried),
        key=lambda i: (-scored[i][2], verdicts[i].estimates[device].latency_ms),
    )
    better = [i for i in untried if scored[i][2] > max(accuracies, default=-1.0)]
    likely = (i for i in better if judge.fits(verdicts[i], device, "latency_ms"))
    nearest = (
        i for i in sorted(better, key=lambda i: verdicts[i].estimates[device].latency_ms) if judge.fits(verdicts[i], device, "lower_ms")
    )
    position = next(itertools.chain(likely, nearest, (i for i in untried if verdicts[i].feasible)), None)
    return None if position is None else scored[position]


NOTHING_WITHIN = "by the timings no candidate is within the budgets any more"
"""Said beside the reason of a choice that was made before them."""


def revision_of(problem: Problem, before: Point, after: Point | None, feasible: bool) -> Revision:
    """Return what timings have changed.

    Args:
        problem: As it is since the timings.
        before: The choice without them.
        after: The choice with them.
        feasible: Whether any candidate is within the budgets by now.
    """
    if not feasible:
        said = "no candidate is within the budgets by its upper end any more; the choice is that of before, with its latency by these timings: do not rely on it"
    elif after is None or after.key == before.key:
        said = "the choice stays"
    else:
        said = f"the choice is {after.name} in place of {before.name}"
    return _revision(problem, before.key, said)


def revision_before_race(problem: Problem, favourite: str, within: int, count: int) -> Revision:
    """Return what timings have changed where the choice is made by fine-tuning those that are within the budgets by then.

    Args:
        problem: As it is since the timings.
        favourite: Key of the best before any fine-tuning, without the timings.
        within: How many candidates are within the budgets by now, one at least.
        count: How many there are.
    """
    said = f"{within} of {count} candidates are within the budgets by their upper ends now, and the choice is one of these"
    return _revision(problem, favourite, said)


def _revision(problem: Problem, former: str, said: str) -> Revision:
    device = problem.device
    correction = problem.judge.corrections[device]
    return Revision(
        device=device,
        count=correction.count,
        factor=correction.factor,
        width_factor=correction.width_factor,
        former_choice=former,
        line=f"verify: by {correction.count} timings estimates of {device} are multiplied by {correction.factor:.3f} and the logarithms of their intervals by "
        f"{correction.width_factor:.2f}; {said}",
    )


def _timed(problem: Problem, path: Path) -> Measurement:
    from nas.devices.measure import measure_onnx, measure_with_runner

    runner = problem.request.runner
    return measure_with_runner(path, runner) if runner else measure_onnx(path, problem.device)  # type: ignore[arg-type]  # checked before


def _verified(point: Point, measured: Measurement) -> Verification:
    inside = point.lower_ms <= measured.median_ms <= point.upper_ms
    error_pct = 100 * (point.latency_ms / measured.median_ms - 1)
    where = f"{'inside' if inside else 'outside'} the interval of {point.lower_ms:.3g}–{point.upper_ms:.3g} ms"
    line = f"verify: {point.name}: {measured.median_ms:.3g} ms measured on {measured.device}, estimated {point.latency_ms:.3g} ms "
    return Verification(
        **point.model_dump(include={"key", "latency_ms", "lower_ms", "upper_ms"}),
        **measured.to_json(),
        network=point.name,
        line=f"{line}({error_pct:+.0f} %), {where}",
        error_pct=error_pct,
        inside=inside,
    )


class Delivery(Record):
    """What was handed over.

    Attributes:
        key: Of the architecture; empty in runs of before.
        model: Name of the file in the run directory; None where there is none.
        model_reason: Why there is none.
        accuracy_pct: Of the file on the test pictures.
        float_accuracy_pct: Of the network before it was quantised.
        validation_accuracy_pct: After fine-tuning.
        sha256: Of the file.
        max_difference: Between module and reloaded file.
        lacking_operators: That a device lacks.
        sensitivity_db: By block, at 8 bits.
        by_class: How the file did on the test pictures of each class.
    """

    key: str = ""
    model: str | None = "model.onnx"
    model_reason: str | None = None
    accuracy_pct: float | None = None
    float_accuracy_pct: float | None = None
    validation_accuracy_pct: float | None = None
    sha256: str | None = None
    max_difference: float | None = None
    lacking_operators: tuple[str, ...] = ()
    sensitivity_db: dict[str, float] = Field(default_factory=dict)
    by_class: ByClass | None = None


def handed_over(run: RunDirectory, architecture: Architecture, make: Callable[[], Delivery]) -> Delivery:
    """Return what a run hands over, making it first where that is not done; a file of another choice, made before timings, gives way."""
    delivery = run.load("export.json", Delivery)
    if delivery is None or delivery.key not in ("", architecture.key):
        delivery = make().model_copy(update={"key": architecture.key})
        run.write("export.json", delivery.dump())
    return delivery


def deliver(run: RunDirectory, problem: Problem, evaluator: Evaluator, architecture: Architecture, bus: EventBus, pace: Pace) -> Delivery:
    """Turn the choice into a model file, as far as its weights and the data allow.

    Raises:
        ArtifactError: The exported file does not say what the network says.
    """
    verdict = problem.judge.verdicts([architecture])[0]
    module = evaluator.module(architecture, verdict.resolution)
    if module is None:
        do = problem.space.recipe(architecture)
        known = "nothing was trained" if problem.evaluator.caution else "its accuracy is known, its weights are not"
        return Delivery(model=None, model_reason=f"{known}." + (f" Do this: {do}" if do else ""))
    if problem.dataset is None or not isinstance(problem.space, ElasticSpace):
        return export_as_scored(run, problem, module, architecture, bus)
    device = next(module.parameters()).device
    tuned = _tuned_before(run, problem, architecture, _MOST_TRIALS)
    trained = tuned is not None or not problem.evaluator.fresh
    teacher = teacher_of(run, problem, evaluator, architecture, pace, bus)
    return finish(run, problem, problem.dataset, (tuned or module).to(device), architecture, bus, pace, teacher, trained=trained)


def export_as_scored(run: RunDirectory, problem: Problem, module: nn.Module, architecture: Architecture, bus: EventBus) -> Delivery:
    """Write the network with the weights with which it was scored: nothing is there to train or to test it with."""
    kind = exporters.get(problem.request.exporter)
    path = run.path / f"model{kind.suffix}"
    path.unlink(missing_ok=True)  # of a session that was killed here
    began_s = time.monotonic()
    bus.emit(PhaseStarted("export", detail=f"{problem.request.exporter}, with the weights that were scored"))
    graph = problem.space.lower(architecture, problem.judge.resolution)
    artifact = kind.make(ExportOrder()).export(module, graph, path, metadata=run_facts(run, problem, architecture))
    bus.emit(PhaseFinished("export", time.monotonic() - began_s))
    lacking = lacking_operators(problem, architecture, artifact.operators)
    return Delivery(model=path.name, sha256=artifact.sha256, max_difference=artifact.max_difference, lacking_operators=tuple(lacking))


def finish(
    run: RunDirectory,
    problem: Problem,
    dataset: Dataset,
    module: nn.Module,
    architecture: Architecture,
    bus: EventBus,
    pace: Pace,
    teacher: Teacher | None,
    *,
    trained: bool,
) -> Delivery:
    """Fine-tune at the deployment resolution, recalibrate, fuse, quantise where asked for, export, reload, and test what was exported.

    Args:
        run: Where.
        problem: Of the run.
        dataset: Of the problem.
        module: As it starts.
        architecture: What it is.
        bus: Told of the progress.
        pace: Of the run.
        teacher: From whom it learns beside the labels.
        trained: Whether its weights are trained already.

    Raises:
        ArtifactError: The exported file does not say what the network says.
    """
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.finetune import finetune
    from nas.training.supernet.statistics import predictions

    verdict = problem.judge.verdicts([architecture])[0]
    device = next(module.parameters()).device
    tuned = finetune(
        module,
        architecture,
        dataset,
        run.path / MEMBER_FILE,
        recipe_of(problem, dataset, architecture, pace),
        resolution=verdict.resolution,
        seed=problem.request.seed,
        bus=bus,
        device=str(device),
        left_s=pace.but(reserve_s_of(problem, dataset, module, architecture)) if pace.limited else None,
        teacher=teacher,
        keep_start=trained,
    )
    predicted = predictions(tuned.module, Batches(dataset, "test", verdict.resolution, device))
    return _export_tested(run, problem, dataset, architecture, (tuned.module, tuned.validation_accuracy_pct), predicted, bus)


def tune_for_a_while(
    run: RunDirectory, problem: Problem, evaluator: Evaluator, architecture: Architecture, rung: int, pace: Pace, bus: EventBus
) -> npt.NDArray[np.bool_]:
    """Fine-tune a network for the time that is left, from its shared weights or where the trial before ended; `deliver` goes on from there.

    Args:
        run: Where the weights are kept.
        problem: Of the run.
        evaluator: Has the shared weights.
        architecture: Which.
        rung: Number of the trial.
        pace: Of the run.
        bus: Told of the progress.

    Returns:
        Which of the validation pictures it names rightly, of as many as published networks are compared on.
    """
    from nas.training.evaluators.probe import compared
    from nas.training.supernet.finetune import finetune
    from nas.training.supernet.statistics import CALIBRATION_PICTURES

    assert problem.dataset is not None
    dataset = compared(problem.dataset)
    size = problem.judge.verdicts([architecture])[0].resolution
    tuned = _tuned_before(run, problem, architecture, rung)
    module = tuned or evaluator.module(architecture, size)
    device = str(next(module.parameters()).device)
    final_pictures = CALIBRATION_PICTURES + 2 * dataset.count("validation")
    reserve_s = final_pictures * _picture_s(dataset, module, size)
    path, recipe = run.path / TRIED_FILE.format(rung), recipe_of(problem, dataset, architecture, pace)
    seed, left_s, teacher = problem.request.seed, pace.but(reserve_s), teacher_of(run, problem, evaluator, architecture, pace, bus)
    return finetune(
        module,
        architecture,
        dataset,
        path,
        recipe,
        resolution=size,
        seed=seed,
        bus=bus,
        device=device,
        left_s=left_s,
        teacher=teacher,
        keep_start=tuned is not None or not problem.evaluator.fresh,
    ).right


def _tuned_before(run: RunDirectory, problem: Problem, architecture: Architecture, rung: int) -> nn.Module | None:
    """Return a network as the last trial before `rung` left it; None where there was none, or of another network."""
    from nas.training.supernet.finetune import load_member

    files = [path for i in range(rung) if (path := run.path / TRIED_FILE.format(i)).is_file()]
    if not files:
        return None
    tuned, module, _ = load_member(files[-1], problem.space)
    return module if tuned == architecture else None


TRIED_FILE = "tried-{}.safetensors"
"""Of a network as the trial of that number left it."""

_MOST_TRIALS = 8
"""More than any run has: with four kinds there are two. Set by hand."""


def deliver_tuned(run: RunDirectory, problem: Problem, dataset: Dataset, architecture: Architecture, bus: EventBus) -> Delivery:
    """Export the network that `MEMBER_FILE` holds, reload the file, and test it.

    Args:
        run: Where both are.
        problem: Of the run.
        dataset: Normalised as the network expects.
        architecture: What it is.
        bus: Told of the progress.

    Raises:
        ArtifactError: The exported file does not say what the network says.
    """
    import torch

    from nas.training.supernet.batches import Batches
    from nas.training.supernet.finetune import load_member
    from nas.training.supernet.statistics import predictions

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, module, size = load_member(run.path / MEMBER_FILE, problem.space)
    module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    validation_pct = 100 * float(
        np.mean(predictions(module, Batches(dataset, "validation", size, device), 64) == dataset.labels("validation"))
    )
    predicted = None
    if problem.quantises(architecture) or not exporters.get(problem.request.exporter).runs_here():
        predicted = predictions(module, Batches(dataset, "test", size, device), 64)
    return _export_tested(run, problem, dataset, architecture, (module.to("cpu"), validation_pct), predicted, bus)


def reserve_s_of(problem: Problem, dataset: Dataset, module: nn.Module, architecture: Architecture) -> float:
    """Return the seconds that are kept for the last statistics, the export and the test, by the time of a forward run."""
    from nas.training.supernet.statistics import CALIBRATION_PICTURES

    files = 2 if problem.quantises(architecture) else 1
    pictures = CALIBRATION_PICTURES + 2 * dataset.count("validation") + (1 + files) * dataset.count("test")
    return EXPORT_S + pictures * _picture_s(dataset, module, problem.judge.verdicts([architecture])[0].resolution)


def _picture_s(dataset: Dataset, module: nn.Module, size: Resolution) -> float:
    """Return the seconds of a picture's forward run."""
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.statistics import predictions

    few = Batches(dataset, "validation", size, next(module.parameters()).device)
    few.labels = few.labels[:_TIMED_PICTURES]
    predictions(module.eval(), few)  # compiles its kernels
    began_s = time.monotonic()
    predictions(module, few)
    return (time.monotonic() - began_s) / len(few)


def recipe_of(problem: Problem, dataset: Dataset, architecture: Architecture, pace: Pace) -> Recipe:
    """Return how a choice is fine-tuned."""
    from nas.training.supernet.finetune import alone_recipe, finetuning_recipe

    if problem.evaluator.fresh:
        recipe = alone_recipe(problem.space, dataset)
    else:
        recipe = finetuning_recipe(
            dataset, problem.space.lower(architecture, problem.judge.verdicts([architecture])[0].resolution).cost.macs
        )
    default = recipe.epochs if problem.request.data else min(recipe.epochs, SHOWN_EPOCHS)
    return replace(recipe, epochs=pace.epochs(problem.request.finetune_epochs, default))


def _slower(problem: Problem, architecture: Architecture, precision: str) -> str:
    """Return the line of a choice that takes longer at its quantised precision than in float; empty where it does not."""
    graph = problem.space.lower(architecture, problem.judge.resolution)
    profile = problem.targets[0].profile
    return slower_than_float(graph, profile, precision) if problem.targets[0].predictor and graph.precisions <= {None} else ""


def _export_tested(
    run: RunDirectory,
    problem: Problem,
    dataset: Dataset,
    architecture: Architecture,
    tuned: tuple[nn.Module, float],
    predicted: Labels | None,
    bus: EventBus,
) -> Delivery:
    """Export a fine-tuned network and test the file.

    Args:
        run: Where.
        problem: Of the run.
        dataset: Normalised as the network expects.
        architecture: What it is.
        tuned: The network, and its accuracy on validation.
        predicted: What PyTorch says of the test pictures; None where the file alone is asked.
        bus: Told of the progress.
    """
    module, validation_pct = tuned
    verdict, request, labels = problem.judge.verdicts([architecture])[0], problem.request, dataset.labels("test")
    precision = verdict.precisions[problem.device]
    began_s = time.monotonic()
    kind = exporters.get(request.exporter)
    bus.emit(PhaseStarted("export", total=len(labels), detail=f"{request.exporter}, reloaded in its runtime"))
    path, part = run.path / f"model{kind.suffix}", run.path / f".model.part{kind.suffix}"
    for left in (path, part):  # of a session that was killed here
        left.unlink(missing_ok=True)
    facts = run_facts(run, problem, architecture) | {"validation_accuracy_pct": f"{validation_pct:.4f}"}
    trained = Trained(problem.space, architecture, module.to("cpu"), verdict.resolution, dataset, problem.recipe)
    quantised = problem.quantises(architecture)
    if quantised and (slower := _slower(problem, architecture, precision)):
        bus.emit(Notice(slower))
    artifact = trained.export(
        precision if quantised else "fp32", part, facts, request.takes, request.exporter
    )  # compilers for fp16 take fp32
    scores, file_labels = kind.reload(part), list(np.full_like(labels, -1) if predicted is None else predicted)
    if scores is None:
        bus.emit(Notice(f"tested in PyTorch: files of {request.exporter} cannot be run here."))
    else:
        answers = predictions_of(scores, dataset, verdict.resolution, PEAKS[request.takes], concurrent=kind.concurrent)
        for i, label in enumerate(answers):
            file_labels[i] = label
            if i % 32 == 31:
                bus.emit(PhaseAdvanced("export", i + 1))
    exported = np.array(file_labels)
    accuracy_pct, changed = 100 * float(np.mean(exported == labels)), 0 if predicted is None else int(np.sum(exported != predicted))
    float_pct = accuracy_pct if predicted is None else 100 * float(np.mean(predicted == labels))
    if quantised:
        bus.emit(Notice(f"test accuracy: {float_pct:.2f} % in float, {accuracy_pct:.2f} % in the {precision} file in ONNX Runtime."))
    elif changed:
        bus.emit(Notice(f"the exported file names another class than the network in PyTorch on {changed} of {len(labels)} test images."))
    artifact = kind.annotate(artifact, {"test_accuracy_pct": f"{accuracy_pct:.4f}", "float_test_accuracy_pct": f"{float_pct:.4f}"})
    part.rename(path)
    lacking = lacking_operators(problem, architecture, artifact.operators)
    if lacking:
        bus.emit(Notice(f"the device lacks operators of the exported file: {', '.join(lacking)}."))
    bus.emit(PhaseFinished("export", time.monotonic() - began_s))
    return Delivery(
        model=path.name,
        accuracy_pct=accuracy_pct,
        float_accuracy_pct=float_pct,
        validation_accuracy_pct=validation_pct,
        sha256=artifact.sha256,
        max_difference=artifact.max_difference,
        lacking_operators=tuple(lacking),
        sensitivity_db=trained.sensitivity_db() if quantised else {},
        by_class=by_class(dataset, labels, exported),
    )


def by_class(dataset: Dataset, labels: Labels, answers: Labels) -> ByClass:
    """Return how often each class was named for pictures of each class."""
    classes = dataset.num_classes
    confusion = np.bincount(labels * classes + answers, minlength=classes * classes).reshape(classes, classes)
    pictures = confusion.sum(1)
    return ByClass(
        classes=dataset.classes,
        pictures=tuple(pictures.tolist()),
        accuracy_pct=tuple(100 * float(confusion[i, i] / n) if n else None for i, n in enumerate(pictures)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def lacking_operators(problem: Problem, architecture: Architecture, written: Mapping[str, int]) -> list[str]:
    """Return the operators that a device lacks, sorted: of the graph, by its estimate, and of the file, by its profile's list.

    Args:
        problem: Whose devices.
        architecture: That was exported.
        written: Operator kinds in the file, which writes some of the graph's operators as several.
    """
    lacking = {name for estimate in problem.judge.estimates(architecture).values() for name in estimate.unsupported}
    for target in problem.targets:
        lacking |= set(target.profile.at(target.precision).unsupported_ops) & set(written)
    return sorted(lacking)
