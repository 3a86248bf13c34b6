"""From 8-bit pictures to batches: scaling, augmentation and normalisation in one step, on whole batches.

Everything random follows from (seed, epoch, step), so a resumed run sees the very batches that the unbroken one saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Pixels, Split


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to a training picture.

    Attributes:
        shift: Largest displacement, as a share of the picture's side.
        scale: Largest zoom in or out, as a share.
        mixup: Parameter of the beta distribution; 0 mixes nothing.
    """

    shift: float = 0.125
    scale: float = 0.1
    mixup: float = 0.0


def prepare(dataset: Dataset, pixels: Pixels, resolution: Resolution, peak: float | None = None) -> Tensor:
    """Return pictures as a network takes them: (n, h, w, 3) of 8 bits -> (n, 3, *resolution), normalised by channel, or in 0…`peak`."""
    given = torch.from_numpy(np.ascontiguousarray(pixels))
    x = normalise(dataset, given) if peak is None else given.permute(0, 3, 1, 2).float() * (peak / 255)
    if tuple(x.shape[2:]) == resolution:
        return x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, resolution, mode="bilinear", align_corners=False).contiguous(memory_format=torch.channels_last)


def normalise(dataset: Dataset, pixels: Tensor) -> Tensor:
    """Return (n, 3, h, w) with the training pictures' mean 0 and deviation 1 by channel, from (n, h, w, 3) of 8 bits."""
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in dataset.statistics)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


class Batches:
    """The pictures of one split as batches.

    Args:
        dataset: Where they are from.
        split: Which of them.
        resolution: Of the batches.
        device: Of the batches.
    """

    def __init__(self, dataset: Dataset, split: Split, resolution: Resolution, device: torch.device) -> None:
        self.dataset, self.resolution, self.device = dataset, resolution, device
        self.pixels = torch.from_numpy(np.ascontiguousarray(dataset.pixels(split, resolution)))
        self.labels = torch.from_numpy(dataset.labels(split))

    def __len__(self) -> int:
        return len(self.labels)

    def plain(self, size: int, indices: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pictures, labels) in order, without augmentation."""
        chosen = torch.arange(len(self)) if indices is None else indices
        for part in chosen.split(size):
            pixels = self.pixels[part].numpy()
            yield prepare(self.dataset, pixels, self.resolution).to(self.device), self.labels[part].to(self.device)

    def steps(self, size: int) -> int:
        """Return the number of training batches an epoch; an incomplete one is left out."""
        return max(1, len(self) // size)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of an epoch."""
        return torch.from_numpy(np.random.default_rng([seed, 11, epoch]).permutation(len(self)))

    def augmented(
        self,
        indices: Tensor,
        augmentation: Augmentation,
        smoothing: float,
        rng: np.random.Generator,
        sizes: Sequence[Resolution] = (),
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return (pictures at each of `sizes`, target distributions (n, classes), labels) of a training batch.

        All sizes see the same augmentation; by default there is one, the resolution of the batches.
        """
        n = len(indices)
        x = normalise(self.dataset, self.pixels[indices].to(self.device))
        zoom = 1 + augmentation.scale * rng.uniform(-1, 1, (n, 2))
        if self.dataset.flips:
            zoom[:, 0] *= np.where(rng.random(n) < 0.5, -1, 1)
        shift = 2 * augmentation.shift * rng.uniform(-1, 1, (n, 2))
        theta = np.zeros((n, 2, 3))
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom[:, 0], zoom[:, 1], shift
        scaled = {}
        for size in dict.fromkeys(sizes or [self.resolution]):
            grid = F.affine_grid(torch.from_numpy(theta).to(x), [n, 3, *size], align_corners=False)
            scaled[size] = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        labels = self.labels[indices].to(self.device)
        classes = self.dataset.num_classes
        target = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
        if augmentation.mixup > 0:
            share = float(rng.beta(augmentation.mixup, augmentation.mixup))
            other = torch.from_numpy(rng.permutation(n)).to(self.device)
            target = share * target + (1 - share) * target[other]
            scaled = {size: share * y + (1 - share) * y[other] for size, y in scaled.items()}
        return [scaled[size].contiguous(memory_format=torch.channels_last) for size in sizes or [self.resolution]], target, labels
