"""The whitening start: what the first convolution sees has equal variance in all components, and each filter's negative stands beside it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.training.supernet.whitening import whiten


def pictures() -> list[torch.Tensor]:
    """Return smooth pictures, whose patches are mostly brightness."""
    coarse = torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(coarse, (16, 16), mode="bilinear") + 0.05 * torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return list(x.split(10))


def test_the_components_come_first_with_equal_variance_and_uncorrelated() -> None:
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 60, 3, bias=False)
    before = conv.weight.detach().clone()
    whiten(nn.Sequential(nn.Sequential(conv), nn.Conv2d(60, 4, 1)), pictures())
    weight = conv.weight.detach()
    assert torch.equal(weight[54:], before[54:])  # 27 components and their negatives
    assert torch.equal(weight[0:54:2], -weight[1:54:2])
    assert weight.std() == pytest.approx(float(before.std()), rel=0.05)
    y = F.conv2d(torch.cat(pictures()), weight[0:54:2], stride=3).permute(1, 0, 2, 3).flatten(1)
    correlations = torch.corrcoef(y)
    assert (correlations - torch.eye(27)).abs().max() < 0.15
    random = F.conv2d(torch.cat(pictures()), before[:27], stride=3).permute(1, 0, 2, 3).flatten(1)
    assert torch.corrcoef(random).fill_diagonal_(0).abs().max() > 0.8
    deviations = y.std(1)[:6]  # those with less variance than the regularisation stay weaker
    assert deviations.max() / deviations.min() < 1.5


@pytest.mark.parametrize("conv", [nn.Conv2d(4, 8, 3), nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(3, 1, 3)])
def test_what_does_not_take_the_pictures_as_they_are_is_left_alone(conv: nn.Conv2d) -> None:
    before = conv.weight.detach().clone()
    whiten(nn.Sequential(conv), pictures())
    assert torch.equal(conv.weight, before)


def test_few_filters_take_the_components_of_most_variance() -> None:
    few, many = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 54, 3)
    for conv in (few, many):
        whiten(conv, pictures())
    a, b = (F.normalize(conv.weight.detach().flatten(1)) for conv in (few, many))
    assert torch.allclose(a, b[:4], atol=1e-5)
