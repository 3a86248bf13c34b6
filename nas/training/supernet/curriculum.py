"""EfficientTrain: low frequencies and weak augmentation first, everything at the end.

Source:
    Wang et al., "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual Backbones", arXiv 2211.09703, section 4: a
    centre of the spectrum is the picture at a smaller size, so that early steps cost less. Differs: sides are multiples of four.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nas.spaces.space import Resolution
from nas.training.supernet.batches import Augmentation

SCHEDULE = ((0.6, 160 / 224), (0.8, 192 / 224), (1.0, 1.0))
"""Until which share of the steps which share of a picture's side is seen."""

_MULTIPLE = 4


def size_at(progress: float, resolution: Resolution) -> Resolution:
    """Return the size of the pictures when the share `progress` of the steps is done, 0 to 1."""
    share = next((share for end, share in SCHEDULE if progress < end), 1.0)
    height, width = (side if share == 1.0 else min(side, _MULTIPLE * max(1, round(share * side / _MULTIPLE))) for side in resolution)
    return height, width


def strength_at(progress: float, augmentation: Augmentation) -> Augmentation:
    """Return the augmentation of a step: shift and zoom grow linearly from nothing."""
    return replace(augmentation, shift=progress * augmentation.shift, scale=progress * augmentation.scale)


def low_frequencies(x: Tensor, size: Resolution) -> Tensor:
    """Return the pictures that the centre of the spectrum makes, with the same mean: (n, c, h, w) -> (n, c, *size)."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    spectrum = torch.fft.fftshift(torch.fft.fft2(x.float(), norm="forward"), dim=(2, 3))
    for axis, side in ((2, size[0]), (3, size[1])):
        spectrum = spectrum.narrow(axis, spectrum.shape[axis] // 2 - side // 2, side)
    found = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3)), norm="forward").real
    return found.to(x.dtype).contiguous(memory_format=torch.channels_last)
