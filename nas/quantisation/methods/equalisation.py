"""``equalisation``: channels of two layers in a row get equal ranges, which changes no output."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import chains

_PASSING = ("Relu", "LeakyRelu", "Identity")
"""Operators that commute with positive scales of channels."""


@quantisers.register("equalisation")
class Equalisation(Quantiser):
    """Scales channel i of the first layer down and of the second up by √(range of the first / range of the second).

    Source:
        Nagel et al., "Data-free quantization", arXiv 1906.04721, section 4.1; differs in one pass over the pairs, and in that the
        scales are clipped to 1/100 … 100.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        equal = copy.deepcopy(module)
        parts = dict(equal.named_modules())
        for first, readers in chains(equal, input_shape, ("Conv", "Gemm"), _PASSING):
            a = parts.get(first.name)
            layers = [parts.get(reader.name) for reader in readers]
            if not isinstance(a, nn.Conv2d | nn.Linear) or len(layers) != 1:
                continue
            b = layers[0]
            if not isinstance(b, type(a)):
                continue
            _equalise(a, b)
        return equal


@torch.no_grad()
def _equalise(a: nn.Conv2d | nn.Linear, b: nn.Conv2d | nn.Linear) -> None:
    channels = a.weight.shape[0]
    depthwise = b.weight.shape[0] == channels and b.weight.shape[1] == 1 and getattr(b, "groups", 1) == channels
    if not depthwise and b.weight.shape[1] != channels:
        return
    out = a.weight.reshape(channels, -1).abs().amax(dim=1)
    into = (b.weight if depthwise else b.weight.transpose(0, 1)).reshape(channels, -1).abs().amax(dim=1)
    scale = torch.where((out > 0) & (into > 0), (out / into.clamp_min(1e-12)).sqrt(), torch.ones_like(out)).clamp(0.01, 100)
    a.weight.div_(scale.reshape(-1, *[1] * (a.weight.dim() - 1)))
    if a.bias is not None:
        a.bias.div_(scale)
    shape = (-1, *[1] * (b.weight.dim() - 1)) if depthwise else (1, -1, *[1] * (b.weight.dim() - 2))
    b.weight.mul_(scale.reshape(shape))
