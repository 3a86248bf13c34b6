"""``noisyquant``: a fixed noise before the grid, taken back behind it, keeps errors of rounding from adding up."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import move_into_readers, rows_behind_norms

AMPLITUDES = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Of the noise, in steps of the grid of 8 bits; the one whose layer errs least on calibration pictures is taken, and none is among them.
Set by hand."""

_ROWS = 512  # inputs of a layer; by hand


@quantisers.register("noisyquant")
class NoisyQuant(Quantiser):
    """Adds to each channel that a normalisation gives a number drawn once, uniform, and takes its image from its readers' biases.

    Source:
        Liu et al., "NoisyQuant: Noisy Bias-Enhanced Post-Training Activation Quantization for Vision Transformers", arXiv 2211.16056, equations
        7–9; differs in that noise is added where it costs nothing, in the bias of a layer norm, and in the search over `AMPLITUDES`.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        noisy = copy.deepcopy(module)
        for i, (norm, layers, rows) in enumerate(rows_behind_norms(noisy, batches, input_shape, _ROWS)):
            noise = _best(rows, torch.cat([layer.weight.detach() for layer in layers]), seed=i)
            move_into_readers(norm, layers, torch.ones_like(noise), -noise)
        return noisy


@torch.no_grad()
def _best(rows: Tensor, weight: Tensor, seed: int) -> Tensor:
    """Return the noise, (c,), with which rounded rows (n, c) give a layer's output best."""
    step = (rows.amax().clamp_min(0) - rows.amin().clamp_max(0)) / 255
    unit = 2 * torch.rand(rows.shape[1], generator=torch.Generator().manual_seed(seed)).to(rows) - 1

    def error(noise: Tensor) -> float:
        return float(((_rounded(rows + noise) - rows - noise) @ weight.T).square().mean())

    return min((amplitude * step * unit for amplitude in AMPLITUDES), key=error)


def _rounded(x: Tensor) -> Tensor:
    low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
    scale = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / scale).round()
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale
