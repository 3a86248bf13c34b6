"""Activations by name, as modules and as operators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nas.graphs.graph import GraphBuilder, Weight

Activation = Literal["none", "relu", "hardswish", "gelu", "swish", "star-relu"]


class StarReLU(nn.Module):
    """s · relu(x)² + b with a learned s and b. Shape: any.

    Source: Yu et al., MetaFormer Baselines for Vision, arXiv 2210.13452; the square is a product, so no Pow is exported.
    """

    def __init__(self, scale: float = 0.8944, bias: float = -0.4472) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale))
        self.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.scale * (x * x) + self.bias


def activation(name: Activation) -> nn.Module:
    """Return the activation called `name`."""
    kinds: dict[str, type[nn.Module]] = {
        "none": nn.Identity,
        "relu": nn.ReLU,
        "hardswish": nn.Hardswish,
        "gelu": nn.GELU,
        "swish": nn.SiLU,
        "star-relu": StarReLU,
    }
    return kinds[name]()


def lower_activation(builder: GraphBuilder, x: str, name: Activation) -> str:
    """Write the activation called `name` and return its output."""
    if name == "none":
        return x
    if name == "star-relu":
        x = builder.unary("Relu", x)
        x = builder.binary("Mul", x, x, name="square")
        return builder.add_operator("Add", [builder.scale(x, (1,))], weights=[Weight((1,))])
    return builder.unary({"relu": "Relu", "hardswish": "HardSwish", "gelu": "Gelu", "swish": "Swish"}[name], x)
