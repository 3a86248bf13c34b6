"""Each method for transformers lessens the error that it is made for, on a network that has it."""

import pytest
import torch
from torch import nn

from nas.quantisation.simulate import simulate


def network(weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """A norm with that scale and shift, read by a linear layer."""
    module = nn.Sequential(nn.Flatten(1), nn.LayerNorm(len(weight)), nn.Linear(len(weight), 16)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        module[1].weight.copy_(weight)
        module[1].bias.copy_(bias)
        module[2].weight.copy_(torch.randn(16, len(weight), generator=generator) / len(weight) ** 0.5)
    return module


def outliers() -> nn.Module:
    """A few channels are far larger than the others, and lie to one side."""
    weight, bias = torch.full((192,), 0.2), torch.zeros(192)
    weight[:4], bias[:4] = 2.0, 12.0
    return network(weight, bias)


def halfway() -> nn.Module:
    """Most channels hardly move from halfway between two steps of the grid, so that all are rounded to one side."""
    weight, bias = torch.full((192,), 0.002), torch.zeros(192)
    weight[0] = 4.0
    module = network(weight, bias)
    with torch.no_grad():
        out = module[1](torch.cat(pictures()).flatten(1))
        step = float(out.max().clamp(min=0) - out.min().clamp(max=0)) / 255
        module[1].bias[1:] = 0.47 * step
        module[2].weight.copy_(module[2].weight.abs())
    return module


def idle_weights() -> nn.Module:
    """Each output has one weight far larger than the others, which reads next to nothing."""
    weight = torch.ones(192)
    weight[:16] = 1e-4
    module = network(weight, torch.zeros(192))
    with torch.no_grad():
        module[2].weight[torch.arange(16), torch.arange(16)] = 2.0
    return module


def pictures() -> list[torch.Tensor]:
    return list(torch.randn(4, 64, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def error(module: nn.Module, recipe: tuple[str, ...]) -> float:
    """Return the root mean square error of the answers, by that of the answers."""
    batches = pictures()
    with torch.no_grad():
        expected = module(batches[-1])
    return float((simulate(module, batches[:-1], "w8a8", recipe)(batches[-1]) - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("method", "make", "factor"),
    [("mptq-vit", outliers, 0.6), ("lrp-qvit", outliers, 0.6), ("noisyquant", halfway, 0.6), ("q-hyvit", idle_weights, 0.8)],
)
def test_the_error_is_less_than_with_ranges_alone(method: str, make: object, factor: float) -> None:
    assert callable(make)
    module = make()
    assert error(module, (method, "minmax")) < factor * error(module, ("minmax",))
