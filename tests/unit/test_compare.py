import numpy as np
import pytest

from nas.runs.choice import choose, mcnemar_p


def right(*wrong: int, images: int = 100) -> np.ndarray:
    found = np.ones(images, bool)
    found[list(wrong)] = False
    return found


def test_p_values_are_binomial() -> None:
    assert mcnemar_p(right(), right()) == 1.0
    assert mcnemar_p(right(), right(0)) == 1.0
    assert mcnemar_p(right(), right(*range(5))) == pytest.approx(2 * 0.5**5)
    assert mcnemar_p(right(*range(3)), right(*range(3, 6))) == pytest.approx(1.0)


def test_a_budget_is_spent_on_accuracy_and_the_faster_of_equals_is_named() -> None:
    assert choose([5.0, 1.0], [right(), right(0)], budgeted=True)[:2] == (0, 1)
    assert choose([5.0, 1.0], [right(0), right(0)], budgeted=True)[:2] == (1, 1)


def test_without_a_budget_of_time_the_faster_of_two_that_are_alike() -> None:
    assert choose([5.0, 1.0], [right(), right(0)], budgeted=False)[:2] == (1, 0)


@pytest.mark.parametrize("budgeted", [True, False])
def test_the_more_accurate_where_the_difference_is_real(budgeted: bool) -> None:
    assert choose([5.0, 1.0], [right(), right(*range(20))], budgeted=budgeted) == (0, 0, 1.0)


@pytest.mark.parametrize("budgeted", [True, False])
def test_a_slower_one_is_never_taken(budgeted: bool) -> None:
    assert choose([1.0, 5.0], [right(), right(0)], budgeted=budgeted)[:2] == (0, 0)
    assert choose([1.0, 5.0], [right(0), right(0)], budgeted=budgeted)[:2] == (0, 0)
