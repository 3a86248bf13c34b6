"""Batch norm over the batches of all processes, on any backend."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of all processes together. (n, c, h, w) -> (n, c, h, w).

    `torch.nn.SyncBatchNorm` does this on GPUs alone; this one works with gloo too. Every process has as many pictures.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the method that it overrides
        """Normalise; in evaluation mode with the running statistics."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        mean = _mean_of_processes(input.mean(axes))
        variance = _mean_of_processes((input - mean.view(shape)).square().mean(axes))
        normalised = (input - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.eps)
        return normalised if self.weight is None else normalised * self.weight.view(shape) + self.bias.view(shape)

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """Return `module` with every batch norm of maps synchronised."""
        if type(module) is nn.BatchNorm2d:
            return cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
        for name, child in module.named_children():
            module.register_module(name, cls.convert(child))
        return module


class _SumOfProcesses(torch.autograd.Function):
    """Sum over processes, forward and backward."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _mean_of_processes(x: Tensor) -> Tensor:
    total: Tensor = _SumOfProcesses.apply(x)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
