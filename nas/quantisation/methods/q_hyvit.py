"""``q-hyvit``: how far a layer's weights are clipped is chosen by what the network's answer makes of the error."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import linear_layers, multiplies_rows, rounded_weight, rows_of

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Of the largest weight of an output channel, at which its weights may be clipped. Set by hand."""

_ROWS = 512  # inputs of a layer; by hand


@quantisers.register("q-hyvit")
class HessianClipping(Quantiser):
    """For each output channel of each layer, takes the clipping with the least Σ (∂loss/∂y)²·Δy² over calibration pictures.

    The squared gradient stands for the Hessian's diagonal; the loss is the cross-entropy with the network's own answer. Layers between
    convolution and attention, whose inputs differ most from one another, have the most to gain.

    Source:
        Lee et al., "Q-HyViT: Post-Training Quantization of Hybrid Vision Transformers with Bridge Block Reconstruction", arXiv 2303.12557,
        equations 4–6; differs in that every dense layer is reconstructed, not bridge blocks alone, and that what is chosen is the
        clipping: runtimes fix granularity (weights by channel, activations by tensor) and scheme (symmetric, asymmetric).
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        clipped = copy.deepcopy(module)
        observed = _rows_and_gradients(clipped, batches)
        with torch.no_grad():
            for name, layer in linear_layers(clipped):
                if name in observed and isinstance(layer.weight, Tensor):
                    layer.weight.copy_(_clipped(layer.weight.detach(), *(torch.cat(parts) for parts in zip(*observed[name], strict=True))))
        return clipped


def _clipped(weight: Tensor, rows: Tensor, gradients: Tensor) -> Tensor:
    """Return a weight (out, …) clipped so that its rounding costs least; rows (n, in) and gradients (n, out) of its output."""
    largest = weight.reshape(weight.shape[0], -1).abs().amax(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
    best, least = weight, torch.full((weight.shape[0],), torch.inf, device=weight.device)
    for share in SHARES:
        trial = weight.clamp(-share * largest, share * largest)
        change = rows @ (rounded_weight(trial) - weight).reshape(weight.shape[0], -1).T
        cost = (gradients.square() * change.square()).sum(dim=0)
        better = (cost < least).reshape(-1, *[1] * (weight.dim() - 1))
        best, least = torch.where(better, trial, best), torch.minimum(cost, least)
    return best


def _rows_and_gradients(module: nn.Module, batches: Sequence[Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return for each dense layer some rows of its input and the gradients of its output at the same places."""
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    handles = []
    for name, part in linear_layers(module):
        if not multiplies_rows(part):
            continue

        def watch(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor, key: str = name) -> None:
            rows = rows_of(layer, args[0].detach())
            every = max(1, len(rows) * len(batches) // _ROWS)

            def keep(gradient: Tensor) -> None:
                flat = (gradient.movedim(1, -1) if isinstance(layer, nn.Conv2d) else gradient).reshape(len(rows), -1)
                layers.setdefault(key, []).append((rows[::every], flat[::every]))

            out.register_hook(keep)

        handles.append(part.register_forward_hook(watch))
    try:
        with torch.enable_grad():
            for x in batches:
                picture = x.clone().requires_grad_()
                likely = module(picture).log_softmax(dim=-1).amax(dim=-1)
                torch.autograd.grad(-likely.sum(), picture)
    finally:
        for handle in handles:
            handle.remove()
    return layers
