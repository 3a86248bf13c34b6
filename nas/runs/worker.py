"""A process that helps a search which runs elsewhere."""

from __future__ import annotations

from pathlib import Path

from nas.errors import ArtifactError
from nas.events import EventBus
from nas.results import Contribution
from nas.runs.problem import Problem, pose
from nas.runs.request import Request
from nas.runs.trained_search import EVALUATIONS, SEARCHER
from nas.searching.address import keep_password
from nas.searching.storage import read_attributes
from nas.searching.study import Study
from nas.spaces.elastic import ElasticSpace
from nas.training.evaluator import Evaluator


def work(storage: str, *, study: str, supernet: Path | None = None, data: str | None = None, bus: EventBus | None = None) -> Contribution:
    """Evaluate candidates of a study until it has enough.

    Args:
        storage: URL of the database, or path of the journal, of the search.
        study: Its name there.
        supernet: The search's trained weights, where they lie elsewhere on this machine.
        data: The search's data, likewise.
        bus: Told of the progress.

    Raises:
        ArtifactError: No such study, or weights or data that are not the search's.
    """
    storage = keep_password(storage)
    facts = read_attributes(storage, study)
    if missing := {"request", "data"} - facts.keys():
        raise ArtifactError(
            f"study {study}: was not made by nas search, lacks {min(missing)!r}. Do this: start nas search --storage first."
        )
    written = Request.model_validate_json(facts["request"])
    here = {key: str(value) for key, value in (("supernet", supernet), ("data", data)) if value}
    problem = pose(written.model_copy(update=here))
    _agree("data", problem.dataset.key if problem.dataset else "none", facts["data"])
    shared = Study.open(storage, name=study, space=problem.space, goal=problem.goal, create=False)
    shared.run(
        written.searcher or SEARCHER,
        _evaluator(problem, facts.get("weights")),
        problem.judge,
        evals=written.evals or EVALUATIONS,
        seed=written.seed,
        bus=bus or EventBus(),
        shared=True,
    )
    return Contribution(storage=storage, study=study, evaluations=shared.evaluations, proposals=shared.proposals)


def _evaluator(problem: Problem, weights: str | None) -> Evaluator:
    """Return the search's evaluator, made from the same weights."""
    from nas.training.supernet.train import load_supernet

    if weights is None:
        return problem.evaluator.make(problem.assignment())
    if not problem.request.supernet:
        raise ArtifactError(f"worker: lacks the weights {weights} of the search. Do this: --supernet RUN_DIR/supernet.safetensors.")
    assert isinstance(problem.space, ElasticSpace)
    supernet = load_supernet(Path(problem.request.supernet), problem.space.plain)
    _agree("weights", supernet.key, weights)
    return problem.evaluator.make(problem.assignment(supernet))


def _agree(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ArtifactError(f"worker: has other {what} than the search, got {found}. Expected {expected}.")
