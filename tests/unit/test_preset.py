from pathlib import Path

import pytest

from nas.runs.preset import choose_preset, lacking_families, larger_preset
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.naming import get_space
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")


@pytest.mark.parametrize(
    ("space", "images", "gpu", "expected"),
    [
        ("hybrid", 1437, False, "hybrid-s"),
        ("hybrid", 9_999, True, "hybrid-s"),
        ("hybrid", 10_000, False, "hybrid-m"),
        ("hybrid", 50_000, False, "hybrid-m"),
        ("hybrid", 50_000, True, "hybrid-l"),
        ("hybrid-npu", 1437, False, "hybrid-npu-s"),
        ("hybrid-l", 10, False, "hybrid-l"),
        ("zoo", 10, False, "zoo"),
        ("nowhere", 10, False, "nowhere"),
    ],
)
def test_preset(space: str, images: int, gpu: bool, expected: str) -> None:
    name, why = choose_preset(space, images, gpu)
    assert name == expected
    assert bool(why) == (name != space)
    if why:
        assert f"{images:,} images" in why


def test_what_the_device_lacks_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = write_device(tmp_path)
    path.write_text(path.read_text().replace("[precisions.fp16]", '[precisions.fp16]\nunsupported_ops = ["Attention"]'))
    found = lacking_families(get_space("hybrid-s"), load_targets([str(path)]))
    assert found["window"] == "tiny at fp16 lacks Attention"
    assert "depthwise" not in found
    space = get_space("hybrid-s", without=sorted(found))
    assert not set(space.families) & set(found)  # type: ignore[attr-defined]


def test_operators_that_a_device_lacks_are_named_by_the_graph_and_by_the_file(tmp_path: Path) -> None:
    from nas.runs.delivery import lacking_operators
    from nas.runs.problem import Problem
    from nas.runs.request import Request
    from nas.training.evaluator import evaluators

    path = write_device(tmp_path)
    path.write_text(path.read_text().replace("[precisions.fp16]", '[precisions.fp16]\nunsupported_ops = ["Softmax", "Gelu"]'))
    targets, space = load_targets([str(path)]), get_space("tiny-published")
    goal = make_goal(targets, [])
    request = Request(devices=(str(path),), space="tiny-published")
    problem = Problem(request, targets, goal, space, Judge(space, goal, targets), evaluators.get(space.evaluator))
    fancy, plain = (space.architecture([8, head]) for head in ("FancyOp", "Relu"))
    assert lacking_operators(problem, fancy, {"Conv": 1, "Softmax": 2}) == ["FancyOp", "Softmax"]
    assert lacking_operators(problem, plain, {"Conv": 1, "Relu": 1}) == []


def test_a_larger_preset_is_named_where_the_budget_allows_it(tmp_path: Path) -> None:
    targets = load_targets([str(write_device(tmp_path))])

    def said(budget: str) -> str:
        return larger_preset(Judge(get_space("hybrid-s"), make_goal(targets, [budget]), targets), {})

    assert "would have allowed hybrid-l" in said("3000ms")  # one ms a MMAC
    assert said("300ms") == ""
