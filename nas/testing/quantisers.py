"""The contract of a quantisation method, as a check that takes one and raises `AssertionError` where it is broken."""

from __future__ import annotations

import numpy as np

from nas.quantisation.method import Activations, Quantiser, range_of


def check_quantiser(method: Quantiser) -> None:
    """A prepared network says what the network says, the original is left alone, ranges are finite and hold zero."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    norm = nn.LayerNorm(8)
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1)),
        *(nn.Flatten(2), nn.AdaptiveAvgPool1d(8), norm, nn.Linear(8, 4)),
    ).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.6, 0.6, generator=generator)
        batches = [torch.randn(4, 3, 8, 8, generator=generator) for _ in range(3)]
        before, expected = {key: value.clone() for key, value in module.state_dict().items()}, module(batches[0])
        prepared = method.prepare(module, batches, (1, 3, 8, 8))
        scores = prepared(batches[0])
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items()), "the network was changed"
    error = float((scores - expected).norm() / expected.norm())
    assert error < 0.05, f"the prepared network differs by {error:.1%}"

    activations = Activations()
    activations.observe(np.random.default_rng(0).normal(size=20_000).astype(np.float32))
    for bits in (8, 16):
        low, high = range_of([method], activations, bits)
        assert np.isfinite([low, high]).all(), "a range must be finite"
        assert low <= 0 <= high, "a range must hold zero"
        assert max(low / activations.low, high / activations.high) <= 1.001, "a range must not go beyond what was seen"
        assert high - low > 2.0, "a range must hold the bulk of what was seen"
