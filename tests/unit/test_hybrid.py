"""The hybrid space: its presets keep their promise, its choices come from the registries, its deploy form is exact."""

import numpy as np
import pytest
import torch

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.naming import get_elastic_space, get_space
from nas.spaces.operator_family import fuse
from search_spaces.hybrid import DEFAULT_MIXERS, SIZES, Hybrid


@pytest.mark.parametrize("preset", Hybrid.presets)
def test_largest_member_keeps_the_preset_and_the_space_is_large(preset: str) -> None:
    space = get_elastic_space(f"hybrid-{preset}", resolution=(224, 224))
    largest, smallest = space.extreme(True), space.extreme(False)
    assert space.lower(largest).cost.macs <= SIZES[preset[-1]].most_macs
    assert space.lower(largest).cost.macs > 4 * space.lower(smallest).cost.macs
    assert space.size() > 10**15
    rng = np.random.default_rng(0)
    assert all(space.lower(space.sample(rng)).cost.macs <= space.lower(largest).cost.macs for _ in range(5))


def test_default_families_and_groups() -> None:
    space, npu = get_space("hybrid-s"), get_space("hybrid-npu-s")
    assert isinstance(space, Hybrid)
    assert isinstance(npu, Hybrid)
    assert set(DEFAULT_MIXERS) <= set(space.families)
    assert "window" not in npu.families
    kernels = [v for v in next(c for c in space.choices if c.name == "stage0.block0.mixer").values if str(v).startswith("depthwise:")]
    assert kernels == [f"depthwise:kernel={k}" for k in (3, 5, 7, 9, 11)]
    without = get_space("hybrid-s", without=("window", "glu"))
    assert isinstance(without, Hybrid)
    assert not {"window", "glu"} & set(without.families)
    with pytest.raises(UsageError, match="cannot do without 'depthwise'"):
        get_space("hybrid-s", without=("depthwise",))
    with pytest.raises(UsageError, match="Did you mean 'window'"):
        get_space("hybrid-s", without=("windw",))


def test_a_fixed_resolution_may_be_any_and_is_still_a_member() -> None:
    fixed = get_space("hybrid-s", resolution=(96, 320))
    architecture = fixed.sample(np.random.default_rng(0))
    get_space("hybrid-s").validate(architecture)
    assert fixed.lower(architecture).inputs[0].shape == (1, 3, 96, 320)
    with pytest.raises(UsageError, match="resolution"):
        get_space("hybrid-s", resolution=(30, 30))


def test_the_proxy_follows_the_resolution_where_the_search_may_choose_it() -> None:
    space, fixed = get_elastic_space("hybrid-s"), get_elastic_space("hybrid-s", resolution=(224, 224))
    sizes = {}
    for text in space.choices[0].values:
        genes = list(space.extreme(False).genes)
        genes[0] = text
        sizes[text] = [space.proxy(space.architecture(genes), (side, side)) for side in (32, 64)]
    assert sizes["224x224"] == [(32, 32), (64, 64)]
    assert sizes["128x256"] == [(20, 36), (48, 72)]
    assert max(sizes.values()) == sizes["288x288"]
    assert fixed.proxy(fixed.extreme(True), (32, 32)) == (32, 32)


def test_inactive_blocks_do_not_count() -> None:
    space = get_space("hybrid-s")
    rng = np.random.default_rng(1)
    for _ in range(20):
        architecture = space.sample(rng)
        genes = list(architecture.genes)
        names = [choice.name for choice in space.choices]
        genes[names.index("stage2.depth")] = 1
        genes[names.index("stage2.block3.mixer")] = "window:window=7"
        found = space.architecture(genes)
        assert found.genes[names.index("stage2.block3.mixer")] == "depthwise:kernel=3"
        assert sum(label.startswith("stage2.block") for label, _ in space.segments(found)) == 2


@pytest.mark.parametrize("name", ["hybrid-s", "vit-n"])
def test_a_part_is_lowered_once(name: str) -> None:
    space = get_elastic_space(name)
    architecture = space.sample(np.random.default_rng(3))
    first, again = space.segments(architecture), space.segments(architecture)
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert first == tuple((part.label, part.graph()) for part in space.parts(architecture))


@pytest.mark.parametrize("seed", range(4))
def test_fused_module_equals_training_form(seed: int) -> None:
    space = get_space("hybrid-s", resolution=(64, 96))
    module = space.build(space.sample(np.random.default_rng(seed)), num_classes=7).double()
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features, generator=generator, dtype=torch.float64) / 10
            part.running_var = torch.rand(part.num_features, generator=generator, dtype=torch.float64) + 0.5
    x = torch.randn(2, 3, 64, 96, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected, found = module.eval()(x), fuse(module)(x)
    assert torch.allclose(expected, found, rtol=1e-9, atol=1e-9)
    assert expected.shape == (2, 7)


def test_batch_norm_goes_into_the_convolution_before_it_only() -> None:
    b = GraphBuilder()
    x = b.input((1, 4, 8, 8))
    plain = b.conv(x, 4, bias=False)
    assert b.batch_norm(plain) == plain
    active = b.conv(plain, 4, activation="Relu")
    normed = b.batch_norm(active)
    twice = b.conv(normed, 4)
    read = b.unary("Relu", twice)
    graph = b.build(b.binary("Add", b.batch_norm(twice), read))
    assert [op.op for op in graph.operators] == ["Conv", "Conv", "Mul", "Add", "Conv", "Relu", "Mul", "Add", "Add"]
    assert len(graph.operators[0].weights) == 2
