"""The hybrid space: its presets keep their promise, its choices come from the registries, its deploy form is exact."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.spaces.naming import SpaceName, get_elastic_space, get_space
from nas.spaces.network import read_architecture
from nas.spaces.operator_family import fuse
from nas.spaces.space import SearchSpace
from search_spaces._operator_settings import INTEGER
from search_spaces.hybrid import DEFAULT_MIXERS, SIZES, Hybrid


@pytest.mark.parametrize(
    "preset", [pytest.param(preset, marks=pytest.mark.slow if preset in ("gpu-m", "gpu-l") else ()) for preset in Hybrid.presets]
)
def test_largest_member_keeps_the_preset_and_the_space_is_large(preset: str) -> None:
    space = get_elastic_space(f"hybrid-{preset}", resolution=(224, 224))
    largest, smallest = space.extreme(True), space.extreme(False)
    assert space.lower(largest).cost.macs <= SIZES[preset.rpartition("-")[2]].most_macs
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
    with pytest.raises(UsageError, match="nothing is left for stage 0"):
        get_space("hybrid-s", without=DEFAULT_MIXERS)
    with pytest.raises(UsageError, match="Did you mean 'window'"):
        get_space("hybrid-s", without=("windw",))


def test_integer_presets_have_integers_operators_alone() -> None:
    space = get_space("hybrid-int-s")
    assert isinstance(space, Hybrid)
    assert {"depthwise", "pool", "inception-next", "mlp"} <= set(space.families)
    rng = np.random.default_rng(0)
    for _ in range(5):
        member = space.sample(rng)
        assert {op.op for op in space.lower(member, (64, 64)).operators} <= INTEGER
        assert all(int(gene) % 16 == 0 for gene, choice in zip(member.genes, space.choices, strict=True) if choice.name.endswith(".width"))


@pytest.mark.parametrize(("preset", "digest"), [("s", "8bdf3235878665e5"), ("m", "ea662d973a931169"), ("l", "7c1780bc0bf8fe60")])
def test_the_presets_keep_their_genes(preset: str, digest: str) -> None:
    """Runs, files and checkpoints hold them."""
    choices = [(c.name, c.values, c.ordered) for c in get_space(f"hybrid-{preset}").choices]
    assert hashlib.sha256(repr(choices).encode()).hexdigest()[:16] == digest


def mixers_of(space: SearchSpace, stage: int, half: str = "mixer") -> list[str]:
    return [str(v) for v in next(c for c in space.choices if c.name == f"stage{stage}.block0.{half}").values]


def test_mixers_and_knobs_are_chosen_and_stand_in_the_name() -> None:
    space = get_space("hybrid-s", mixers=("pool", "depthwise", "mlp"), knobs=("pool.kernel", "mlp.activation"))
    assert space.name == "hybrid-s:mixers=depthwise,pool,mlp:knobs=mlp.activation,pool.kernel"
    assert mixers_of(space, 1) == [*(f"depthwise:kernel={k}" for k in (3, 5, 7, 9, 11)), *(f"pool:kernel={k}" for k in (3, 5, 7, 9))]
    assert mixers_of(space, 1, "channel_mixer") == [f"mlp:activation={a}" for a in ("relu", "hardswish", "gelu")]
    again = get_space("hybrid-s", mixers=("mlp", "pool", "depthwise"), knobs=("mlp.activation", "pool.kernel"))
    architecture = space.sample(np.random.default_rng(0))
    for other in (again, get_space(space.name), get_space(architecture.space)):
        other.validate(architecture)
        assert other.lower(architecture) == space.lower(architecture)
    precise = get_space(f"{space.name}@fp16+w8a8")
    precise.validate(precise.sample(np.random.default_rng(0)))
    assert precise.name == f"{space.name}@fp16+w8a8"
    with pytest.raises(UsageError, match="of another space"):
        get_space("hybrid-s").validate(architecture)


def test_only_the_named_kind_is_replaced_and_green_is_spelt_out() -> None:
    usual, token = get_space("hybrid-s"), get_space("hybrid-s:mixers=hornet,depthwise")
    assert mixers_of(token, 2, "channel_mixer") == mixers_of(usual, 2, "channel_mixer")
    assert {v.partition(":")[0] for v in mixers_of(token, 2)} == {"depthwise", "hornet"}
    green = SpaceName.parse(get_space("hybrid-s", mixers=("green",)).name).options["mixers"]
    assert {"depthwise", "mlp", "pool"} <= set(green)
    assert "window" not in green
    assert not {"window", "spatial-reduction"} & {v.partition(":")[0] for v in mixers_of(get_space("hybrid-s", mixers=("green",)), 3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixers": ("poool",)}, "Did you mean 'pool'"),
        ({"mixers": ("spectral", "depthwise"), "resolution": (32, 32)}, None),
        ({"mixers": ("window",)}, "nothing is left for stage 0"),
        ({"knobs": ("hornet.order",)}, "a family that the space has not, got 'hornet.order'"),
        ({"knobs": ("pool.size",)}, "pool has no such knob to search, got 'pool.size'. Expected kernel."),
        ({"knobs": ("glu.expansion",)}, "glu has no such knob"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options: dict[str, object], message: str | None) -> None:
    if message is None:
        get_space("hybrid-s", **options)
        return
    with pytest.raises(UsageError, match=re.escape(message)):
        get_space("hybrid-s", **options)


@pytest.mark.parametrize("name", ["hybrid-s:mixers=", "hybrid-s:size=3", "hybrid-s:mixers=pool:mixers=catm"])
def test_a_name_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot read its name"):
        get_space(name)
    with pytest.raises(UsageError, match="are in its name already"):
        get_space("hybrid-s:mixers=pool,depthwise", mixers=("catm",))


def test_words_of_a_further_knob_have_weights_of_their_own_and_numbers_share() -> None:
    space = get_elastic_space("hybrid-s", mixers=("depthwise", "lsnet"), knobs=("depthwise.branches", "lsnet.small"), num_classes=3)
    slots = [slot for slot in space.slots((32, 32), 3) if slot.startswith("stage1.block0.mixer/")]
    assert {slot.partition("/")[2] for slot in slots} == {
        *(f"depthwise:branches={b}" for b in ("plain", "repvgg", "dilated", "deep")),
        "lsnet",
    }


def test_a_problem_carries_the_choice(tmp_path: Path) -> None:
    request = Request(
        devices=("sa8295p",), budgets=("5ms",), space="hybrid", mixers=("pool", "depthwise"), knobs=("pool.kernel",), resolution="32"
    )
    space = make_problem(request).space
    assert space.name == "hybrid-s:mixers=depthwise,pool:knobs=pool.kernel"
    path = tmp_path / "arch.json"
    path.write_text(space.sample(np.random.default_rng(0)).to_json())
    rebuilt, architecture = read_architecture(path)
    assert rebuilt.name == space.name == architecture.space


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
