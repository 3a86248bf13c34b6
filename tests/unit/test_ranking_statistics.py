"""Statistics of a ranking: SciPy's coefficients, resamples with copies of a network, and what is undefined."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from nas.training.rank import RESAMPLES, _kendalls, agreements, kendall


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.round(rng.normal(size=60), 1)
    return truth, np.round(truth + rng.normal(size=60), 1)


def test_coefficients_are_those_of_scipy(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = drawn
    found = agreements(truth, {"a": score}, {})[0]["a"]
    top = truth >= np.quantile(truth, 0.9)
    assert found.kendall == pytest.approx(kendalltau(truth, score).statistic, abs=1e-6)
    assert found.spearman == pytest.approx(spearmanr(truth, score).statistic)
    assert found.top_tenth_kendall == pytest.approx(kendalltau(truth[top], score[top]).statistic, abs=1e-6)
    assert found.regret_points == truth.max() - truth[int(np.argmax(score))]
    for value, interval in ((found.kendall, found.kendall_interval), (found.spearman, found.spearman_interval)):
        assert interval is not None
        assert value is not None
        assert interval[0] < value < interval[1]


def test_a_resample_counts_copies_as_scipy_does(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = drawn
    rows = np.random.default_rng(1).integers(60, size=(5, 60))
    counts = np.stack([np.bincount(row, minlength=60) for row in rows]).astype(np.float32)
    expected = [kendalltau(truth[row], score[row]).statistic for row in rows]
    assert _kendalls(truth, score, counts) == pytest.approx(expected, abs=1e-5)


def test_what_has_no_order_is_undefined() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    found = agreements(truth, {"constant": np.zeros(4)}, {"same": truth})
    constant, same = found[0]["constant"], found[1]["same"]
    assert (constant.kendall, constant.spearman, constant.kendall_interval, constant.above_baselines) == (None, None, None, None)
    assert (same.kendall, same.regret_points, same.top_tenth_kendall) == (pytest.approx(1.0), 0.0, None)
    assert kendall(truth, -truth) == pytest.approx(-1.0)


def test_scores_are_compared_with_baselines_in_the_same_resamples(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    truth, score = drawn
    better = agreements(truth, {"a": truth}, {"b": score, "flat": np.zeros(60)})[0]["a"].above_baselines
    itself = agreements(truth, {"a": score}, {"b": score})[0]["a"].above_baselines
    none = agreements(truth, {"a": score}, {})[0]["a"].above_baselines
    assert (better, itself, none) == (1.0, 0.0, None)
    assert RESAMPLES >= 1000
