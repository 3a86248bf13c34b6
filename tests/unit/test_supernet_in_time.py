"""Scores with shared weights, weighed by what a network's cost takes from its fine-tuning under a time limit."""

import math

import numpy as np
import pytest

from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_elastic_space
from nas.training.evaluator import Evaluator, Metrics
from nas.training.evaluators.supernet_in_time import POINTS, SupernetInTime, points_by_time


class Flat(Evaluator):
    """Everything is right on half of the pictures."""

    key = "flat"

    def evaluate(self, architecture: Architecture) -> Metrics:
        return Metrics(50.0, "validation", {"pictures": 2.0})


def test_twice_the_cost_is_half_the_training() -> None:
    space = get_elastic_space("hybrid-xs")
    evaluator = SupernetInTime(Flat(), space, points=10.0)
    member = space.sample(np.random.default_rng(0))
    small, large = (space.architecture((size, *member.genes[1:])) for size in (space.choices[0].values[0], space.choices[0].values[-1]))
    scores = [evaluator.evaluate(one) for one in (small, large)]
    costs = [space.lower(one).cost.macs for one in (small, large)]
    assert scores[0].accuracy_pct - scores[1].accuracy_pct == pytest.approx(10.0 * math.log(costs[1] / costs[0]))
    assert scores[0].extra == {"pictures": 2.0, "shared_accuracy_pct": 50.0}
    drawn = [evaluator.evaluate(space.sample(np.random.default_rng(i))).accuracy_pct for i in range(30)]
    assert min(drawn) < 50.0 < max(drawn)  # the middle of the space is left as it is
    assert SupernetInTime(Flat(), space, points=9.0).key != evaluator.key


def test_points_by_time_are_those_of_the_training_itself() -> None:
    def history(*accuracies: float) -> list[dict[str, float]]:
        return [{"train_accuracy_pct": accuracy} for accuracy in accuracies]

    assert points_by_time([]) == points_by_time(history(10.0, 20.0, 30.0)) == POINTS
    assert points_by_time(history(*(20 + 7 * math.log(epoch) for epoch in range(1, 9)))) == pytest.approx(7.0)
    assert points_by_time(history(90.0, 20.0, 50.0, 50.0, 50.0, 50.0)) == pytest.approx(0.0, abs=1e-9)  # it has learned what it can
    assert points_by_time(history(60.0, 50.0, 40.0, 30.0)) == 0.0


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"time_limit": "9min"}, "Alone"),
        ({"time_limit": "9min", "epochs": 3}, "SupernetInTime"),
        ({"time_limit": "9min", "precision": "any"}, "SupernetInTime"),
        ({"time_limit": "9min", "space": "hybrid-xs@fp16+w8a8"}, "SupernetInTime"),
        ({"time_limit": "9min", "precision": "w8a8"}, "Alone"),
        ({}, "SupernetEvaluator"),
        ({"time_limit": "9min", "evaluator": "supernet"}, "SupernetEvaluator"),
    ],
)
def test_a_time_limit_asks_for_it(asked: dict[str, str], name: str) -> None:
    problem = make_problem(Request(devices=("sa8295p",), budgets=("5ms",), space="hybrid-xs", data="digits").model_copy(update=asked))
    assert problem.evaluator.__name__ == name
    assert problem.evaluator.paired == (name != "SupernetInTime")
    assert any(line.startswith("training: one network alone") for line in problem.notices) == (name == "Alone")


@pytest.mark.parametrize(
    ("space", "side"), [("hybrid-xs", 32), ("vit-n", 96)]
)  # a transformer has small patches, and more of them, at less
def test_a_network_that_is_trained_alone_has_the_size_of_the_pictures_or_the_least_of_its_space(space: str, side: int) -> None:
    problem = make_problem(Request(devices=("sa8295p",), budgets=("5ms",), space=space, data="digits", time_limit="9min"))
    assert problem.judge.verdicts([problem.space.sample(np.random.default_rng(0))])[0].resolution == (side, side)
