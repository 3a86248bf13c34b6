"""Intervals for many devices of which a dozen networks each are known: scores of all together, scaled for each device.

A dozen residuals hold no high quantile. Those of all devices do, once each is divided by what was to be expected of it: a scale common to all, what the
predictor itself says of its uncertainty, and a factor of the device that is shrunk to one. A network is scored by scales that never saw it.

Source: jackknife+ and cross-conformal prediction (Barber et al. 2021; Vovk 2015) with normalised scores (Lei et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.predictor import Floats

_SCALE_TRUST = 15.0  # residuals of the pool that a device's own scale is shrunk towards
_CLIPPED = 3.0  # scaled residuals beyond this say no more about a device's scale


@dataclass(frozen=True, eq=False)
class Calibration:
    """What intervals are made of.

    Attributes:
        base_sd: Part of the scale that no disagreement explains (log).
        device_scale: Factor on the scale by (device, precision).
        without: (device, precision) -> network -> its scale (log) where the network is left out of it.
        scores: Residuals over these scales, by ascending size.
    """

    base_sd: float
    device_scale: Mapping[tuple[str, str], float]
    without: Mapping[tuple[str, str], Mapping[str, float]]
    scores: Floats

    def quantile(self, confidence: float) -> float:
        """Return the score that a new network stays below with probability `confidence`."""
        return float(np.quantile(self.scores, min(1.0, confidence * (1.0 + 1.0 / len(self.scores)))))

    def width(self, device: tuple[str, str], spread: Floats, confidence: float) -> Floats:
        """Return the logarithms of the intervals' factors of networks with that spread, (networks,)."""
        return np.asarray(self.quantile(confidence) * np.sqrt(self.base_sd**2 + spread**2) * self.device_scale[device])


def calibrated(devices: Sequence[tuple[str, str]], networks: Sequence[str], residual: Floats, spread: Floats) -> Calibration:
    """Calibrate.

    Args:
        devices: (device, precision).
        networks: Names.
        residual: Log residuals of networks left out, (devices, networks), NaN where not measured.
        spread: What is known beforehand of how uncertain each is (log), the same shape; zero where nothing is.
    """
    seen = np.isfinite(residual)
    base_sd, device_scale = _scales(residual, spread, seen)
    scale = np.full_like(residual, np.nan)
    for j in range(len(networks)):
        kept = seen.copy()
        kept[:, j] = len(networks) == 1
        base, by_device = _scales(residual, spread, kept)
        scale[:, j] = by_device * np.sqrt(base**2 + spread[:, j] ** 2)
    return Calibration(
        base_sd,
        dict(zip(devices, device_scale.tolist(), strict=True)),
        {device: dict(zip(networks, row, strict=True)) for device, row in zip(devices, scale.tolist(), strict=True)},
        np.sort((np.abs(residual) / scale)[seen]),
    )


def _scales(residual: Floats, spread: Floats, seen: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Return the part of the scale that spread does not explain, and each device's factor on the scale, (devices,)."""
    base = float(1.4826 * np.median(np.abs(residual[seen])))
    squared = np.where(seen, np.minimum(np.abs(residual) / np.sqrt(base**2 + spread**2), _CLIPPED) ** 2, 0.0)
    usual = float(squared.sum() / seen.sum())
    return base, np.asarray(np.sqrt((squared.sum(axis=1) + _SCALE_TRUST * usual) / (seen.sum(axis=1) + _SCALE_TRUST) / usual))
