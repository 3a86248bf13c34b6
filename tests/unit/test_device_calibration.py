"""Intervals of devices with a dozen networks: scores of all devices together, on each device's scale."""

import numpy as np

from latency_predictors._calibration import calibrated

RNG = np.random.default_rng(0)
DEVICES = [(f"d{i}", "fp16") for i in range(12)]
NETWORKS = [f"n{j}" for j in range(14)]
NOISE_SD = np.array([0.1] * 11 + [0.4])


def residuals(count: int) -> np.ndarray:
    """Return log residuals, (devices, count)."""
    return RNG.normal(size=(len(DEVICES), count)) * NOISE_SD[:, None]


def test_a_noisy_device_has_wider_intervals_and_new_networks_are_covered() -> None:
    made_of = residuals(14)
    made_of[0, 3:] = np.nan  # timed on few
    made = calibrated(DEVICES, NETWORKS, made_of)
    width = np.array([made.width(device, 0.9) for device in DEVICES])
    assert width[11] > 1.3 * width[5]
    assert np.exp(width[5]) < 1.4  # eleven quiet devices do not pay for the noisy one
    covered = np.abs(residuals(400)) <= width[:, None]
    assert 0.85 < covered.mean() < 0.95


def test_a_network_that_fails_everywhere_is_judged_by_the_others() -> None:
    residual = residuals(14)
    residual[:, 0] += 2.0
    made, alone = calibrated(DEVICES, NETWORKS, residual), calibrated(DEVICES, NETWORKS[1:], residual[:, 1:])
    assert made.without["d5", "fp16"]["n0"] == alone.scale["d5", "fp16"]
    assert made.scores[-12:].min() > 4 * made.quantile(0.5)
