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


def test_the_faster_of_two_that_are_alike() -> None:
    assert choose([5.0, 1.0], [right(), right(0)])[:2] == (1, 0)


def test_the_more_accurate_where_the_difference_is_real() -> None:
    assert choose([5.0, 1.0], [right(), right(*range(20))]) == (0, 0, 1.0)


def test_a_slower_one_is_never_taken() -> None:
    assert choose([1.0, 5.0], [right(), right(0)])[:2] == (0, 0)
    assert choose([1.0, 5.0], [right(0), right(0)])[:2] == (0, 0)
