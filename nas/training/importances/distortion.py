"""``distortion``: how much of what a layer passes on would be lost with a channel, by the weights alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.surgery.narrowing import Channels
from nas.training.importance import Importance, importances


@importances.register("distortion")
class Distortion(Importance):
    """The squared norm of the weights that make a channel, as a share of those of all channels that weigh at least as much. Needs no pictures."""

    source = Source(
        "Data-independent Module-aware Pruning for Hierarchical Vision Transformers (DIMAP)",
        "arXiv 2404.13648",
        "channels in place of single weights; a batch norm's scale is taken into the weights before it; layers are not grouped by module, since the width "
        "of each is a gene",
    )

    def scores(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:  # noqa: ARG002
        """See `Importance.scores`."""
        made = torch.zeros(channels.size, dtype=torch.float64)
        scale = torch.ones(channels.size, dtype=torch.float64)
        for name, axis in channels.axes:
            tensor = tensors[name].detach().double().cpu()
            if tensor.ndim > 1 and axis == 0:
                made += tensor.flatten(1).square().sum(1)
            elif tensor.ndim == 1 and name.endswith(".weight"):
                scale *= tensor.square() / (tensors[name.removesuffix("weight") + "running_var"].double().cpu() + 1e-5)
        made *= scale
        order = made.argsort(descending=True, stable=True)
        score = torch.empty_like(made)
        score[order] = made[order] / made[order].cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
        return score
