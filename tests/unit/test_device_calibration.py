"""Intervals of devices with a dozen networks: scores of all devices together, on the scale that each device and the members' disagreement suggest."""

import numpy as np

from latency_predictors._calibration import Calibration, calibrated

RNG = np.random.default_rng(0)
DEVICES = [(f"d{i}", "fp16") for i in range(12)]
NETWORKS = [f"n{j}" for j in range(14)]
NOISE_SD = np.array([0.1] * 11 + [0.4])


def residuals(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two members' log residuals, (devices, count); they disagree where both are wrong."""
    wrong = RNG.normal(size=(len(DEVICES), count)) * NOISE_SD[:, None]
    apart = 0.5 * np.abs(wrong) * RNG.choice([-1, 1], size=wrong.shape)
    return wrong + apart, wrong - apart


def made_of(one: np.ndarray, two: np.ndarray, networks: list[str] = NETWORKS) -> Calibration:
    return calibrated(DEVICES, networks, (one + two) / 2, np.abs(one - two) / 2)


def test_a_noisy_device_has_wider_intervals_and_new_networks_are_covered() -> None:
    one, two = residuals(14)
    one[0, 3:] = two[0, 3:] = np.nan  # timed on few
    made = made_of(one, two)
    assert made.device_scale["d11", "fp16"] > 1.3 * made.device_scale["d5", "fp16"]
    one, two = residuals(400)
    width = np.array([made.width(device, np.abs(a - b) / 2, 0.9) for device, a, b in zip(DEVICES, one, two, strict=True)])
    covered = np.abs((one + two) / 2) <= width
    assert 0.85 < covered.mean() < 0.95
    assert np.exp(width[5]).max() < 1.6  # eleven quiet devices do not pay for the noisy one


def test_a_network_that_fails_everywhere_is_judged_by_the_others() -> None:
    one, two = residuals(14)
    one[:, 0] += 2.0
    two[:, 0] += 2.0
    made = made_of(one, two)
    alone = made_of(one[:, 1:], two[:, 1:], NETWORKS[1:])
    assert made.without["d5", "fp16"]["n0"] < 1.3 * np.median(list(alone.without["d5", "fp16"].values())) + 0.1
    assert made.scores[-12:].min() > 4 * made.quantile(0.5)
