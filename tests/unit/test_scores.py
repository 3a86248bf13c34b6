"""Rank correlations: scipy's with ties at their mean rank, none where there is nothing to rank."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from nas.bench.latency_transfer import figures
from nas.devices.scores import Prediction, rank_correlation, score

ROOT = Path(__file__).parents[2]


def test_ties_have_their_mean_rank() -> None:
    assert rank_correlation([1, 1, 2, 3], [10, 20, 30, 40]) == pytest.approx(spearmanr([1, 1, 2, 3], [10, 20, 30, 40]).statistic)
    assert rank_correlation([1, 1, 2, 3], [10, 20, 30, 40]) == pytest.approx(0.9486833)
    a, b = [3, 1, 1, 2, 2, 2], [1, 2, 3, 4, 5, 6]
    order = [4, 0, 5, 2, 1, 3]
    assert rank_correlation(a, b) == pytest.approx(rank_correlation([a[i] for i in order], [b[i] for i in order]))


@pytest.mark.parametrize(("a", "b"), [([5, 5, 5, 5], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 5, 5, 5]), ([1, 2], [1, 2]), ([], [])])
def test_nothing_to_rank_has_no_correlation(a: list[float], b: list[float]) -> None:
    assert rank_correlation(a, b) is None


def test_a_constant_prediction_is_scored_without_a_correlation() -> None:
    assert score([Prediction(str(i), i + 1.0, 2.0, 1.0, 3.0) for i in range(4)]).spearman is None


def test_predictions_that_are_all_alike_count_as_zero_in_a_mean() -> None:
    flat = figures(np.full(4, 5.0), np.array([1.0, 2.0, 3.0, 4.0]))
    assert (flat["spearman"], flat["kendall"]) == (0.0, 0.0)


@pytest.mark.parametrize("runtime", ["qnn", "tflite"])
@pytest.mark.parametrize(("field", "protocol"), [("held_out", "lineage"), ("held_out_later", "release")])
def test_qualcomm_profiles_state_lineages_left_out_and_later_releases(runtime: str, field: str, protocol: str) -> None:
    stored = json.loads((ROOT / f"experiments/004_qualcomm_latency/results/{protocol}_{runtime}.json").read_text())
    compared = 0
    for precision, tested in stored["precisions"].items():
        for device, quality in tested["boards"].items():
            path = ROOT / f"hardware_profiles/{device}{'' if runtime == 'qnn' else '-tflite'}.toml"
            at = tomllib.loads(path.read_text())["precisions"].get(precision, {}) if path.is_file() else {}
            if "predictor" in at:
                said = at[field]
                assert said["protocol"].startswith(protocol)
                assert (said["networks"], said["families"]) == (quality["networks_tested"], quality["lineages_tested"])
                for key in ("mean_error_pct", "median_error_pct", "coverage_pct", "above_upper_pct"):
                    assert said[key] == round(quality[key], 2), (device, precision, key)
                compared += 1
    assert compared > (20 if field == "held_out" else 10)


@pytest.mark.parametrize("runtime", ["qnn", "tflite"])
def test_stored_correlations_are_those_of_the_stored_predictions(runtime: str) -> None:
    stored = json.loads((ROOT / f"experiments/004_qualcomm_latency/results/leave_one_out_{runtime}.json").read_text())
    for entry in stored["precisions"].values():
        for quality in entry["devices"].values():
            expected = rank_correlation(*([n[key] for n in quality["networks"]] for key in ("latency_ms", "measured_ms")))
            assert quality["spearman"] == pytest.approx(expected, abs=1e-5)
