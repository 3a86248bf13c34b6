"""``adaround``: whether a weight rounds up or down is chosen so that the layer's output stays, not the weight."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import inputs_of, linear_layers, multiplies_rows, rows_of, scales_of

STEPS = 120  # by hand: minutes instead of hours; the paper takes 10,000
_ROWS = 512  # inputs of a layer; by hand
_STRETCH = (-0.1, 1.1)  # Nagel et al. (ICML 2020), eq. 23


@quantisers.register("adaround")
class AdaRound(Quantiser):
    """Learns a rounding for each layer from the layer's own inputs; the weights come out on their grid, where rounding keeps them.

    Source:
        Nagel et al., "Up or down?", arXiv 2004.10568, equations 21–24; differs in that layers are taken one by one with float inputs, in
        `STEPS` steps instead of 10,000, and in that convolutions with groups and layers beyond 2 million weights are rounded to nearest.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        chosen = copy.deepcopy(module)
        rows = _collected(chosen, batches)
        for name, layer in linear_layers(chosen):
            if name in rows and isinstance(layer.weight, Tensor):
                weight = layer.weight.detach()
                flat = _learned(weight.reshape(weight.shape[0], -1), scales_of(weight).reshape(-1, 1), rows[name])
                with torch.no_grad():
                    layer.weight.copy_(flat.reshape(weight.shape))
        return chosen


def _collected(module: nn.Module, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return for each layer that can be taken some rows (n, c_in · kernel) of what its weight multiplies."""

    def rows(layer: nn.Module, x: Tensor) -> Tensor:
        flat = rows_of(layer, x)
        return flat[:: max(1, len(flat) * len(batches) // _ROWS)]

    return inputs_of(module, batches, rows, lambda a, b: torch.cat([a, b]), multiplies_rows)


def _learned(weight: Tensor, scale: Tensor, rows: Tensor) -> Tensor:
    """Return `weight` (n, k) on its grid, rounded so that rows · weightᵀ changes least."""
    below = (weight / scale).floor()
    share = (weight / scale - below).clamp(0.01, 0.99)
    low, high = _STRETCH
    gate = torch.logit((share - low) / (high - low)).requires_grad_()
    optimiser = torch.optim.Adam([gate], lr=2e-2)
    target = rows @ weight.T
    size = target.square().mean().clamp_min(1e-12)
    with torch.enable_grad():
        for step in range(STEPS):
            up = (torch.sigmoid(gate) * (high - low) + low).clamp(0, 1)
            loss = (rows @ ((below + up) * scale).T - target).square().mean() / size
            if step > STEPS // 5:
                sharpness = 20 - 18 * step / STEPS
                loss = loss + 0.01 * (1 - (2 * up - 1).abs().pow(sharpness)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    settled = (torch.sigmoid(gate.detach()) * (high - low) + low).clamp(0, 1)
    rounded = ((below + (settled > 0.5)).clamp(-127, 127)) * scale
    nearest = (weight / scale).round().clamp(-127, 127) * scale
    better = (rows @ rounded.T - target).square().mean() < (rows @ nearest.T - target).square().mean()
    return rounded if better else nearest
