"""The plain transformers' space: DeiT is a member, weights serve every number of tokens, the deploy form is exact."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import UsageError
from nas.exporting.exporters.onnx import scores_of
from nas.exporting.exporters.onnx_quantised import QuantisedOnnxExporter
from nas.exporting.trained import Trained, spared
from nas.graphs.frontends.torch_module import trace_module
from nas.quantisation.simulate import simulate
from nas.runs.choice import blocks
from nas.runs.problem import Problem
from nas.runs.request import Request
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space, get_space, is_elastic
from nas.spaces.operator_family import fuse
from nas.spaces.precision import PrecisionSpace
from nas.training.dataset import load_dataset
from nas.training.evaluator import evaluators
from nas.training.supernet.weights import Supernet
from search_spaces.layers.tokens import PatchEmbedding, positions


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return get_elastic_space("vit-n", num_classes=5)


@pytest.fixture(scope="module")
def net(space: ElasticSpace) -> Supernet:
    return Supernet(space, 5, (28, 28), seed=1)


def test_deit_tiny_is_a_member_but_for_its_learned_positions() -> None:
    space = get_space("vit-t")
    member = space.architecture(["224x224", 192, 12, *[3, "4"] * 14])
    cost = space.lower(member).cost
    assert cost.params == 5_717_416 - 197 * 192
    assert cost.macs == 1_253_683_200


@pytest.mark.parametrize("index", range(3))
def test_the_graph_is_what_the_module_does(space: ElasticSpace, net: Supernet, index: int) -> None:
    member = [space.sample(np.random.default_rng(index)), space.extreme(True), space.extreme(False)][index]
    size = space.proxy(member, net.resolution)
    module = net.extract(member, size).eval()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net.path(member).train(False)(x)
        assert torch.equal(module(x), expected)
        assert torch.allclose(fuse(module)(x), expected, atol=1e-5)
    traced, lowered = trace_module(fuse(module), (1, 3, *size)), space.lower(member, size)
    assert [op.op for op in traced.operators] == [op.op for op in lowered.operators]
    assert [op.outputs[0].shape for op in traced.operators] == [op.outputs[0].shape for op in lowered.operators]
    assert (traced.cost.macs, traced.cost.params) == (lowered.cost.macs, lowered.cost.params)


def test_a_proxy_of_28_pixels_has_the_tokens_of_the_deployment(space: ElasticSpace) -> None:
    for resolution in space.choices[0].values:
        member = space.architecture([resolution, *(choice.values[0] for choice in space.choices[1:])])
        proxy = space.proxy(member, (28, 28))
        assert space.lower(member, proxy).operators[1].outputs[0].shape == space.lower(member).operators[1].outputs[0].shape


def test_a_large_patch_says_of_an_enlarged_picture_what_the_small_one_said(space: ElasticSpace, net: Supernet) -> None:
    member = space.architecture(["384x384", *(choice.values[-1] for choice in space.choices[1:])])
    picture = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(6, 2).repeat_interleave(6, 3)
    with torch.no_grad():
        small = net.extract(member, (48, 48)).eval()(picture)
        large = net.extract(member, (384, 384)).eval()(picture.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert torch.allclose(small, large, atol=1e-4)


def test_a_small_deployment_is_its_own_proxy() -> None:
    space = get_elastic_space("vit-n", num_classes=5, resolution=(32, 64))
    assert space.proxy(space.extreme(True), (32, 32)) == (32, 64)


def test_positions_of_a_narrow_network_are_the_first_of_a_wide_one() -> None:
    wide, narrow = positions(48, (3, 5)), positions(32, (3, 5))
    assert wide.shape == (1, 16, 48)
    assert torch.equal(wide[..., :32], narrow)
    assert len(np.unique(narrow[0].numpy().round(4), axis=0)) == 16


def test_training_sees_a_quarter_of_the_patches_and_draws_by_the_pictures() -> None:
    module = PatchEmbedding(8, 2, (8, 8))
    a, b = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def kept(x: torch.Tensor) -> list[int]:
        with torch.no_grad():
            whole, part = module.eval()(x)[0], module.train()(x)[0]
        assert torch.equal(part[0], whole[0])
        return [int((whole == row).all(dim=1).nonzero()) for row in part[1:]]

    assert len(set(kept(a))) == 16
    assert kept(a) == kept(a)
    assert kept(a) != kept(b)


def test_precision_may_differ_by_block(space: ElasticSpace) -> None:
    mixed = PrecisionSpace(space, ["fp16", "w8a8"])
    names = {choice.name for choice in mixed.choices}
    assert {"precision", "block0.precision"} <= names
    member = mixed.with_precision(space.extreme(True), "w8a8")
    i = [choice.name for choice in mixed.choices].index("block0.precision")
    changed = mixed.architecture([*member.genes[:i], "fp16", *member.genes[i + 1 :]])
    precisions = mixed.part_precisions(changed)
    assert {precisions["block0.attention"], precisions["block0.perceptron"]} == {"fp16"}
    assert precisions["block1.attention"] == "w8a8"


def test_names_and_refusals() -> None:
    assert is_elastic("vit-n")
    assert is_elastic("hybrid-s@fp16+w8a8")
    assert not is_elastic("zoo")
    assert not is_elastic("no-such-space")
    with pytest.raises(UsageError, match="no supernet serves it"):
        get_elastic_space("zoo")
    with pytest.raises(UsageError, match="multiples of 16"):
        get_space("vit-n", resolution=(200, 200))
    with pytest.raises(UsageError, match="has no option 'without'"):
        get_space("vit-n", without=("mlp",))


def test_a_quantised_file_answers_as_the_simulation_and_says_nothing(
    space: ElasticSpace, net: Supernet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    member = space.extreme(False)
    module = fuse(net.extract(member, (24, 24)).eval())
    with torch.no_grad():  # as large as trained ones: a norm after it would blow up what rounding leaves of a fresh one
        module.get_parameter("patches.class_token").normal_(generator=torch.Generator().manual_seed(0))
    shown = list(torch.randn(4, 8, 3, 24, 24, generator=torch.Generator().manual_seed(0)))
    made = QuantisedOnnxExporter("w8a8", shown, ("minmax",)).export(module, trace_module(module, (1, 3, 24, 24)), tmp_path / "n.onnx")
    simulated = simulate(module, shown, "w8a8", ("minmax",))
    x = shown[0][:1]
    found, expected = scores_of(made.path, x.numpy()), simulated(x).numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_report_leaves_out_blocks_beyond_the_depth(space: ElasticSpace) -> None:
    targets = load_targets(["sa8295p"], None)
    goal = make_goal(targets, ["5ms"])
    request = Request(devices=("sa8295p",), budgets=("5ms",), space=space.name)
    problem = Problem(request, targets, goal, space, Judge(space, goal, targets), evaluators.get(space.evaluator))
    lines = blocks(problem, space.extreme(False))
    assert [line.partition(":")[0] for line in lines] == ["input", "block0", "block1"]


@pytest.mark.slow
def test_the_most_sensitive_block_is_spared(space: ElasticSpace, net: Supernet) -> None:
    member = space.extreme(True)
    size = space.proxy(member, net.resolution)
    data = load_dataset("digits").thinned("train", 16)
    trained = Trained(space, member, net.extract(member, size).eval(), size, data)
    found = trained.sensitivity_db()
    assert list(found) == ["patches", "block0", "block1", "block2", "block3", "head"]
    mixed = PrecisionSpace(space, ["fp16", "w8a8"])
    precisions = mixed.part_precisions(spared(trained, mixed))
    worst = min((name for name in found if name.startswith("block")), key=found.__getitem__)
    assert {label for label, precision in precisions.items() if precision == "fp16"} == {f"{worst}.attention", f"{worst}.perceptron"}


@pytest.mark.parametrize("arrangement", ["12x1", "6x2", "4x3", "3x4"])
def test_parallel_layers_train_as_branches_and_deploy_as_one(arrangement: str) -> None:
    parallel = get_elastic_space("vit-parallel-n", num_classes=5)
    member = parallel.architecture(["224x224", 48, arrangement, "sum", "sum"])
    layers = int(arrangement.partition("x")[0])
    graph = parallel.lower(member, (28, 28))
    assert [op.op for op in graph.operators].count("Attention") == layers
    module = parallel.build(member, resolution=(28, 28)).eval()
    x = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    merged = fuse(module)
    torch.testing.assert_close(module(x), merged(x), rtol=1e-4, atol=1e-5)
    assert trace_module(merged, (1, 3, 28, 28)).cost.macs == graph.cost.macs
    if layers < 12:
        single = parallel.architecture(["224x224", 48, "12x1", "sum", "sum"])
        assert graph.cost.macs < parallel.lower(single, (28, 28)).cost.macs


def test_the_supernet_of_parallel_layers_joins_them_by_the_end() -> None:
    parallel = get_elastic_space("vit-parallel-n", num_classes=5)
    net = Supernet(parallel, 5, (28, 28))
    member = parallel.architecture(["224x224", 64, "6x2", "sum", "concat"])
    path = net.path(member).train(False)
    x = torch.randn(2, 3, 28, 28)
    apart, joined = path.follow(0.0)(x), path.follow(1.0)(x)
    assert not torch.allclose(apart, joined)
    assert torch.equal(joined, net.extract(member).eval()(x))
    assert parallel.size() == len(list(parallel.enumerate()))


@pytest.fixture(scope="module")
def reducing() -> Supernet:
    return Supernet(get_elastic_space("vit-tokens-n", num_classes=5), 5, (24, 24), seed=1)


@pytest.mark.parametrize("tokens", ["all", "stvit:0.7", "lookupvit:0.5", "ltm:0.5", "zero-tprune:0.7"])
def test_members_with_fewer_tokens_are_served_by_one_supernet(reducing: Supernet, tokens: str) -> None:
    space = reducing.space
    member, whole = (space.architecture(["192x192", 48, 3, *[2, "3"] * 4, gene]) for gene in (tokens, "all"))
    size = space.proxy(member, reducing.resolution)
    module = reducing.extract(member, size).eval()
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(module(x), reducing.path(member).train(False)(x))
        if tokens != "all":  # every patch is seen in training, too
            assert torch.equal(module.train()(x), module.eval()(x))
    traced, lowered = trace_module(fuse(module.eval()), (1, 3, *size)), space.lower(member, size)
    assert (traced.cost.macs, traced.cost.params) == (lowered.cost.macs, lowered.cost.params)
    assert tokens in ("all", "lookupvit:0.5", "stvit:0.7") or lowered.cost.macs < space.lower(whole, size).cost.macs
    path = reducing.path(member, gradients=True).train()
    path(x).sum().backward()
    path.add_gradients()
    assert bool(reducing.gradient.any())


def test_pruning_takes_the_weights_of_the_plain_member(reducing: Supernet) -> None:
    space = reducing.space
    plain, pruned = (space.architecture(["192x192", 48, 3, *[2, "3"] * 4, gene]) for gene in ("all", "zero-tprune:0.5"))
    states = [reducing.extract(member).state_dict() for member in (plain, pruned)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert space.canonical(pruned.genes)[-1] == "zero-tprune:0.5"
    assert space.size() == 6 * 2 * (9**2 + 9**3 + 9**4) * 9
