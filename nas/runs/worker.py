"""A process that helps a search which runs elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from nas.errors import ArtifactError, UsageError
from nas.events import EventBus, Notice
from nas.results import Contribution
from nas.runs.elsewhere import evaluator_elsewhere
from nas.runs.pace import evaluations
from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.runs.trained_search import SEARCHER
from nas.searching.address import keep_password
from nas.searching.backend import Backend
from nas.searching.retry import STORAGE_TIMEOUT_S
from nas.searching.storage import AbsentStudyError, open_backend, study_named
from nas.searching.study import Study

WAIT_S, POLL_S = 3600.0, 2.0
"""How long a worker waits for its search, and how often it looks. Set by hand."""


def work(
    storage: str,
    *,
    study: str | None = None,
    supernet: Path | None = None,
    data: str | None = None,
    wait_s: float = WAIT_S,
    timeout_s: float = STORAGE_TIMEOUT_S,
    bus: EventBus | None = None,
) -> Contribution:
    """Evaluate candidates of a study until it has enough.

    Args:
        storage: URL of the database, or path of the journal, of the search.
        study: Its name there; None for ``nas``, or for the only one.
        supernet: The search's trained weights, where they lie elsewhere on this machine.
        data: The search's data, likewise.
        wait_s: How long to wait for a search that has not begun, or still trains its weights.
        timeout_s: How long the storage may be away.
        bus: Told of the progress.

    Raises:
        ArtifactError: No such study, or weights or data that are not the search's.
    """
    storage = keep_password(storage)
    bus = bus or EventBus()
    name, facts = await_search(storage, study, wait_s, timeout_s, bus)
    written = request_in(facts, name)
    here = {key: str(value) for key, value in (("supernet", supernet), ("data", data)) if value}
    problem = make_problem(written.model_copy(update=here))
    evaluator = evaluator_elsewhere(problem, facts)
    shared = Study.open(storage, name=name, space=problem.space, goal=problem.goal, create=False, timeout_s=timeout_s)
    shared.run(
        written.searcher or SEARCHER,
        evaluator,
        problem.judge,
        evals=evaluations(written),
        seed=written.seed,
        bus=bus,
        shared=True,
    )
    return Contribution(storage=storage, study=name, evaluations=shared.evaluations, proposals=shared.proposals)


def await_search(storage: str, study: str | None, wait_s: float, timeout_s: float, bus: EventBus) -> tuple[str, dict[str, str]]:
    """Return the name of a study and its facts, once its search is at the point where others can help.

    Raises:
        ArtifactError: The search has not come so far within `wait_s`, or it is not clear which study is meant.
    """
    began_s, reported = time.monotonic(), ""
    backend: Backend | None = None
    while True:
        lacking = ""
        try:
            backend = backend or open_backend(storage, create=False, timeout_s=timeout_s)
            name = meant(backend, study)
            facts = {key: value for key, value in backend.study_attributes(study_named(backend, name)).items() if isinstance(value, str)}
            if missing := {"request", "data"} - facts.keys():
                training = "its weights are being trained" if facts.get("status") == "training" else f"lacks {min(missing)!r}"
                lacking = f"study {name}: nas search has not come so far that others can help, {training}."
        except AbsentStudyError as error:
            lacking = str(error)
        if not lacking:
            return name, facts
        if time.monotonic() - began_s >= wait_s:
            raise ArtifactError(f"{lacking} Do this: start nas search --storage {storage}, or wait for it with --wait.")
        if lacking != reported:
            reported = lacking
            bus.emit(Notice(f"worker: waits for up to {wait_s:.0f} s. {lacking}"))
        time.sleep(min(POLL_S, wait_s))


def meant(backend: Backend, study: str | None) -> str:
    """Return the name of the study that a user means.

    Raises:
        UsageError: None was named, and there are several.
    """
    names = sorted(backend.studies())
    if study is not None:
        return study
    if "nas" in names or not names:
        return "nas"
    if len(names) > 1:
        raise UsageError(f"worker: {backend.label} holds several studies. Do this: --study with one of {', '.join(names)}.")
    return names[0]


def request_in(facts: Mapping[str, str], study: str) -> Request:
    """Return what a study's search was asked for.

    Raises:
        ArtifactError: The study's facts are damaged, or another version's.
    """
    try:
        return Request.model_validate_json(facts["request"])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "request"
        raise ArtifactError(f"study {study}: its request cannot be read ({where}: {fault['msg'].lower()}).") from None
