"""The layer of a classifier that makes its scores: found by a run, replaced for another number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def classifier_of(module: nn.Module, input_shape: tuple[int, int, int, int], where: str = "network") -> str:
    """Return the name of the linear layer that is run last and whose outputs are the scores.

    Args:
        module: (n, 3, h, w) -> (n, classes).
        input_shape: Of a trial run.
        where: For messages.

    Raises:
        UsageError: The scores are not those of one linear layer: a convolution makes them, or two heads are averaged.
    """
    import torch
    from torch import nn

    order: list[tuple[str, Tensor]] = []
    hooks = [
        part.register_forward_hook(lambda _module, _args, made, name=name: order.append((name, made)))
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad():
            scores = module.eval()(torch.zeros(input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    if not order or order[-1][1].shape != scores.shape or not torch.equal(order[-1][1], scores):
        raise UsageError(f"{where}: its scores are not those of one linear layer, so it takes no other classes.")
    return order[-1][0]


def replace_classifier(module: nn.Module, name: str, classes: int) -> nn.Linear:
    """Put a layer of zeros for so many classes in a classifier's place, and return it."""
    from torch import nn

    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new: nn.Linear = nn.utils.skip_init(nn.Linear, old.in_features, classes)  # draws nothing from the global generator
    nn.init.zeros_(new.weight)
    nn.init.zeros_(new.bias)
    path, _, leaf = name.rpartition(".")
    module.get_submodule(path).register_module(leaf, new)
    return new
