"""``nas rank RUN``: how far the scores of a run can be trusted, which its report says from then on."""

from __future__ import annotations

from pathlib import Path

from nas.errors import ArtifactError
from nas.events import EventBus, Notice
from nas.results import Ranking
from nas.runs.contest import settled
from nas.runs.directory import RunDirectory
from nas.runs.lifecycle import check_facts, problem_of, request_of, write_report
from nas.runs.ranking import rank_members
from nas.runs.ranking_request import RankingRequest
from nas.runs.trainable import as_searched
from nas.runs.trained_search import open_study, scored_points


def rank_run(path: Path, asked: RankingRequest, bus: EventBus) -> Ranking:
    """Rank members of a run's space by its scores and by their own training, and write its report anew.

    Args:
        path: Of the run.
        asked: What the user asks beside it; its data are where the pictures lie by now.
        bus: Told of the progress.

    Raises:
        ArtifactError: No run, an unfinished one, one in use, or what it believed has changed since.
        NasError: See `RankingRequest.contest_of` and `nas.runs.ranking.rank_members`.
    """
    asked.check()
    from nas.training.evaluators.supernet import SupernetEvaluator

    run = RunDirectory.open(path)
    result = run.results
    if result is None:
        raise ArtifactError(f"run {path}: is not finished. Do this: nas resume {path}.")
    request = request_of(run)
    request = request.model_copy(update={"data": asked.data} if asked.data else {}).located()
    with run.work():
        posed = problem_of(run, request)
        check_facts(run, posed)
        posed = settled(run, posed, bus)
        problem = as_searched(run, posed)
        if problem.evaluator.needs >= {"supernet"} and problem.evaluator.scored != SupernetEvaluator.scored:
            bus.emit(
                Notice(
                    f"rank: the run went by another score ({problem.evaluator.scored}); shared scores are judged as they are, in float, for equal epochs."
                )
            )
        contest = asked.contest_of(problem, run, result.front, bus)
        scored = scored_points(problem, open_study(run, problem, create=False))  # before anything is trained
        ranking = rank_members(contest)
        write_report(run, posed, result, {"scored by the search": scored})
    return ranking
