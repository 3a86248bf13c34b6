from pathlib import Path
from types import SimpleNamespace

import pytest

from nas.errors import TrainingError
from nas.runs.choice import explain
from nas.runs.explain import stage_of, why_not_more
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.searching.searcher import Trial
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.training.evaluator import Metrics
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")


@pytest.mark.parametrize(
    ("name", "stage"),
    [("stages.2.blocks.0.conv", "stages.2"), ("layer4.1.conv1", "layer4"), ("stage2.block1.mixer.dw", "stage2"), ("head", "head")],
)
def test_stage_of(name: str, stage: str) -> None:
    assert stage_of(name) == stage


def test_it_names_what_was_excluded_and_what_more_would_buy(tmp_path: Path) -> None:
    targets = load_targets([str(write_device(tmp_path))])
    judge = Judge(get_space("tiny-published"), make_goal(targets, ["0.95ms"]), targets)
    members = list(judge.space.enumerate())
    scored = [(a, v, judge.space.published(a).accuracy_pct) for a, v in zip(members, judge.verdicts(members), strict=True)]  # type: ignore[attr-defined]
    chosen = judge.space.architecture((16, "Relu"))
    found = why_not_more(judge, scored, chosen)
    assert found.accuracy_pct == 80.0  # the 81 % one has an operator that the device lacks
    assert found.over_pct == pytest.approx(100 * (1.1 * 64 * 27 * 1024 / 1e6 / 0.95 - 1))
    assert [row.name for row in found.operators] == ["Conv", "Relu"]
    assert [change.accuracy_pct for change in found.budget_changes] == [70.0, 75.0]
    assert "10% more budget would buy 5.00 points" in found.lines[-1]
    assert "10% less budget would change nothing" in found.lines[-2]


@pytest.mark.parametrize("failure", [TrainingError("scores are not finite."), RuntimeError("out of memory")])
def test_what_cannot_be_scored_beyond_the_budget_is_left_out(tmp_path: Path, failure: Exception) -> None:
    targets = load_targets([str(write_device(tmp_path))])
    judge = Judge(get_space("tiny-published"), make_goal(targets, ["0.95ms"]), targets)
    narrow, broken, wide = (judge.space.architecture((width, "Relu")) for width in (16, 32, 64))
    trials = [Trial(0, narrow, "complete", {"accuracy_pct": 70.0}, {"latency": 0.0})]
    trials += [Trial(i, beyond, "infeasible", {}, {"latency": 1.0}) for i, beyond in enumerate((broken, wide), start=1)]

    def evaluate(architecture: Architecture) -> Metrics:
        if architecture == broken:
            raise failure
        return judge.space.published(architecture)  # type: ignore[attr-defined,no-any-return]

    found = explain(SimpleNamespace(judge=judge), SimpleNamespace(evaluate=evaluate), trials, narrow)  # type: ignore[arg-type]
    assert found.accuracy_pct == 80.0
