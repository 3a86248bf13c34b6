"""``bias-correction``: rounding weights shifts a layer's mean output; the bias takes the shift back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import channels_first, inputs_of, linear_layers, rounded_weight


@quantisers.register("bias-correction")
class BiasCorrection(Quantiser):
    """Adds (W − round(W))·E[x] to the bias, with E[x] a mean over calibration pictures.

    Source:
        Nagel et al., "Data-free quantization", arXiv 1906.04721, section 4.2; differs in that E[x] is measured.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        corrected = copy.deepcopy(module)
        sums = inputs_of(corrected, batches, _summed, torch.add)
        for name, layer in linear_layers(corrected):
            if name not in sums or not isinstance(layer.weight, Tensor):
                continue
            weight = layer.weight.detach()
            lost = (weight - rounded_weight(weight)).reshape(*weight.shape[:2], -1).sum(dim=-1)  # (c_out, c_in / groups)
            mean = sums[name][:-1] / sums[name][-1]
            groups = int(getattr(layer, "groups", 1))
            per_group = mean.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
            shift = (lost * per_group).sum(dim=1)
            bias = layer.bias.detach() + shift if isinstance(layer.bias, Tensor) else shift
            layer.bias = nn.Parameter(bias, requires_grad=False)
        return corrected


def _summed(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the sum of a layer's inputs by channel, and of how many, shape (c_in + 1,): a layer may be called more than once a batch."""
    values = channels_first(layer, x)
    return torch.cat([values.sum(dim=1), values.new_tensor([values.shape[1]])])
