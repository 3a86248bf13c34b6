"""What `nas search` does from the request to the result, in phases that each can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nas.errors import ArtifactError, InfeasibleError, NasError
from nas.events import EventBus, Notice
from nas.results import Fronts, Point, Result
from nas.runs.clock import Clock, moment
from nas.runs.cluster import check_workers
from nas.runs.contest import open_contest, settled, with_all_kinds
from nas.runs.default_space import Kind, decide_space, kinds_beside
from nas.runs.directory import RunDirectory, Status, StatusFile, eta_s
from nas.runs.problem import Problem, check_request, make_problem
from nas.runs.request import Request
from nas.runs.teaching import check_teachers
from nas.searching.address import keep_password
from nas.searching.judge import Target
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import SpaceName, family_of
from nas.spaces.space import spaces

PHASES = ("train", "search", "finetune", "export")

_LABEL = 60
"""Characters of a space's name in the name of a run directory: a space of many networks is named after them all. Set by hand."""

_DECODER = "the decoder of the pictures"


def start(request: Request, out: Path | None, bus: EventBus) -> Result:
    """Run a search in a new directory and return its result.

    Raises:
        NasError: What went wrong, in one line; what was done so far is kept.
    """
    began = moment()
    if out is not None and out.exists():  # before data are read
        raise RunDirectory.taken(out)
    why = ""
    if "space" not in request.model_fields_set:
        space, why = decide_space(request)
        decided: dict[str, object] = {"space": space} | ({"from_scratch": False} if request.data else {})
        request = request.model_copy(update=decided)
    check_request(request)
    check_workers(request)
    request = request.located()
    problem = make_problem(request)
    check_teachers(problem)
    if request.supernet:
        from nas.runs.trained_search import given_supernet

        given_supernet(problem)  # before the run has a directory, which a refused one would leave
    beside = kinds_beside(problem) if why else []
    problem = replace(problem, notices=(*([why] if why else []), *(kind.line for kind in beside), *problem.notices))
    plain = SpaceName.parse(problem.space.name).plain
    name = (family_of(plain) or plain) if "%" in plain else plain[:_LABEL]  # anchors that are files make no good folder
    run = RunDirectory.create(out, f"{name}-{problem.device}", problem.request.model_dump(), facts_of(problem))
    if tried := [kind for kind in beside if kind.tried]:
        open_contest(run, [Kind(space=space, tried=True, why=why), *tried])
    try:
        return _work(run, problem, bus, began)
    except InfeasibleError:
        run.discard()
        raise


def resume(path: Path, bus: EventBus, *, runner: str = "", yes: bool = False, **places: str | None) -> Result:
    """Continue a run where it stopped; a finished one gives its result.

    A run directory may come from anywhere, so the command that it holds for measuring is run only where the user says so.

    Args:
        path: The run directory, wherever it lies by now.
        bus: Told of the progress.
        runner: Command that times ``{onnx}``, in place of the stored one.
        yes: Whether the stored one may be run.
        places: Fields of the request (``data``, ``supernet``, ``storage``) for what lies elsewhere by now.

    Raises:
        ArtifactError: No run, one of another version, in use, or its profiles have changed since.
    """
    began, run = moment(), RunDirectory.open(path)
    request, allowed = request_of(run), bool(runner or yes)
    if (result := run.results) is not None and not (result.open and allowed):
        return result
    changes = {name: place for name, place in {**places, "runner": runner}.items() if place}
    if storage := changes.get("storage"):
        changes["storage"] = keep_password(storage)
    request = request.model_copy(update=changes).located()
    problem = problem_of(run, request)
    check_facts(run, problem)
    return _work(run, problem, bus, began, measuring=allowed or not request.runner)


def problem_of(run: RunDirectory, request: Request) -> Problem:
    """Return a run's problem, with the very pixels that the run saw; one that has shared weights of its own goes on with them.

    Raises:
        DataError: They are no longer there.
        NasError: See `nas.runs.problem.make_problem`.
    """
    from nas.runs.trained_search import SUPERNET_FILE

    chain = issubclass(spaces.get(family_of(request.space) or request.space), ChainSpace)
    if request.time_limit and not request.evaluator and not chain and (run.path / SUPERNET_FILE).is_file():
        request = request.model_copy(update={"evaluator": "supernet-in-time"})  # so before a network was trained alone under a time limit
    return make_problem(request, decoder=run.manifest.facts.get(_DECODER, ""))


def show(path: Path) -> Result:
    """Return what is known of a run, finished or not, without touching it.

    Raises:
        ArtifactError: No run, or one of another version.
    """
    run = RunDirectory.open(path)
    if (result := run.results) is not None:
        return result
    status = run.status
    state = "running" if run.living() else "failed" if status.error else "interrupted"
    search = status.search
    front, zoo = (fronts.front if (fronts := run.load(name, Fronts)) else () for name in ("front.json", "zoo.json"))
    return _result(run, state, status).model_copy(
        update={
            "front": front,
            "zoo": zoo,
            "evaluations": int(search.get("evaluations", 0)),
            "proposals": int(search.get("proposals", 0)),
            "phase": status.phase,
            "done": status.done,
            "total": status.total,
            "eta_s": eta_s(status) if state == "running" else None,
            "evaluations_per_s": search.get("evaluations_per_s"),
            "best_accuracy_pct": search.get("best_accuracy_pct"),
            "front_size": int(search.get("front_size", 0)),
            "hypervolume": search.get("hypervolume"),
            "error": status.error,
        }
    )


def request_of(run: RunDirectory) -> Request:
    """Return what a run was asked for.

    Raises:
        ArtifactError: Its manifest is damaged.
    """
    from pydantic import ValidationError

    try:
        return Request.model_validate(run.manifest.request)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ArtifactError(f"run {run.path}: manifest.json is damaged ({'.'.join(map(str, fault['loc']))}: {fault['msg']}).") from None


def _profile_at(target: Target) -> str:
    return f"the profile of {target.profile.name} at {target.precision}"


def facts_of(problem: Problem) -> dict[str, str]:
    """Return the hashes of what a run believes; it is continued only while they hold."""
    facts = {_profile_at(t): t.profile.hash for t in problem.targets}
    facts["the space"] = f"{problem.space.name} version {problem.space.version}"
    if problem.dataset is not None:
        facts["the data"] = problem.dataset.key
        if problem.dataset.decoder:
            facts[_DECODER] = problem.dataset.decoder
    return facts


def check_facts(run: RunDirectory, problem: Problem, only: str = "") -> None:
    """Refuse to go on where what a run believed is no longer so.

    Args:
        run: The run.
        problem: The run's, as it is posed now.
        only: The one fact that is looked at; all of them where it is empty.

    Raises:
        ArtifactError: Profiles, space or data have changed since.
    """
    facts = facts_of(problem)
    former = {_profile_at(t): t.profile.former_hash for t in problem.targets}
    for name, believed in run.manifest.facts.items():
        if only in ("", name) and believed not in (facts.get(name), former.get(name)):
            raise ArtifactError(
                f"run {run.path}: {name} has changed since, got {facts.get(name)}. Expected {believed}. Do this: start a new run."
            )


def _work(run: RunDirectory, problem: Problem, bus: EventBus, began: tuple[float, float], *, measuring: bool = True) -> Result:
    with run.work():
        Clock(run, None, began).save()  # what reading the data took, which was before the run was there
        status = StatusFile(run)
        bus.listeners.append(status)
        try:
            for text in (*problem.notices, *_without_picture()):
                bus.emit(Notice(text))
            problem = settled(run, problem, bus)
            result, others = _answered(run, problem, bus, measuring)
            result = with_all_kinds(run, result)
        except (NasError, OSError) as error:
            status.fail(str(error))
            raise
        finally:
            bus.listeners.remove(status)
        result = result.model_copy(update={"seconds": _phases(status.seconds), "notices": tuple(status.notices)})
        write_report(run, problem, result, others)
        run.write("results.json", result.dump())
        return result


def _answered(run: RunDirectory, problem: Problem, bus: EventBus, measuring: bool) -> tuple[Result, dict[str, Sequence[Point]]]:
    """Return the result, and further networks that its picture shows behind the front, by label."""
    from nas.runs.published_search import survey_space
    from nas.runs.trained_search import search_by_study, verified
    from nas.runs.transfer_search import search_published

    waits = problem.request.verify and not measuring and run.read("verified.json") is None
    timed = (lambda scored: verified(run, problem, scored, bus)) if problem.request.verify and not waits else None
    empty = _result(run, "finished", Status()).model_copy(update={"latency_models": problem.latency_models})
    if problem.evaluator.surveys:
        result, points = survey_space(run, problem, empty, bus, timed)
        others: dict[str, Sequence[Point]] = {"all published networks": points}
    elif problem.evaluator.transfers:
        result, others = search_published(run, problem, empty, bus, timed), {}
    else:
        result, points = search_by_study(run, problem, empty, bus, timed)
        others = {"scored by the search": points}
    if waits:
        remedy = f"Do this: nas resume {run.path.name} --yes to run it, or --runner 'CMD {{onnx}}' for another"
        result = result.model_copy(
            update={"open": (f"verify: not measured, since this run asks to execute {problem.request.runner!r}. {remedy}.",)}
        )
    return result, others


def _without_picture() -> tuple[str, ...]:
    """Return the line that says so where no picture of the front can be drawn."""
    from importlib.util import find_spec

    remedy = "Do this: pip install matplotlib, or nas show with --format json."
    return () if find_spec("matplotlib") else (f"no picture of the front is drawn: matplotlib is not installed. {remedy}",)


def _phases(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: float(seconds.get(phase, 0.0)) for phase in PHASES} | ({"race": float(seconds["race"])} if "race" in seconds else {})


def _result(run: RunDirectory, status: str, state: Status) -> Result:
    """Return a result that holds what is true before anything is known."""
    return Result(
        run_dir=str(run.path),
        status=status,
        chosen=None,
        front=(),
        zoo=(),
        model=None,
        model_reason="the run has not come to that yet",
        evaluations=0,
        proposals=0,
        seconds=_phases(state.seconds),
        notices=tuple(state.notices),
    )


def write_report(run: RunDirectory, problem: Problem, result: Result, others: Mapping[str, Sequence[Point]]) -> None:
    """Write what a person reads of a finished run: table, pictures and page.

    Args:
        run: Where.
        problem: Of the run.
        result: Of the run.
        others: Further networks that the front's picture shows, by what they are.
    """
    from nas.report.results import result_text
    from nas.runs.page import write_page

    shown = {"run_dir": run.path.resolve().name, "model": Path(result.model).name if result.model else None}  # no path of this machine
    run.write_text("table.txt", result_text(result.model_copy(update=shown)))
    if not _without_picture():
        _draw(run, problem, result, others)
    write_page(run, problem, result, others)


def _draw(run: RunDirectory, problem: Problem, result: Result, others: Mapping[str, Sequence[Point]]) -> None:
    from nas.report.plots import draw_chain, draw_front

    if result.front:
        draw_front(run.path / "pareto.png", result, others)
    if isinstance(problem.space, ElasticSpace) and isinstance(space := problem.space.plain, ChainSpace) and result.chosen is not None:
        chosen = problem.space.without_precisions(problem.space.architecture(result.chosen.architecture.genes))
        draw_chain(run.path / "chain.png", space.blocks(chosen), space.route(chosen.genes))
