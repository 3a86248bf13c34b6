"""From 8-bit pictures to batches: scaling, augmentation and normalisation in one step, on whole batches.

Everything random follows from (seed, epoch, step), so a resumed run sees the very batches that the unbroken one saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Pixels, Split
from nas.training.supernet.randaugment import draw_strengths, tone, warp


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to a training picture.

    Attributes:
        shift: Largest displacement, as a share of the picture's side.
        scale: Largest zoom in or out, as a share.
        mixup: Parameter of the beta distribution by which pictures are mixed; 0 mixes nothing.
        cutmix: Likewise, of the share of a picture that a window of another one leaves; where `mixup` is set too, steps draw either alike.
        operations: Of `nas.training.supernet.randaugment`, drawn for each picture.
        magnitude: Of these, as a share of their full strength.

    Source:
        mixup: arXiv 1710.09412; CutMix: arXiv 1905.04899; the default magnitude is RandAugment's 9 of 30 (arXiv 1909.13719, section 4.2).
    """

    shift: float = 0.125
    scale: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    operations: int = 0
    magnitude: float = 0.3

    @property
    def entries(self) -> dict[str, float]:
        """The augmentation as checkpoints have it: what came later is left out where it is not used, so that older ones still fit."""
        own: dict[str, float] = asdict(self)
        later = {"cutmix": own.pop("cutmix"), "operations": own.pop("operations"), "magnitude": own.pop("magnitude")}
        return own | (later if later["cutmix"] or later["operations"] else {})


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
        soft_targets: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return (pictures at each of `sizes`, target distributions (n, classes), labels) of a training batch.

        All sizes see the same augmentation; by default there is one, the resolution of the batches. A teacher's distributions, `soft_targets` (n, classes), stand
        beside those of the labels, (n, 2 classes), and are mixed as they are.
        """
        n = len(indices)
        pixels = self.pixels[indices].to(self.device)
        zoom = 1 + augmentation.scale * rng.uniform(-1, 1, (n, 2))
        if self.dataset.flips:
            zoom[:, 0] *= np.where(rng.random(n) < 0.5, -1, 1)
        shift = 2 * augmentation.shift * rng.uniform(-1, 1, (n, 2))
        theta = np.zeros((n, 2, 3))
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom[:, 0], zoom[:, 1], shift
        if augmentation.operations:
            strengths = draw_strengths(n, augmentation.operations, augmentation.magnitude, rng)
            theta, pixels = warp(theta, strengths), tone(pixels, strengths)
        x = normalise(self.dataset, pixels)
        scaled = {}
        for size in dict.fromkeys(sizes or [self.resolution]):
            grid = F.affine_grid(torch.from_numpy(theta).to(x), [n, 3, *size], align_corners=False)
            scaled[size] = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        labels = self.labels[indices].to(self.device)
        classes = self.dataset.num_classes
        target = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
        if soft_targets is not None:
            target = torch.cat([target, soft_targets.to(target)], 1)
        cuts = augmentation.cutmix > 0 and (augmentation.mixup == 0 or rng.random() < 0.5)
        if parameter := augmentation.cutmix if cuts else augmentation.mixup:
            share, other = float(rng.beta(parameter, parameter)), torch.from_numpy(rng.permutation(n)).to(self.device)
            if cuts:
                window, share = _window(share, rng)
                scaled = {size: _pasted(y, y[other], window) for size, y in scaled.items()}
            else:
                scaled = {size: share * y + (1 - share) * y[other] for size, y in scaled.items()}
            target = share * target + (1 - share) * target[other]
        return [scaled[size].contiguous(memory_format=torch.channels_last) for size in sizes or [self.resolution]], target, labels


Window = tuple[float, float, float, float]
"""Top, bottom, left and right end, as shares of the sides."""


def _window(share: float, rng: np.random.Generator) -> tuple[Window, float]:
    """Return a window at a random place that covers `1 - share` of a picture, less what lies outside, and the share that it leaves."""
    half, (y, x) = 0.5 * (1 - share) ** 0.5, rng.random(2)
    top, bottom, left, right = max(y - half, 0.0), min(y + half, 1.0), max(x - half, 0.0), min(x + half, 1.0)
    return (top, bottom, left, right), 1 - (bottom - top) * (right - left)


def _pasted(x: Tensor, other: Tensor, window: Window) -> Tensor:
    """Return pictures (n, c, h, w) with a window of others."""
    height, width = x.shape[2:]
    top, bottom, left, right = (round(end * side) for end, side in zip(window, (height, height, width, width), strict=True))
    pasted = x.clone()
    pasted[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return pasted
