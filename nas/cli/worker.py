"""``nas worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli._options import Format, write


def command(
    storage: Annotated[str, typer.Option("--storage", help="URL of the database, or path of the journal, of `nas search --storage`.")],
    supernet: Annotated[
        Path | None, typer.Option("--supernet", help="The search's trained weights, if they lie elsewhere on this machine.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="The search's data, if they lie elsewhere on this machine.")] = None,
    study: Annotated[str, typer.Option("--study", help="Name of the study in the storage.")] = "nas",
    form: Format = "table",
) -> None:
    """Help a search that runs elsewhere: evaluate candidates of its study until it has enough."""
    from nas.errors import ArtifactError
    from nas.events import EventBus
    from nas.report.progress import ProgressReport
    from nas.runs.problem import elastic, pose
    from nas.runs.request import Request
    from nas.runs.trained_search import EVALUATIONS, SEARCHER, evaluator_of
    from nas.searching.storage import read_attributes
    from nas.searching.study import Study
    from nas.training.supernet.train import load_supernet

    facts = read_attributes(storage, study)
    if missing := {"request", "weights", "data"} - facts.keys():
        raise ArtifactError(
            f"study {study}: was not made by nas search, lacks {min(missing)!r}. Do this: start nas search --storage first."
        )
    written = Request.model_validate_json(facts["request"])
    here: dict[str, Any] = {key: value for key, value in (("supernet", supernet and str(supernet)), ("data", data)) if value}
    request = written.model_copy(update=here)
    if not request.supernet:
        raise ArtifactError(
            f"worker: lacks the weights {facts['weights']} of the search. Do this: --supernet RUN_DIR/supernet.safetensors."
        )
    problem = pose(request)
    weights = load_supernet(Path(request.supernet), elastic(problem).plain)
    for what, found in (("weights", weights.key), ("data", problem.dataset.key if problem.dataset else "none")):
        if found != facts[what]:
            raise ArtifactError(f"worker: has other {what} than the search, got {found}. Expected {facts[what]}.")
    shared = Study.open(storage, name=study, space=problem.space, goal=problem.goal, create=False)
    progress = ProgressReport()
    try:
        shared.run(
            request.searcher or SEARCHER,
            evaluator_of(problem, weights, problem.dataset),  # type: ignore[arg-type]  # a search of published networks has no worker
            problem.judge,
            evals=request.evals or EVALUATIONS,
            seed=request.seed,
            bus=EventBus([progress]),
            shared=True,
        )
    finally:
        progress.close()
    result = {"storage": storage, "study": study, "evaluations": shared.evaluations, "proposals": shared.proposals}
    write(
        result, form, lambda found: print_line(f"{found['evaluations']} evaluations, {found['proposals']} proposals in {found['storage']}")
    )


def print_line(text: str) -> None:
    """Print one line."""
    typer.echo(text)
