"""Every registered training-free score keeps the contract, and equals its formula written out."""

import numpy as np
import pytest
import torch
from torch import nn

from nas.testing import scores as suite
from nas.training.score import Probe, scores, vote


@pytest.mark.parametrize("name", scores.names())
def test_contract(name: str) -> None:
    score = scores.get(name)()
    suite.check_source(score)
    suite.check_repeats(score)
    suite.check_blocked(score)


def linear_probe(weights: list[torch.Tensor]) -> Probe:
    """Return a probe of linear layers on 1 × 1 pictures, with a ReLU after each but the last."""

    def make() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for i, weight in enumerate(weights):
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone())
            layers += [layer] + [nn.ReLU()] * (i + 1 < len(weights))
        return nn.Sequential(*layers).train()

    pictures = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    return Probe(make, pictures, torch.arange(5) % 2, 1)


@pytest.fixture
def probe() -> Probe:
    generator = torch.Generator().manual_seed(4)
    return linear_probe([torch.randn(40, 3, generator=generator), torch.randn(2, 40, generator=generator)])


def test_naswot_by_loops(probe: Probe) -> None:
    hidden = probe.make()[1](probe.pictures.flatten(1))  # type: ignore[index]
    on = (hidden > 0).tolist()
    kernel = [[sum(a == b for a, b in zip(x, y, strict=True)) for y in on] for x in on]
    assert scores.get("naswot")().measure(probe) == pytest.approx(np.linalg.slogdet(np.array(kernel, float))[1], rel=1e-9)


def test_synflow_by_paths(probe: Probe) -> None:
    """R is a sum over paths, and θ·∂R/∂θ of a layer the sum of those through it: each layer gives R once."""
    _, first, _, second = probe.make().double()  # type: ignore[misc]
    paths = (second.weight.detach().abs() @ first.weight.detach().abs()).sum()
    assert scores.get("synflow")().measure(probe) == pytest.approx(float(torch.log(2 * paths)), rel=1e-9)


def test_gradient_norm_by_differences(probe: Probe) -> None:
    module = probe.make().double()
    loss = nn.functional.cross_entropy(module(probe.pictures.double()), probe.labels)
    norms = [float(g.norm()) for g in torch.autograd.grad(loss, list(module.parameters()))]
    assert scores.get("gradient-norm")().measure(probe) == pytest.approx(np.log(sum(norms)), rel=1e-4)


def test_expressivity_of_one_direction_is_zero() -> None:
    """Features that all lie on a line use one direction; independent ones use all."""
    column = linear_probe([torch.ones(4, 3)])
    assert scores.get("expressivity")().measure(column) == 0.0  # a vector is no map: nothing is counted
    flat = suite.probe_of(nn.Sequential(nn.Conv2d(8, 8, 1, bias=False)))
    assert scores.get("expressivity")().measure(flat) > 0


def test_a_vote_follows_every_score() -> None:
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(30, 3))
    values = np.sort(rng.normal(size=(200, 1)) * 3, axis=0) * np.ones((1, 3))
    found = vote(values, pool)
    assert (np.diff(found) > 0).all(), "better by every score is better by the vote"
    assert (found <= 0).all()
    worst = vote(np.array([[-np.inf] * 3, [-50.0] * 3]), pool)
    assert worst[0] <= worst[1]
    alone = vote(pool)
    assert np.argsort(alone).tolist() == np.argsort(vote(pool * [1.0, 10.0, 100.0])).tolist(), "only the order of a score counts"
