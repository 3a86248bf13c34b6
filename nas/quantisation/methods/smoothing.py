"""``smoothing``: outlier channels after a normalisation move into the weights that read them, which changes no output."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import channels_first, inputs_of, move_into_readers, norms_before_linear

STRENGTH = 0.5
"""How much of the difficulty moves from activations to weights. Source: SmoothQuant (arXiv 2211.10438) takes 0.5 as well."""


@quantisers.register("smoothing")
class Smoothing(Quantiser):
    """Divides the affine part of a layer norm by s = max|x|^α / max|w|^(1 − α), channel by channel, and multiplies the readers by it.

    Source:
        Xiao et al., "SmoothQuant", arXiv 2211.10438, equation 4, with α = 0.5.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        smooth = copy.deepcopy(module)
        extremes = inputs_of(smooth, batches, lambda layer, x: channels_first(layer, x).abs().amax(dim=1), torch.maximum)
        for norm, layers, reader in norms_before_linear(smooth, input_shape):
            if reader in extremes:
                move_into_readers(norm, layers, smoothing_scale(layers, extremes[reader]))
        return smooth


@torch.no_grad()
def smoothing_scale(layers: Sequence[nn.Linear], extreme: Tensor) -> Tensor:
    """Return max|x|^α / max|w|^(1 − α) of each channel, (c,), from the largest |x| and the layers that read it."""
    into = torch.stack([layer.weight.abs().amax(dim=0) for layer in layers]).amax(dim=0).clamp_min(1e-5)
    return (extreme.clamp_min(1e-5) ** STRENGTH / into ** (1 - STRENGTH)).clamp(0.01, 100)
