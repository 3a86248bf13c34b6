"""Linear layers as two of lower rank: the nearest product, where it costs less."""

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from nas.graphs.frontends.torch_module import trace_module
from nas.spaces.surgery.closing import closing_layer
from nas.spaces.surgery.factorising import factorisable, factorised, rank_of


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.point, self.norm = nn.Conv2d(32, 96, 1, stride=2, bias=False), nn.BatchNorm2d(96)
        self.window, self.grouped = nn.Conv2d(96, 96, 3, padding=1), nn.Conv2d(96, 96, 1, groups=4)
        self.wide, self.twice, self.small = nn.Linear(96, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        self.read = nn.Linear(8, 64)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(self.window(self.norm(self.point(x)))).mean((2, 3))
        return self.read(self.small(self.twice(self.twice(self.wide(y))))) + self.read.weight.sum()


@pytest.fixture
def segment() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(Mixed().eval())


def test_layers_of_one_pixel_that_are_called_once_can_become_two(segment: fx.GraphModule) -> None:
    assert factorisable(segment, 0.5) == {"point": 8, "wide": 16}
    assert factorisable(segment, 0.05) == {}
    assert [rank_of(192, 768, 0.5), rank_of(32, 96, 0.5), rank_of(8, 8, 0.5)] == [72, 8, 0]


def test_the_product_is_the_nearest_of_its_rank_and_costs_its_share(segment: fx.GraphModule) -> None:
    low = factorised(segment, 0.5)
    x = torch.randn(2, 32, 8, 8)
    assert low(x).shape == segment(x).shape
    assert set(dict(low.named_modules())) - set(dict(segment.named_modules())) == {"point_reduce", "wide_reduce"}
    for name in ("point", "wide"):
        weight = segment.get_submodule(name).weight.detach().flatten(1).double()
        first, second = (low.get_submodule(key).weight.detach().flatten(1).double() for key in (f"{name}_reduce", name))
        rank = len(first)
        kept = np.linalg.svd(weight.numpy(), compute_uv=False)
        assert float((weight - second @ first).norm()) == pytest.approx(float(np.linalg.norm(kept[rank:])), rel=1e-4)
        assert first.numel() + second.numel() <= 0.5 * weight.numel()
    assert torch.equal(low.get_submodule("wide").bias, segment.get_submodule("wide").bias)
    assert low.get_submodule("point_reduce").stride == (2, 2)
    assert segment.get_submodule("point").weight.shape == (96, 32, 1, 1), "the segment itself stays"


def test_at_full_rank_nothing_is_lost() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 8) @ torch.randn(8, 64) / 8)
    segment = fx.symbolic_trace(nn.Sequential(layer, nn.GELU()))
    x = torch.randn(5, 64)
    torch.testing.assert_close(factorised(segment, 0.25)(x), segment(x), rtol=1e-4, atol=1e-4)


def test_it_is_priced_as_two_layers_and_its_last_one_closes_the_segment() -> None:
    torch.manual_seed(0)
    segment = fx.symbolic_trace(nn.Sequential(nn.Conv2d(64, 64, 1)))
    low = factorised(segment, 0.5)
    assert len(trace_module(low, (1, 64, 8, 8), "low").operators) == 2
    before, after = (trace_module(module, (1, 64, 8, 8), "a").cost.macs for module in (segment, low))
    assert after == before // 2
    closing = closing_layer(low)
    assert closing is not None
    assert closing.layer == "0"
