"""What every training-free score must satisfy; each check takes a score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nas.training.score import Probe, Score

if TYPE_CHECKING:
    from torch import nn

CLASSES, PICTURES, SIZE = 4, 8, 16  # by hand


def probe_of(body: nn.Module, seed: int = 0) -> Probe:
    """Return a probe of a small network: a convolution, a body of 8 channels, a head; eight pictures of noise."""
    import copy

    import torch
    from torch import nn

    def make() -> nn.Module:
        torch.manual_seed(seed)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
        module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), copy.deepcopy(body), *head)
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                part.reset_parameters()
        return module.train()

    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(PICTURES, 3, SIZE, SIZE, generator=generator)
    return Probe(make, pictures, torch.arange(PICTURES) % CLASSES, 10**6)


def convolution() -> nn.Module:
    """Return a body through which signal passes."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())


def blocked() -> nn.Module:
    """Return a body through which nothing passes."""
    from torch import nn

    class Zero(nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x * 0.0

    return Zero()


def check_repeats(score: Score) -> None:
    """The same network has the same score, whatever was measured before."""
    probe = probe_of(convolution())
    first = score.measure(probe)
    score.measure(probe_of(blocked()))
    assert score.measure(probe) == first
    assert math.isfinite(first), "a network through which signal passes has a finite score"


def check_blocked(score: Score) -> None:
    """A network through which nothing passes has a number too: finite or −inf, never NaN."""
    score_blocked = score.measure(probe_of(blocked()))
    assert not math.isnan(score_blocked)
    assert score_blocked < math.inf


def check_source(score: Score) -> None:
    """The paper is named."""
    assert score.source.title
    assert score.source.reference
