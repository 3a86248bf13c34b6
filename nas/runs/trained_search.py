"""The main job: train a supernet, search it, fine-tune the choice, export it, and check what was exported.

Each phase keeps its outcome in the run directory and takes it up from there, so a run that was killed goes on as if it
had not been: weights after every epoch, trials after every evaluation, then the choice, then the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.events import Event, EventBus, PhaseAdvanced
from nas.quantisation.method import ACTIVATION_BITS
from nas.runs.choice import blocks, decide
from nas.runs.delivery import finish, verify
from nas.runs.directory import RunDirectory
from nas.runs.problem import Problem, elastic, nearest_miss, point
from nas.runs.published_search import zoo_front
from nas.searching.pareto import knee
from nas.searching.searcher import Trial
from nas.searching.study import Study
from nas.spaces.architecture import Architecture

if TYPE_CHECKING:
    from nas.runs.choice import MemberEvaluator
    from nas.spaces.space import Resolution
    from nas.training.data.dataset import Dataset
    from nas.training.supernet.train import Recipe
    from nas.training.supernet.weights import Supernet

SEARCHER = "guided"
EVALUATIONS = 120
RECIPE: Recipe | None = None
"""How the supernet is trained; None for the default recipe."""


SUPERNET_FILE = "supernet.safetensors"


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


def open_study(run: RunDirectory, problem: Problem, *, attributes: Mapping[str, str] | None = None, create: bool = True) -> Study:
    """Open the study of a run."""
    return Study.open(run.storage, name="nas", space=problem.space, goal=problem.goal, attributes=attributes, create=create)


def point_of(problem: Problem, trial: Trial) -> dict[str, Any]:
    """Return an evaluated trial as a point of the result."""
    verdict = problem.judge.verdicts([trial.architecture])[0]
    return point(problem, trial.architecture, verdict, supernet_accuracy_pct=trial.values["accuracy_pct"]) | {"trial": trial.number}
