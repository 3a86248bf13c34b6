"""``mptq-vit``: what a normalisation gives is centred before it is smoothed, since outlier channels lie to one side."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.methods.smoothing import smoothing_scale
from nas.quantisation.weights import channels_first, inputs_of, move_into_readers, norms_before_linear


@quantisers.register("mptq-vit")
class BiasedSmoothing(Quantiser):
    """Takes from each channel the middle of its range, then divides it as ``smoothing`` does; readers get both back.

    Source:
        "MPTQ-ViT: Mixed-Precision Post-Training Quantization for Vision Transformer", arXiv 2401.14895, SmoothQuant with a bias term; differs in
        that bits by layer are the precision genes of a space, and in that a GELU's result keeps one uniform grid, as runtimes have it.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        smooth = copy.deepcopy(module)
        extremes = inputs_of(smooth, batches, _signed_extremes, torch.maximum)
        for norm, layers, reader in norms_before_linear(smooth, input_shape):
            if reader in extremes:
                high, low = extremes[reader][0], -extremes[reader][1]
                move_into_readers(norm, layers, smoothing_scale(layers, (high - low) / 2), (high + low) / 2)
        return smooth


def _signed_extremes(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the largest value and the largest negated value of each channel, (2, c)."""
    values = channels_first(layer, x)
    return torch.stack([values.amax(dim=1), -values.amin(dim=1)])
