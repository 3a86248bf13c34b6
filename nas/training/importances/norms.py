"""``norms``: the product of the norms of what makes a channel and of what reads it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nas.spaces.operator_family import Source
from nas.spaces.surgery.narrowing import Channels
from nas.training.importance import Importance, importances


@importances.register("norms")
class Norms(Importance):
    """Needs no pictures."""

    source = Source(
        "Pruning filters for efficient ConvNets",
        "arXiv 1608.08710; a norm's scale enters as in Network slimming, arXiv 1708.06519",
        "what reads a channel counts, too",
    )

    def scores(self, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], channels: Channels) -> Tensor:  # noqa: ARG002
        """See `Importance.scores`."""
        score = torch.ones(channels.size, dtype=torch.float64)
        for name, axis in channels.axes:
            tensor = tensors[name].detach().double().cpu()
            if tensor.ndim > 1:
                score *= tensor.movedim(axis, 0).flatten(1).norm(dim=1)
            elif name.endswith(".weight"):
                score *= tensor.abs() / (tensors[name.removesuffix("weight") + "running_var"].double().cpu() + 1e-5).sqrt()
        return score
