"""Weights averaged over the last steps of a training, which are scored and kept in place of the last step's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential average of a network's weights.

    Args:
        module: The network, which goes on with its own weights.

    Attributes:
        weights: The average, by name.

    Source:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; exponential as in "Rethinking the Inception Architecture"
        (arXiv 1512.00567, section 8).
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    def add(self, keep: float) -> None:
        """Move the average towards the weights of now, of which it takes the share `1 - keep`."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in self.module.parameters()], 1 - keep)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Give a network of the same shape these weights."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have these weights for a while."""
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        self.copy_to(self.module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.module.named_parameters():
                    parameter.copy_(own[name])
