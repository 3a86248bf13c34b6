"""Batch-norm statistics of one member, and how often a network is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.training.supernet.batches import Batches
from nas.training.supernet.weights import Path

CALIBRATION_PICTURES = 1024
"""Training pictures from which batch-norm statistics are taken. Set by hand."""

SCORING_PICTURES = 256
"""Training pictures from which statistics are taken for one score during a training: within a point of what all of them give, where those that training
gathers are up to 15 off (``experiments/021_own_pictures``, statistics for the score of an epoch)."""

_BATCH = 256  # by hand


def calibration_indices(batches: Batches, pictures: int = CALIBRATION_PICTURES) -> Tensor:
    """Return which training pictures calibrate: the same for every member, spread over the split."""
    if len(batches) <= pictures:
        return torch.arange(len(batches))
    return torch.from_numpy(np.sort(np.random.default_rng(17).permutation(len(batches))[:pictures]))


def recalibrate(network: Path | nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch-norm statistics to the averages over `batches`, and leave the network in evaluation mode.

    A subnet's activations are distributed otherwise than the supernet's, so shared statistics would mislead.

    Source:
        "Slimmable networks" (arXiv 1903.05134) and BigNAS; the averages are cumulative, not exponential.
    """
    norms = list(network.norms()) if isinstance(network, Path) else [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        network.train(False)
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for x in batches:
            network(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.train(False)


@contextmanager
def recalibrated(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[nn.Module]:
    """Give a network in evaluation mode with the statistics of `batches`; afterwards they are what they were, as is the generator of random numbers."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [[(buffer, buffer.clone()) for buffer in norm.buffers()] for norm in norms]
    with torch.random.fork_rng(devices=[]):
        recalibrate(network, batches)
    try:
        yield network
    finally:
        with torch.no_grad():
            for buffer, value in (pair for pairs in before for pair in pairs):
                buffer.copy_(value)


def pictures(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Yield the pictures of labelled batches."""
    for x, _ in batches:
        yield x


def predictions(network: Callable[[Tensor], Tensor], batches: Batches, size: int = _BATCH) -> npt.NDArray[np.int64]:
    """Return the class that a network in evaluation mode gives each picture, shape (n,)."""
    found = []
    with torch.no_grad():
        for x, _ in batches.plain(size):
            found.append(network(x).argmax(1).cpu())
    return torch.cat(found).numpy()
