"""The supernet: a member taken out is small, and computes what the path through the supernet computes."""

import numpy as np
import pytest
import torch

from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space, get_space
from nas.training.supernet.statistics import recalibrate
from nas.training.supernet.weights import Supernet, resize

SIDE = (32, 32)


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return get_elastic_space("hybrid-s", num_classes=5)


@pytest.fixture(scope="module")
def net(space: ElasticSpace) -> Supernet:
    return Supernet(space, 5, SIDE, seed=3)


def members(space: ElasticSpace) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.extreme(True), space.extreme(False), *(space.sample(rng) for _ in range(6))]


def images(n: int = 6, side: tuple[int, int] = SIDE) -> torch.Tensor:
    return torch.randn(n, 3, *side, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("index", range(8))
def test_extracted_member_equals_the_path_and_is_small(space: ElasticSpace, net: Supernet, index: int) -> None:
    architecture = members(space)[index]
    path, module = net.path(architecture), net.extract(architecture)
    side = space.proxy(architecture, SIDE)
    x = images(6, side)
    with torch.no_grad():
        assert torch.allclose(path.train()(x), module.train()(x), atol=1e-5)
        recalibrate(path, [images(16, side)])
        recalibrate(module, [images(16, side)])
        assert torch.allclose(path(x), module(x), atol=1e-5)
    fresh = space.build(architecture, num_classes=5, resolution=side)
    assert {n: p.shape for n, p in module.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    own = sum(p.untyped_storage().nbytes() for p in module.parameters())
    assert own == sum(4 * p.numel() for p in module.parameters()), "a weight is a view of something larger"


def test_members_share_weights(space: ElasticSpace, net: Supernet) -> None:
    small, large = net.path(space.extreme(False)), net.path(space.extreme(True))
    narrow, wide = small.weights[-1]["2.weight"], large.weights[-1]["2.weight"]
    assert narrow.shape[1] < wide.shape[1]
    assert torch.equal(narrow, wide[:, : narrow.shape[1]])


def test_a_smaller_kernel_is_the_centre_of_the_larger(space: ElasticSpace, net: Supernet) -> None:
    genes = list(space.extreme(True).genes)
    place = [choice.name for choice in space.choices].index("stage0.block0.mixer")
    found = {}
    for kernel in (3, 11):
        genes[place] = f"depthwise:kernel={kernel}"
        found[kernel] = net.path(space.architecture(genes)).weights[1]["body.branches.0.conv.weight"]
    assert torch.equal(found[3], found[11][:, :, 4:7, 4:7])


def test_stacked_parts_are_sliced_each(space: ElasticSpace, net: Supernet) -> None:
    names = [choice.name for choice in space.choices]
    found = []
    for width in (16, 24):
        genes = list(space.extreme(True).genes)
        genes[names.index("stage0.width")], genes[names.index("stage0.block0.mixer")] = width, "catm:kernel=3"
        found.append(net.path(space.architecture(genes)).weights[1]["body.qkv.weight"])
    for part in range(3):
        assert torch.equal(found[0][16 * part : 16 * (part + 1)], found[1][24 * part : 24 * part + 16, :16])


def test_gradients_arrive_where_the_weights_came_from(space: ElasticSpace, net: Supernet) -> None:
    architecture = members(space)[3]
    side = space.proxy(architecture, SIDE)
    net.gradient.zero_()
    path, module = net.path(architecture, gradients=True).train(), net.extract(architecture).train()
    path(images(6, side)).square().sum().backward()
    path.add_gradients()
    module(images(6, side)).square().sum().backward()
    whole = sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None)
    assert float(net.gradient.square().sum()) == pytest.approx(whole, rel=1e-4)
    step = 1e-3 / float(net.gradient.norm())
    before = float(path(images(6, side)).detach().square().sum())
    net.flat.sub_(step * net.gradient)
    assert float(net.path(architecture).train()(images(6, side)).square().sum()) < before
    net.flat.add_(step * net.gradient)


def test_the_seed_decides_and_the_global_generator_is_left_alone(space: ElasticSpace) -> None:
    state = torch.random.get_rng_state()
    a, b, c = (Supernet(space, 5, SIDE, seed=seed) for seed in (1, 1, 2))
    a.extract(space.extreme(False))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a.flat, b.flat)
    assert a.key == b.key != c.key


def test_member_runs_at_another_resolution(space: ElasticSpace, net: Supernet) -> None:
    for architecture in members(space):
        module = net.extract(architecture, (128, 160)).eval()
        with torch.no_grad():
            assert module(images(1, (128, 160))).shape == (1, 5)


def test_resize_interpolates() -> None:
    table = torch.arange(4.0).view(4, 1).expand(4, 3)
    assert resize(table, (4, 3)) is table
    assert torch.allclose(resize(table, (8, 3))[:, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))


@pytest.mark.slow
def test_every_family_runs_on_shared_weights_at_every_width() -> None:
    space = get_space("hybrid-gpu-s", num_classes=5)
    assert isinstance(space, ElasticSpace)
    net = Supernet(space, 5, SIDE, seed=0)
    rng = np.random.default_rng(0)
    for value in range(24):
        architecture = space.sample(rng)
        net.gradient.zero_()
        path = net.path(architecture, gradients=True).train()
        path(images(2, space.proxy(architecture, SIDE))).sum().backward()
        path.add_gradients()
        assert bool(net.gradient.isfinite().all()), value
    for slot, parts in space.slots(SIDE, 5).items():
        if slot.startswith(("stage1.block0.", "stage3.block0.")):
            for part in parts:
                assert net._link(part).shapes is not None
