"""The layers of a trained network that see large maps: they cost most of a training step, and hold what all pictures have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.spaces.space import Resolution


def early_layers(network: nn.Module, size: Resolution, reduction: int) -> list[nn.Module]:
    """Return the layers that run before a map is reduced by `reduction`, in the order in which they run.

    Maps of one position (a mean over all) do not count. A network whose first layer reduces so far, as a transformer's patches do, has none.

    Args:
        network: Run once in evaluation mode, on a picture of zeros; it stays in the mode in which it is.
        size: Of the pictures.
        reduction: From which on layers are late.

    Source:
        Features of early layers are general (Yosinski et al., arXiv 1411.1792); what leaving them as they are saves and costs here:
        ``experiments/021_own_pictures``.
    """
    order: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, _inputs: object, output: object) -> None:
        shape = output.shape if isinstance(output, Tensor) else ()
        order.append((layer, max(shape[2:]) if len(shape) == 4 else 1))

    hooks = [m.register_forward_hook(note) for m in network.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    training = network.training
    try:
        with torch.no_grad():
            parameter = next(network.parameters())
            network.eval()(torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    first = next((i for i, (_, side) in enumerate(order) if 1 < side <= -(-max(size) // reduction)), 0)
    return list(dict.fromkeys(layer for layer, _ in order[:first]))
