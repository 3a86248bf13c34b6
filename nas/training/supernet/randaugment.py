"""Random operations on whole batches: each has a strength for every picture, zero where it is not drawn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

OPERATIONS = ("rotate", "shear-x", "shear-y", "brightness", "contrast", "colour")
_GEOMETRIC = 3
_DEGREES, _SHEAR, _TONE = 30.0, 0.3, 0.9
"""Full strength: of a rotation, of a shear as a share of the side, of a factor's distance from 1.

Source:
    Table 6 of "AutoAugment" (arXiv 1805.09501), whose ranges RandAugment takes over.
"""

Strengths = npt.NDArray[np.float64]


def draw_strengths(n: int, operations: int, magnitude: float, rng: np.random.Generator) -> Strengths:
    """Return strengths in −1…1 of `OPERATIONS`, shape (n, operations known): so many of them at ±`magnitude` for each picture, the others at 0.

    Source:
        RandAugment: Cubuk et al., arXiv 1909.13719. Differs: its translations are `Augmentation.shift`; posterize, solarize, equalize, autocontrast and
        sharpness are left out, an operation is drawn once at most, and either sign is drawn alike.
    """
    chosen = np.argsort(rng.random((n, len(OPERATIONS))), axis=1) < operations
    return chosen * magnitude * rng.choice([-1.0, 1.0], (n, len(OPERATIONS)))


def warp(theta: Strengths, strengths: Strengths) -> Strengths:
    """Return affine maps (n, 2, 3) that turn and shear first."""
    angle = np.radians(_DEGREES) * strengths[:, 0]
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
    shear = np.broadcast_to(np.eye(2), turn.shape).copy()
    shear[:, 0, 1], shear[:, 1, 0] = _SHEAR * strengths[:, 1], _SHEAR * strengths[:, 2]
    return np.concatenate([theta[:, :, :2] @ turn @ shear, theta[:, :, 2:]], 2)


def tone(pixels: Tensor, strengths: Strengths) -> Tensor:
    """Return pictures with other brightness, contrast and colour: (n, h, w, 3) in 0…255 -> the same, as floats."""
    x = pixels.float()
    brightness, contrast, colour = (
        1 + _TONE * torch.from_numpy(strengths[:, i]).to(x).view(-1, 1, 1, 1) for i in range(_GEOMETRIC, len(OPERATIONS))
    )
    x = (x * brightness).clamp(0, 255)
    grey = x.mean((1, 2, 3), keepdim=True)
    x = (grey + (x - grey) * contrast).clamp(0, 255)
    grey = x.mean(3, keepdim=True)
    return (grey + (x - grey) * colour).clamp(0, 255)
