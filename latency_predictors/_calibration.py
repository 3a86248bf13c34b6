"""Intervals for many devices of which a dozen networks each are known: scores of all together, scaled for each device.

A dozen residuals hold no high quantile. Those of all devices do, once each is divided by the scale common to all and by a factor of its device that is
shrunk to one. A network is scored by scales that never saw it.

Source: jackknife+ and cross-conformal prediction (Barber et al. 2021; Vovk 2015) with normalised scores (Lei et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.devices.predictor import Floats

# Source: both chosen while the coverage of the public profiles was watched (experiments/007_public_profiles).
_SCALE_TRUST = 15.0  # residuals of the pool that a device's own scale is shrunk towards
_CLIPPED = 3.0  # scaled residuals beyond this say no more about a device's scale


@dataclass(frozen=True, eq=False)
class Calibration:
    """What intervals are made of.

    Attributes:
        scale: Of residuals (log) by (device, precision).
        without: (device, precision) -> network -> the scale where that network is left out of it.
        scores: Residuals over these scales, by ascending size.
    """

    scale: Mapping[tuple[str, str], float]
    without: Mapping[tuple[str, str], Mapping[str, float]]
    scores: Floats

    def quantile(self, confidence: float) -> float:
        """Return the score that a new network stays below with probability `confidence`."""
        return float(np.quantile(self.scores, min(1.0, confidence * (1.0 + 1.0 / len(self.scores)))))

    def width(self, device: tuple[str, str], confidence: float) -> float:
        """Return the logarithm of the factor of a device's intervals."""
        return self.quantile(confidence) * self.scale[device]


def calibrated(devices: Sequence[tuple[str, str]], networks: Sequence[str], residual: Floats) -> Calibration:
    """Calibrate.

    Args:
        devices: (device, precision).
        networks: Names.
        residual: Log residuals of networks left out, (devices, networks), NaN where not measured.
    """
    measured = np.isfinite(residual)
    without = np.full_like(residual, np.nan)
    for j in range(len(networks)):
        others = measured.copy()
        others[:, j] = len(networks) == 1
        without[:, j] = _scales(residual, others)
    return Calibration(
        dict(zip(devices, _scales(residual, measured).tolist(), strict=True)),
        {device: dict(zip(networks, row, strict=True)) for device, row in zip(devices, without.tolist(), strict=True)},
        np.sort((np.abs(residual) / without)[measured]),
    )


def _scales(residual: Floats, measured: npt.NDArray[np.bool_]) -> Floats:
    """Return each device's scale (log), (devices,)."""
    base = float(1.4826 * np.median(np.abs(residual[measured])))
    squared = np.where(measured, np.minimum(np.abs(residual) / base, _CLIPPED) ** 2, 0.0)
    usual = float(squared.sum() / measured.sum())
    return np.asarray(base * np.sqrt((squared.sum(axis=1) + _SCALE_TRUST * usual) / (measured.sum(axis=1) + _SCALE_TRUST) / usual))
