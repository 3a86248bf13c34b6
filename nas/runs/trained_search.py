"""The main job: train a supernet, search it, fine-tune the choice, export it, and check what was exported.

Each phase keeps its outcome in the run directory and takes it up from there, so a run that was killed goes on as if it
had not been: weights after every epoch, trials after every evaluation, then the choice, then the file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import NasError
from nas.events import Event, EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.exporting.trained import Trained, onnx_predictions
from nas.quantisation.method import ACTIVATION_BITS
from nas.runs.choice import LEVEL, choose
from nas.runs.directory import RunDirectory
from nas.runs.explain import why_not_more
from nas.runs.problem import Problem, nearest_miss, point
from nas.runs.published_search import zoo_front
from nas.searching.pareto import knee
from nas.searching.searcher import Trial
from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.spaces.precision import INHERIT

if TYPE_CHECKING:
    from nas.spaces.elastic import ElasticSpace
    from nas.training.data.dataset import Dataset
    from nas.training.evaluators.quantised import QuantisedEvaluator
    from nas.training.evaluators.supernet import SupernetEvaluator

    MemberEvaluator = SupernetEvaluator | QuantisedEvaluator
    from nas.spaces.space import Resolution
    from nas.training.supernet.train import Recipe
    from nas.training.supernet.weights import Supernet

SEARCHER = "guided"
EVALUATIONS = 120
RECIPE: Recipe | None = None
"""How the supernet is trained; None for the default recipe."""

TUNING: Recipe | None = None
"""How the choice is fine-tuned; None for the default recipe."""

SUPERNET_FILE = "supernet.safetensors"
MEMBER_FILE = "finetuned.safetensors"
_COMPARED = 8
"""Front points of the highest accuracy whose pictures are compared one by one."""

_BEYOND = 6
"""Networks beyond the budget that are scored once the search is over, to say what more budget would buy."""


def design(run: RunDirectory, problem: Problem, bus: EventBus) -> dict[str, Any]:
    """Do everything that is not done yet.

    Returns:
        The result's keys that follow from it.

    Raises:
        NasError: What went wrong; `nas resume` goes on from there.
    """
    request, judge, dataset = problem.request, problem.judge, problem.dataset
    assert dataset is not None
    zoo = kept(run, "zoo.json", lambda: {"front": zoo_front(problem)})["front"]
    supernet = trained(run, problem, dataset, bus)
    evaluator = evaluator_of(problem, supernet, dataset)
    here = request.model_copy(update={"supernet": request.supernet or str((run.path / SUPERNET_FILE).resolve())})  # for workers beside it
    study = open_study(run, problem, attributes={"request": here.model_dump_json(), "weights": supernet.key, "data": dataset.key})
    bus.listeners.append(keeper := FrontKeeper(run, problem, study))
    study.run(
        request.searcher or SEARCHER,
        evaluator,
        judge,
        evals=request.evals or EVALUATIONS,
        seed=request.seed,
        bus=bus,
        shared=request.storage is not None,
    )
    bus.listeners.remove(keeper)
    front = study.front()
    if not front:
        seen = [trial.architecture for trial in study.trials()]
        raise nearest_miss(problem, list(zip(seen, judge.verdicts(seen), strict=True)))
    decision = kept(run, "decision.json", lambda: decide(problem, evaluator, front, study.trials()))
    architecture = Architecture(problem.space.name, problem.space.version, tuple(decision["genes"]))
    run.write_text("architecture.json", architecture.to_json() + "\n")
    points = [point_of(problem, trial) for trial in front]
    exported = kept(run, "export.json", lambda: finish(run, problem, dataset, supernet, architecture, bus))
    for found in points:
        if found["key"] == architecture.key:
            found |= {key: exported[key] for key in ("accuracy_pct", "float_accuracy_pct", "validation_accuracy_pct")}
    result: dict[str, Any] = {
        "chosen": next(found for found in points if found["key"] == architecture.key),
        "why": decision["why"],
        "blocks": blocks(problem, architecture),
        "compared": decision["compared"],
        "front": points,
        "knee": front[knee([problem.goal.losses(trial.values) for trial in front])].architecture.key,
        "objectives": [objective.name for objective in problem.goal.objectives],
        "hypervolume_history": study.hypervolume_history(),
        "zoo": zoo,
        "model": str(run.path / "model.onnx"),
        "model_reason": None,
        "model_sha256": exported["sha256"],
        "lacking_operators": exported["lacking_operators"],
        "sensitivity_db": exported["sensitivity_db"],
        "evaluations": study.evaluations,
        "proposals": study.proposals,
        "why_not_more": decision["why_not_more"],
    }
    if request.verify:
        result["verified"] = kept(run, "verified.json", lambda: verify(problem, points, bus))["networks"]
    return result


class FrontKeeper:
    """A listener that keeps the front of a running search in ``front.json``, for `nas show`.

    Args:
        run: Where.
        problem: Turns trials into points.
        study: Of the search.
    """

    def __init__(self, run: RunDirectory, problem: Problem, study: Study) -> None:
        self.run, self.problem, self.study = run, problem, study
        self._numbers: list[int] = []

    def __call__(self, event: Event) -> None:
        """Write the front where it has changed."""
        if not (isinstance(event, PhaseAdvanced) and event.phase == "search"):
            return
        front = self.study.front()
        if (numbers := [trial.number for trial in front]) != self._numbers:
            self._numbers = numbers
            self.run.write("front.json", {"front": [point_of(self.problem, trial) for trial in front]})


def kept(run: RunDirectory, name: str, make: Any) -> dict[str, Any]:
    """Return what a file of the run holds, making it first where it is absent."""
    found = run.read(name)
    if found is None:
        found = make()
        run.write(name, found)
    return dict(found)


def trained(run: RunDirectory, problem: Problem, dataset: Dataset, bus: EventBus) -> Supernet:
    """Return the supernet: the user's, or the run's own, trained as far as is lacking."""
    from nas.training.supernet.train import default_recipe, load_supernet, train

    recipe = RECIPE or default_recipe(dataset)

    space = elastic(problem).plain
    if problem.request.supernet:
        return load_supernet(Path(problem.request.supernet), space)
    proxy = proxy_resolution(problem, dataset)
    return train(space, dataset, run.path / SUPERNET_FILE, recipe, resolution=proxy, seed=problem.request.seed, bus=bus).supernet


def proxy_resolution(problem: Problem, dataset: Dataset) -> Resolution:
    """Return the resolution at which the supernet trains: as asked for, else the data's own up to 128, at least 32."""
    if problem.request.proxy_resolution:
        return problem.request.proxy_resolution, problem.request.proxy_resolution
    side = min(max(dataset.resolution), 128) if dataset.resolution else 128
    side = max(32, -(-side // 32) * 32)
    return side, side


def evaluator_of(problem: Problem, supernet: Supernet, dataset: Dataset) -> MemberEvaluator:
    """Return what scores members as they will run: quantised where the devices or the members say so, else in float."""
    from nas.training.evaluators.quantised import QuantisedEvaluator
    from nas.training.evaluators.supernet import SupernetEvaluator

    space = elastic(problem)
    if space.plain is space and problem.precision not in ACTIVATION_BITS:
        return SupernetEvaluator(supernet, dataset)
    return QuantisedEvaluator(supernet, dataset, problem.precision, space=space)


def elastic(problem: Problem) -> ElasticSpace:
    """Return the problem's space, which `nas.runs.problem.pose` has made one with shared weights wherever there are data."""
    from nas.spaces.elastic import ElasticSpace

    assert isinstance(problem.space, ElasticSpace)
    return problem.space


def open_study(run: RunDirectory, problem: Problem, *, attributes: Mapping[str, str] | None = None, create: bool = True) -> Study:
    """Open the study of a run."""
    return Study.open(run.storage, name="nas", space=problem.space, goal=problem.goal, attributes=attributes, create=create)


def point_of(problem: Problem, trial: Trial) -> dict[str, Any]:
    """Return an evaluated trial as a point of the result."""
    verdict = problem.judge.verdicts([trial.architecture])[0]
    return point(problem, trial.architecture, verdict, supernet_accuracy_pct=trial.values["accuracy_pct"]) | {"trial": trial.number}


def blocks(problem: Problem, architecture: Architecture) -> list[str]:
    """Return the choices that have an effect, one line for what precedes the stages (or blocks) and one a stage."""
    active = [label for label, _ in problem.space.segments(architecture, problem.judge.resolution)]
    lines: dict[str, list[str]] = {}
    for name, gene in problem.space.describe(architecture).items():
        stage, *rest = name.split(".")
        place = name.rpartition(".")[0]
        if gene == INHERIT or (place and not any(label.startswith(f"{place}.") for label in active)):
            continue
        lines.setdefault(stage if rest else "input", []).append(f"{' '.join(rest) or stage} {gene}")
    return [f"{stage}: {', '.join(genes)}" for stage, genes in lines.items()]


def decide(problem: Problem, evaluator: MemberEvaluator, front: Sequence[Trial], trials: Sequence[Trial]) -> dict[str, Any]:
    """Choose from the front on the validation pictures, and say what more or less budget would have changed."""
    latency = f"latency_ms/{problem.device}"
    best = list(front[:_COMPARED])
    right = [evaluator.right(trial.architecture) for trial in best]
    chosen, top, p_value = choose([trial.values[latency] for trial in best], right)
    why = "the most accurate on validation within every budget"
    compared = [{"key": best[i].architecture.key, "supernet_accuracy_pct": 100 * float(np.mean(right[i]))} for i in sorted({chosen, top})]
    if chosen != top:
        first, other = compared[sorted({chosen, top}).index(chosen)], compared[sorted({chosen, top}).index(top)]
        why = (
            f"faster than {other['key']} ({best[chosen].values[latency]:.3g} against {best[top].values[latency]:.3g} ms), and a McNemar test on "
            f"{len(right[0])} validation images cannot tell them apart at {LEVEL:.0%} (p = {p_value:.2f}; "
            f"{first['supernet_accuracy_pct']:.2f} against {other['supernet_accuracy_pct']:.2f} %)"
        )
    winner = best[chosen].architecture
    return {
        "genes": list(winner.genes),
        "why": why,
        "compared": compared,
        "p_value": p_value,
        "why_not_more": explain(problem, evaluator, trials, winner),
    }


def explain(problem: Problem, evaluator: MemberEvaluator, trials: Sequence[Trial], winner: Architecture) -> dict[str, Any]:
    """Score a few proposals beyond the budget, the nearest first and the largest, and compare."""
    judge = problem.judge
    scored = {
        t.architecture.key: (t.architecture, judge.verdicts([t.architecture])[0], t.values["accuracy_pct"]) for t in trials if t.evaluated
    }
    beyond = {t.architecture.key: t.architecture for t in trials if t.state == "infeasible"}
    excluded = [(a, v) for a, v in zip(beyond.values(), judge.verdicts(list(beyond.values())), strict=True)]
    excluded = [(a, v) for a, v in excluded if not any(e.unsupported for e in v.estimates.values())]
    near = [pair for pair in excluded if max(pair[1].violations.values()) <= 0.1]
    near.sort(key=lambda pair: (-pair[1].values["macs"], pair[0].key))
    large = sorted(excluded, key=lambda pair: (-pair[1].values["macs"], pair[0].key))
    for architecture, verdict in [*near[: _BEYOND // 2], *large[: _BEYOND // 2]]:
        if architecture.key not in scored:
            scored[architecture.key] = (architecture, verdict, evaluator.evaluate(architecture).accuracy_pct)
    return why_not_more(judge, list(scored.values()), winner)


def verify(problem: Problem, points: Sequence[Mapping[str, Any]], bus: EventBus) -> dict[str, Any]:
    """Measure the front's best networks, and say how the estimates did."""
    from nas.devices.measure import measure_graph, measure_onnx, measure_with_runner

    request = problem.request
    began_s = time.monotonic()
    best = sorted(points, key=lambda p: (-p["supernet_accuracy_pct"], p["latency_ms"]))[: request.verify]
    bus.emit(PhaseStarted("verify", total=len(best), detail=f"measuring {len(best)} networks"))
    rows = []
    for i, found in enumerate(best, 1):
        data = found["architecture"]
        graph = problem.space.lower(Architecture(data["space"], data["version"], tuple(data["genes"])))

        def timed(path: Path) -> Any:
            return measure_with_runner(path, request.runner) if request.runner else measure_onnx(path, problem.device)  # type: ignore[arg-type]

        try:
            measured = measure_graph(graph, timed)
        except NasError as error:
            rows.append({"key": found["key"], "line": f"verify: {found['key']}: {error}"})
            continue
        inside = found["lower_ms"] <= measured.median_ms <= found["upper_ms"]
        error_pct = 100 * (found["latency_ms"] / measured.median_ms - 1)
        where = f"{'inside' if inside else 'outside'} the interval of {found['lower_ms']:.3g}–{found['upper_ms']:.3g} ms"
        line = f"verify: {found['key']}: {measured.median_ms:.3g} ms measured on {measured.device}, estimated {found['latency_ms']:.3g} ms "
        rows.append(
            {
                "key": found["key"],
                **measured.to_json(),
                "error_pct": error_pct,
                "inside": inside,
                "line": f"{line}({error_pct:+.0f} %), {where}",
            }
        )
        bus.emit(PhaseAdvanced("verify", i, {"measured_ms": measured.median_ms}))
    bus.emit(PhaseFinished("verify", time.monotonic() - began_s))
    return {"networks": rows}


def finish(
    run: RunDirectory, problem: Problem, dataset: Dataset, supernet: Supernet, architecture: Architecture, bus: EventBus
) -> dict[str, Any]:
    """Fine-tune at the deployment resolution, recalibrate, fuse, quantise where asked for, export, reload, and test what was exported.

    Raises:
        ArtifactError: The exported file does not say what the network says.
    """
    from nas.exporting.exporters.onnx import annotate
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.finetune import finetune, finetuning_recipe
    from nas.training.supernet.statistics import predictions

    space, verdict = elastic(problem), problem.judge.verdicts([architecture])[0]
    resolution, precision = verdict.resolution, verdict.precisions[problem.device]
    tuned = finetune(
        supernet.extract(space.plainly(architecture), resolution),
        architecture,
        dataset,
        run.path / MEMBER_FILE,
        TUNING or finetuning_recipe(dataset, problem.space.lower(architecture, resolution).cost.macs),
        resolution=resolution,
        seed=problem.request.seed,
        bus=bus,
        device=str(supernet.device),
    )
    labels = dataset.labels("test")
    given = predictions(tuned.module, Batches(dataset, "test", resolution, supernet.device))
    float_pct = 100 * float(np.mean(given == labels))
    began_s = time.monotonic()
    bus.emit(PhaseStarted("export", total=len(labels), detail="ONNX, reloaded in ONNX Runtime"))
    path, part = run.path / "model.onnx", run.path / ".model.part.onnx"
    for left in (path, part):  # of a session that was killed here
        left.unlink(missing_ok=True)
    facts = metadata(run, problem, dataset, architecture, tuned.validation_accuracy_pct)
    trained = Trained(space, architecture, tuned.module.to("cpu"), resolution, dataset)
    quantised = precision in ACTIVATION_BITS or precision == "mixed"
    artifact = trained.export(precision if quantised else "fp32", part, facts, problem.request.takes)  # compilers for fp16 take fp32 files
    found = []
    for i, label in enumerate(onnx_predictions(part, dataset, resolution), 1):
        found.append(label)
        if i % 32 == 0:
            bus.emit(PhaseAdvanced("export", i))
    exported = np.array(found)
    accuracy_pct = 100 * float(np.mean(exported == labels))
    changed = int(np.sum(exported != given))
    if quantised:
        bus.emit(Notice(f"test accuracy: {float_pct:.2f} % in float, {accuracy_pct:.2f} % in the {precision} file in ONNX Runtime."))
    elif changed:
        bus.emit(Notice(f"the exported file names another class than the network in PyTorch on {changed} of {len(labels)} test images."))
    artifact = annotate(artifact, {"test_accuracy_pct": f"{accuracy_pct:.4f}", "float_test_accuracy_pct": f"{float_pct:.4f}"})
    part.rename(path)
    lacking = lacking_operators(problem, architecture, artifact.operators)
    if lacking:
        bus.emit(Notice(f"the device lacks operators of the exported file: {', '.join(lacking)}."))
    bus.emit(PhaseFinished("export", time.monotonic() - began_s))
    return {
        "accuracy_pct": accuracy_pct,
        "float_accuracy_pct": float_pct,
        "validation_accuracy_pct": tuned.validation_accuracy_pct,
        "sha256": artifact.sha256,
        "max_difference": artifact.max_difference,
        "lacking_operators": lacking,
        "sensitivity_db": trained.sensitivity_db() if quantised else {},
    }


def lacking_operators(problem: Problem, architecture: Architecture, written: Mapping[str, int]) -> list[str]:
    """Return the operators that a device lacks, sorted: of the graph, by its estimate, and of the file, by its profile's list.

    Args:
        problem: Whose devices.
        architecture: That was exported.
        written: Operator kinds in the file, which writes some of the graph's operators as several.
    """
    found = {name for estimate in problem.judge.estimates(architecture).values() for name in estimate.unsupported}
    for target in problem.targets:
        found |= set(target.profile.at(target.precision).unsupported_ops) & set(written)
    return sorted(found)


def metadata(run: RunDirectory, problem: Problem, dataset: Dataset, architecture: Architecture, validation_pct: float) -> dict[str, str]:
    """Return what is written into the file beside its accuracy, so that it can be used and traced without the run directory."""
    import json

    estimates = problem.judge.verdicts([architecture])[0]
    mean, std = dataset.statistics
    devices = {
        device: {
            "latency_ms": e.latency_ms,
            "lower_ms": e.lower_ms,
            "upper_ms": e.upper_ms,
            "basis": e.basis,
            "precision": estimates.precisions[device],
            "confidence": e.confidence,
            "extrapolated": bool(e.extrapolated),
        }
        for device, e in estimates.estimates.items()
    }
    manifest = run.manifest
    return {
        "architecture": architecture.to_json(),
        "devices": json.dumps(devices),
        "data": f"{dataset.name} {dataset.key}",
        "validation_accuracy_pct": f"{validation_pct:.4f}",
        "input": "NCHW float32, RGB in 0…1, less mean, over std",
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "classes": json.dumps(dataset.classes, ensure_ascii=False),
        "versions": json.dumps({"nas": manifest["nas"], "python": manifest["python"], **manifest["packages"]}),
        "hashes": json.dumps(manifest["facts"]),
        "seed": str(problem.request.seed),
    }
