"""Journals of a search: read, listed, and gone on with."""

import tempfile
from pathlib import Path

from nas.searching import leases, storage, study
from nas.searching.storage import open_backend
from nas.searching.studies import summaries
from nas.searching.study import Study
from nas.testing.searchers import ToyEvaluator, ToyJudge, ToySpace, toy_goal

ENDING = ".journal"
WORDS = (
    *(b'"op_code":', b'"worker_id":', b'"study_id":', b'"trial_id":', b'"state":', b'"values":', b'"params":', b'"distributions":'),
    *(b'"user_attrs":', b'"system_attrs":', b'"user_attr":', b'"lease":', b'"owner":', b'"cheap":', b'"retry_of":', b'"duplicate_of":'),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"[]", b"{}", b"\n", b"\\u0000", b"\\ud800", b'"', b"9" * 400, b"[" * 2000),
)
for module in (leases, storage, study):
    module.LEASE_S = 0.1  # nobody else is at work on a malformed journal


def read(path: Path) -> object:
    path.with_name(f"{path.name}.flock").unlink(missing_ok=True)
    listed = summaries(open_backend(str(path), create=False))
    goal = toy_goal(objectives=2)
    found = Study.open(str(path), name="toy", space=ToySpace(2), goal=goal)
    found.run("random", ToyEvaluator(), ToyJudge(goal), evals=6, seed=0, locked=True, max_proposals=40)
    again = Study.open(str(path), name="toy", space=ToySpace(2), goal=goal)
    again.run("random", ToyEvaluator(), ToyJudge(goal), evals=7, seed=0, shared=True, max_proposals=50)
    return listed, again.front(), again.hypervolume_history()


def absurd(result: object) -> str:
    _, front, history = result  # type: ignore[misc]
    return "" if all(0 <= volume < 1e9 for volume in history) and isinstance(front, list) else f"hypervolumes {history}"


def seeds() -> list[bytes]:
    goal, made = toy_goal(objectives=2), []
    with tempfile.TemporaryDirectory() as folder:
        for i, evals in enumerate((2, 5)):
            path = Path(folder) / f"{i}.journal"
            found = Study.open(str(path), name="toy", space=ToySpace(2), goal=goal, attributes={"data": "abc"})
            found.run("random", ToyEvaluator(), ToyJudge(goal), evals=evals, seed=0, shared=bool(i))
            made.append(path.read_bytes())
    return made
