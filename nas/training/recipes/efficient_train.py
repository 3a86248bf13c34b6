"""``efficient-train``: low frequencies and weak augmentation first, everything at the end."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.space import Resolution
from nas.training.recipe import Pictures, recipes
from nas.training.supernet.batches import Augmentation


@recipes.register("efficient-train")
class EfficientTrain(Pictures):
    """A centre of the spectrum is the picture at a smaller size, so that early steps cost less; shift and zoom grow linearly from nothing."""

    schedule = ((0.6, 160 / 224), (0.8, 192 / 224), (1.0, 1.0))
    source = Source(
        "EfficientTrain: Exploring Generalized Curriculum Learning for Training Visual Backbones",
        "arXiv 2211.09703, section 4",
        "sides are multiples of four",
    )

    def augmentation(self, progress: float, augmentation: Augmentation) -> Augmentation:
        """See `Pictures.augmentation`."""
        return replace(augmentation, shift=progress * augmentation.shift, scale=progress * augmentation.scale)

    def shrink(self, x: Tensor, size: Resolution) -> Tensor:
        """Return the pictures that the centre of the spectrum makes, with the same mean: (n, c, h, w) -> (n, c, *size)."""
        if tuple(x.shape[2:]) == tuple(size):
            return x
        spectrum = torch.fft.fftshift(torch.fft.fft2(x.float(), norm="forward"), dim=(2, 3))
        for axis, side in ((2, size[0]), (3, size[1])):
            spectrum = spectrum.narrow(axis, spectrum.shape[axis] // 2 - side // 2, side)
        cropped: Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3)), norm="forward").real
        return cropped.to(x.dtype).contiguous(memory_format=torch.channels_last)
