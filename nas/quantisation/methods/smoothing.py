"""``smoothing``: outlier channels after a normalisation move into the weights that read them, which changes no output."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import chains, channels_first, inputs_of

STRENGTH = 0.5
"""How much of the difficulty moves from activations to weights."""


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
        parts = dict(smooth.named_modules())
        for norm, readers in chains(smooth, input_shape, ("LayerNormalization",), ("Identity",)):
            source, layers = parts.get(norm.name), [parts.get(reader.name) for reader in readers]
            linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
            if (
                not isinstance(source, nn.LayerNorm)
                or source.weight is None
                or len(linear) != len(layers)
                or readers[0].name not in extremes
            ):
                continue
            _migrate(source, linear, extremes[readers[0].name])
        return smooth


@torch.no_grad()
def _migrate(norm: nn.LayerNorm, layers: Sequence[nn.Linear], extreme: Tensor) -> None:
    into = torch.stack([layer.weight.abs().amax(dim=0) for layer in layers]).amax(dim=0).clamp_min(1e-5)
    scale = (extreme.clamp_min(1e-5) ** STRENGTH / into ** (1 - STRENGTH)).clamp(0.01, 100)
    norm.weight.div_(scale)
    if norm.bias is not None:
        norm.bias.div_(scale)
    for layer in layers:
        layer.weight.mul_(scale)
