"""The contract of a training-free score: a number that says of an untrained network how well it may learn.

Life of a score::

    scores.get(name)()        one object; it keeps nothing
            │
    measure(probe)            once a network; higher is better, and only the order means anything

A score is one file in ``nas/training/scores/``. `vote` brings several to one order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas.registry import Registry
from nas.spaces.operator_family import Source

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Probe:
    """A network with fresh weights and what it is shown.

    Attributes:
        make: Returns the network with fresh weights, the same at each call, in training mode; a score may change what it gets.
        pictures: (n, 3, h, w), normalised.
        labels: (n,), the pictures' classes; of random pictures drawn evenly.
        macs: Multiply-adds of the deploy form.
    """

    make: Callable[[], nn.Module]
    pictures: Tensor
    labels: Tensor
    macs: int


class Score(ABC):
    """A training-free score.

    Attributes:
        source: The paper, and what differs from it.
    """

    source: ClassVar[Source]

    @abstractmethod
    def measure(self, probe: Probe) -> float:
        """Return the score of a network; finite or −inf, which says that nothing passes through it."""


scores: Registry[type[Score]] = Registry("scores", "nas.training.scores")
"""Training-free scores by name."""


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a network in the order in which they run: its children, where lists of them count each for itself."""
    from torch import nn

    blocks: list[nn.Module] = []
    for child in module.children():
        inner = list(child.children())
        blocks += blocks_of(child) if isinstance(child, nn.Sequential | nn.ModuleList) and len(inner) > 1 else [child]
    return blocks


@contextmanager
def watched(parts: Sequence[nn.Module], see: Callable[[nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see` with each part, its first input and its output whenever it has run, while the context lasts."""
    import torch

    def hook(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
            see(part, inputs[0], output)

    handles = [part.register_forward_hook(hook) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activations_of(module: nn.Module) -> list[nn.Module]:
    """Return the activations of a network, such as ReLU and GELU."""
    from torch import nn

    kinds = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.Mish, nn.Softplus)
    return [part for part in module.modules() if isinstance(part, kinds)]


def vote(values: npt.NDArray[np.float64], pool: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
    """Bring several scores to one order: the sum of the logarithms of the ranks by each.

    Args:
        values: Networks × scores.
        pool: Networks × scores among which the ranks are taken; the networks themselves by default.

    Returns:
        A number a network, at most 0; only the order means anything.

    Source:
        AZ-NAS (Lee and Ham, arXiv 2403.19232), equation 10; differs in that ranks may be taken among other networks than those that are ranked.
        Beyond the pool's best, and between two of its members, ranks go on with the distance in units of the pool's spread, so that no two differ
        in a score and not in the vote.
    """
    among = values if pool is None else pool
    total = np.zeros(len(values))
    for column in range(values.shape[1]):
        own = np.where(np.isfinite(among[:, column]), among[:, column], np.nan)
        finite = np.where(np.isfinite(values[:, column]), values[:, column], -np.inf)
        lowest = float(np.nanmin(own)) if np.isfinite(own).any() else 0.0
        ordered = np.sort(np.where(np.isnan(own), lowest, own))
        spread = float(np.std(ordered)) or 1.0
        below = np.searchsorted(ordered, finite, side="left") + np.searchsorted(ordered, finite, side="right")
        smooth = np.tanh((finite - np.median(ordered)) / (3 * spread))
        total += np.log((0.5 * below + 0.5 + 0.25 * smooth) / (len(ordered) + 1))
    return total
