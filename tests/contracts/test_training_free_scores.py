"""Every registered training-free score keeps the contract, and equals its formula written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nas.testing import scores as suite
from nas.training.score import Probe, scores, vote
from nas.training.scores.progressivity import features_of


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


def test_progressivity_by_numpy() -> None:
    probe = suite.probe_of(nn.Conv2d(8, 8, 3, padding=1, bias=False))
    entropies = []
    for features in features_of(probe):
        columns = features.detach().double().numpy().transpose(1, 0, 2, 3).reshape(8, -1)
        share = np.linalg.eigvalsh(np.cov(columns, bias=True))
        share /= share.sum()
        entropies.append(-float((share * np.log(np.maximum(share, 1e-12))).sum()))
    assert len(entropies) == 4, "the head, which pools, is no block"
    assert scores.get("progressivity")().measure(probe) == pytest.approx(np.diff(entropies).min(), rel=1e-6)


@pytest.mark.parametrize(("stride", "side"), [(1, 16), (2, 16), (2, 17)])
def test_trainability_sees_the_spectral_norm_of_a_linear_block(stride: int, side: int) -> None:
    """The block maps each position, or each square of four, by one matrix, whose largest singular value counts."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, stride, stride, bias=False)).train()

    probe = Probe(make, torch.randn(32, 3, side, side, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 2, 1)
    made: list[nn.Module] = []
    probe = replace(probe, make=lambda: made.append(make()) or made[-1])  # type: ignore[func-returns-value]
    features_of(probe)
    sigma = float(torch.linalg.matrix_norm(made[0][1].weight.detach().flatten(1), ord=2))  # type: ignore[index]
    assert scores.get("trainability")().measure(probe) == pytest.approx(-sigma - 1 / sigma + 2, abs=0.1)


@pytest.mark.parametrize("size", [(16, 15), (15, 15), (9, 16)])
def test_trainability_takes_maps_that_do_not_halve_evenly(size: tuple[int, int]) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 3, 2, 1, bias=False)).train()

    probe = Probe(make, torch.randn(32, 3, *size, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 2, 1)
    assert -10 < scores.get("trainability")().measure(probe) < 0


def test_trainability_refuses_what_changes_nothing() -> None:
    probe = suite.probe_of(nn.Identity())
    assert scores.get("trainability")().measure(probe) == -np.inf


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
