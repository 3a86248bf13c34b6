"""The simulation with gradients: an exported graph whose operators read rounded tensors, for one size of batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter

from nas.errors import GraphError
from nas.quantisation.simulate import Simulated, attention, operands
from nas.quantisation.weights import rounded_weight


class Learning(Interpreter):
    """Answers as a simulated network does; gradients pass roundings unchanged and stop where a range clips.

    The graph is PyTorch's own export, whose operators come past whole and in order, as in inference, so that the ranges of `simulated` fit; its
    parameters are those of the simulated network, and are rounded anew at every call. One precision for the whole network.

    Args:
        simulated: Calibrated at least once before a call.
        x: A batch of the size that it is to answer.

    Source:
        Bengio et al., arXiv 1308.3432 (straight-through estimator); Jacob et al., arXiv 1712.05877, section 3.
    """

    def __init__(self, simulated: Simulated, x: Tensor) -> None:
        super().__init__(torch.export.export(simulated.module, (x,)).module())
        self._simulated, self._at = simulated, 0

    def __call__(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, classes).

        Raises:
            GraphError: The exported graph reads other tensors than the network does when it runs.
        """
        self._at = 0
        scores = self._visit(self.run(x))
        if self._at != len(self._simulated.ranges):
            raise GraphError(f"quantisation: the exported graph reads {self._at} tensors, the network {len(self._simulated.ranges)}.")
        return scores

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator on rounded tensors; see `Interpreter.call_function`."""
        packet = getattr(target, "overloadpacket", target)
        name = packet.__name__.rstrip("_")
        if name == "scaled_dot_product_attention":
            return attention(lambda inner, *arguments: self.call_function(inner, arguments, {}), *args, **kwargs)
        return super().call_function(target, tuple(operands(name, args, self._visit, _stepped)), dict(kwargs))

    def _visit(self, tensor: Tensor) -> Tensor:
        bounds = self._simulated.ranges[self._at] if self._at < len(self._simulated.ranges) else None
        self._at += 1
        if bounds is None:
            return tensor
        scale, zero, bits = bounds
        clipped = tensor.clamp(-zero * scale, (2**bits - 1 - zero) * scale)
        return clipped + ((clipped.detach() / scale).round() * scale - clipped.detach())


def _stepped(weight: Tensor) -> Tensor:
    return weight + (rounded_weight(weight.detach()) - weight.detach())
