"""The space of trained networks, on small ones: exact counts, members that run, first weights by least squares."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import ArtifactError, UsageError
from nas.events import EventBus
from nas.spaces.chain import ChainSpace, Stitch
from nas.spaces.naming import get_space
from nas.testing.spaces import CHECKS
from nas.training.supernet.weights import Supernet

NETWORKS = """
import torch
from torch import nn


class Inverted(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        hidden = 4 * c_in
        self.expand = nn.Sequential(nn.Conv2d(c_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


def pyramid(widths, depths, seed):
    torch.manual_seed(seed)
    layers, channels = [nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())], widths[0]
    blocks = []
    for width, depth in zip(widths, depths):
        for i in range(depth):
            blocks.append(Inverted(channels, width, 2 if i == 0 else 1))
            channels = width
    return nn.Sequential(*layers, nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def small():
    return pyramid((8, 16), (2, 2), 0)


def large():
    return pyramid((12, 24), (3, 2), 1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.qkv, self.project = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.norm2, self.mlp = nn.LayerNorm(c), nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=2)
        x = x + self.project((q @ k.transpose(1, 2)).softmax(2) @ v)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, c, depth):
        super().__init__()
        torch.manual_seed(depth)
        self.patches, self.blocks = nn.Conv2d(3, c, 8, 8), nn.Sequential(*(Layer(c) for _ in range(depth)))
        self.token = nn.Parameter(torch.zeros(1, 1, c))
        self.norm, self.head = nn.LayerNorm(c), nn.Linear(c, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.head(self.norm(self.blocks(x))[:, 0])


def tiny():
    return Transformer(8, 12)


def middle():
    return Transformer(12, 12)


def base():
    return Transformer(16, 12)


def deep():
    return Transformer(16, 24)
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("anchors") / "mine.py"
    path.write_text(NETWORKS)
    return path


def chain(networks: Path, *names: str, **options: object) -> ChainSpace:
    anchors = [f"{networks}:{name}" for name in names]
    space = get_space("chain", anchors=anchors, resolution=(32, 32), num_classes=10, **options)
    assert isinstance(space, ChainSpace)
    return space


def test_three_transformers_have_the_71_members_of_sn_net(networks: Path) -> None:
    space = chain(networks, "tiny", "middle", "base", pairs="window", changes=1, edits=())
    assert space.size() == len(list(space.routes())) == 71  # type: ignore[attr-defined]


def test_two_transformers_of_unequal_depth_have_the_134_members_of_sn_netv2(networks: Path) -> None:
    space = chain(networks, "tiny", "deep", pairs="aligned", changes=2, edits=())
    assert space.size() == len(list(space.routes())) == 134  # type: ignore[attr-defined]


def test_the_size_is_exact(networks: Path) -> None:
    space = chain(networks, "small", "large", pairs="near", changes=1, edits=("out",))
    assert space.size() == len(list(space.enumerate()))


def test_pairs_by_name_and_by_likeness(networks: Path) -> None:
    every = chain(networks, "small", "large", pairs="all", edits=())
    texts = [str(value) for value in every.choices[2].values[1:]]
    depths = {text: int(text[-1]) for text in texts}
    assert every.name.endswith(":pairs=all")
    assert chain(networks, "small", "large", edits=()).name == every.name.removesuffix(":pairs=all")
    chosen = every.most_alike({text: 1.0 if depth == max(depths.values()) else 0.5 for text, depth in depths.items()})
    of_one = [text for text in chosen if text.startswith("small:3>large:")]
    assert len(of_one) == 2
    assert any(text.endswith(str(max(depths.values()))) for text in of_one)
    named = chain(networks, "small", "large", pairs=chosen, edits=())
    assert named.choices[2].values == ("none", *chosen)
    found = named.architecture([*named.choices[0].values, "small", chosen[0], "none", *(c.values[0] for c in named.choices[4:])])
    every.validate(found)  # what is found among some pairs is read by the name of its space
    assert chain(networks, "small", "large", pairs=("near",)).choices == chain(networks, "small", "large").choices
    assert "one" not in chain(networks, "small", pairs="all").name.partition(":pairs")[2]
    with pytest.raises(UsageError, match="small:0>large:9"):
        chain(networks, "small", "large", pairs=["small:0>large:9"])


@pytest.mark.slow
def test_the_contract(networks: Path) -> None:
    space = chain(networks, "small", "large")
    for check in CHECKS:
        check(space)


def test_no_block_is_run_twice(networks: Path) -> None:
    space = chain(networks, "small", "large", pairs="all", edits=())
    for genes in space.routes():  # type: ignore[attr-defined]
        member = space.architecture(genes)
        assert member.genes == genes
        labels = [part.label for part in space.parts(member)]
        assert len(set(labels)) == len(labels)


def test_anchors_are_members_and_are_themselves(networks: Path) -> None:
    from nas.spaces.pretrained.network import called

    space, x = chain(networks, "small", "large"), torch.randn(2, 3, 32, 32)
    for name in ("small", "large"):
        assert list(space.describe(space.member(name))) == ["resolution", "anchor", "change1", "change2"]
        assert space.facts(space.member(name))["chain"].startswith(name)
        module = space.build(space.member(name)).eval()
        torch.testing.assert_close(module(x), called(f"{networks}:{name}").eval()(x), rtol=1e-5, atol=1e-5)


def test_every_edit_runs_and_costs_what_its_graph_says(networks: Path) -> None:
    space = chain(networks, "small", "large")
    member = space.member("small")
    forms = {"0.5", "0.75", "merged", "out"}
    seen = set()
    for i, choice in enumerate(space.choices):
        for form in forms & set(choice.values):
            if not choice.name.startswith("small"):
                continue
            edited = space.architecture([*member.genes[:i], form, *member.genes[i + 1 :]])
            module = space.build(edited).eval()
            assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
            assert space.lower(edited).cost.macs != space.lower(member).cost.macs
            seen.add(form)
    assert seen == forms


def test_maps_go_on_as_tokens_and_back(networks: Path) -> None:
    space = chain(networks, "small", "middle", pairs="all", changes=1, edits=())
    kinds = set()
    for genes in list(space.routes())[::4]:  # type: ignore[attr-defined]
        if genes[2] != "none":
            module = space.build(space.architecture(genes)).eval()
            assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)
            kinds.add(str(genes[2]).partition(":")[0])
    assert kinds == {"small", "middle"}


def test_least_squares_recover_a_network_from_itself(networks: Path) -> None:
    """Two copies of one network: every stitch at the same point is the identity, and members say what the network says."""
    from nas.training.dataset import load_dataset
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.fitting import alikeness, fit, match_penultimate

    twin = networks.with_name("twin.py")
    twin.write_text(NETWORKS.replace("def small()", "def other()"))
    space = get_space(
        "chain", anchors=[f"{networks}:small", f"{twin}:other"], resolution=(32, 32), num_classes=10, pairs="near", changes=1, edits=()
    )
    assert isinstance(space, ChainSpace)
    dataset = load_dataset("digits", images=200)
    supernet = Supernet(space, 10, (32, 32))
    train = {chain.name: Batches(dataset, "train", (32, 32), torch.device("cpu")) for chain in space.anchors}
    found = fit(supernet, lambda _size: train["small"])
    assert found.classifier_pct == {}  # ten classes are what the anchors have
    same = {slot: share for slot, share in found.explained.items() if slot.split(":")[1].partition(">")[0] == slot.rpartition(":")[2]}
    assert same
    assert min(same.values()) > 0.99
    alike = alikeness(supernet, train, 64)
    assert all(alike[slot] > 0.99 for slot in same)
    stitch = next(p[0] for p in space.slots((32, 32), 10).values() if isinstance(p[0], Stitch) and p[0].slot not in same)
    before, after = match_penultimate(supernet, stitch, train, steps=10, count=64)
    assert after <= before


def test_a_new_classifier_is_fitted_and_beats_chance(networks: Path) -> None:
    from nas.training.dataset import load_dataset
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.fitting import fit

    wrong = networks.with_name("wrong.py")
    wrong.write_text(NETWORKS.replace("nn.Linear(channels, 10)", "nn.Linear(channels, 7)"))
    space = get_space("chain", anchors=[f"{wrong}:small"], resolution=(32, 32), num_classes=10)
    assert isinstance(space, ChainSpace)
    dataset = load_dataset("digits", images=1000)
    supernet = Supernet(space, 10, (32, 32))
    found = fit(supernet, lambda size: Batches(dataset, "train", size, torch.device("cpu")))
    # features of an untrained network: chance is 10 %, twice that is beyond four deviations of it on a fifth of the pictures
    assert found.classifier_pct["small"] > 20
    assert SupernetEvaluator(supernet, dataset).evaluate(space.member("small")).accuracy_pct > 20


def test_frozen_anchors_do_not_move_while_stitches_learn(networks: Path, tmp_path: Path) -> None:
    from nas.training.dataset import load_dataset
    from nas.training.supernet.fitting import held_slots
    from nas.training.supernet.train import Recipe, train

    space = chain(networks, "small", "large", pairs="near", changes=1, edits=("width",))
    dataset = load_dataset("digits", images=64)
    recipe = Recipe(epochs=1, batch=16, random_members=1)
    before = train(space, dataset, tmp_path / "a.safetensors", Recipe(epochs=0, batch=16), resolution=(32, 32), device="cpu").supernet
    after = train(space, dataset, tmp_path / "b.safetensors", recipe, resolution=(32, 32), device="cpu").supernet
    mask = held_slots(after)
    assert torch.equal(before.flat[mask], after.flat[mask])
    assert not torch.equal(before.flat[~mask], after.flat[~mask])


def test_by_itself_its_supernet_is_trained_as_a_search_trains_it(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.runs.training import train_supernet
    from nas.training.dataset import load_dataset
    from nas.training.supernet.train import Recipe, default_recipe, member_recipe

    seen: list[tuple[Recipe, tuple[int, int]]] = []

    def stop(*given: object, resolution: tuple[int, int], **_: object) -> None:
        assert isinstance(given[3], Recipe)
        seen.append((given[3], resolution))
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.training.supernet.train.train", stop)
    space, dataset = chain(networks, "small", "large"), load_dataset("digits", images=200)
    for settings in ({}, {"epochs": 2}):
        with pytest.raises(KeyboardInterrupt):
            train_supernet(space.name, dataset, Path("w"), resolution=None, settings=settings, seed=0, bus=EventBus())
    (default, side), (two, _) = seen
    assert side == (space.least_proxy, space.least_proxy) == (64, 64)
    assert default.epochs == member_recipe(dataset).epochs
    assert two == replace(default_recipe(dataset, space), epochs=2)


def test_shared_weights_of_other_anchors_are_refused(tmp_path: Path) -> None:
    from nas.training.dataset import load_dataset
    from nas.training.supernet.train import Recipe, load_supernet, train

    mine, path = tmp_path / "mine.py", tmp_path / "w.safetensors"
    mine.write_text(NETWORKS)
    space = chain(mine, "small", pairs="near", changes=1, edits=("width",))
    data = load_dataset("digits", images=64)
    trained = train(space, data, path, Recipe(epochs=0, batch=16), resolution=(32, 32), device="cpu").supernet
    assert load_supernet(path, space, data).key == trained.key
    mine.write_text(NETWORKS.replace("(2, 2), 0)", "(2, 2), 17)"))  # of another length: compiled code of the former is not taken for it
    other = chain(mine, "small", pairs="near", changes=1, edits=("width",))
    assert other.name == space.name
    with pytest.raises(ArtifactError, match="of another training, got anchors"):
        load_supernet(path, other)


def test_mistakes_name_the_remedy(networks: Path) -> None:
    with pytest.raises(UsageError, match="--anchor"):
        get_space("chain")
    with pytest.raises(UsageError, match="given twice"):
        chain(networks, "small", "small")
    space = get_space("chain-resnet18", resolution=(64, 64))
    member = space.sample(np.random.default_rng(0))
    with pytest.raises(UsageError, match="no weights on this machine"):
        space.build(member)


@pytest.mark.slow
def test_deit_counts() -> None:
    from nas.spaces.pretrained.libraries import timm_library

    if timm_library() is None:
        pytest.skip("timm is not installed")
    anchors = [f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")]
    space = get_space("chain", anchors=anchors, pairs="window", changes=1, edits=())
    assert space.size() // len(space.choices[0].values) == 71


def test_members_follow_their_anchor(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconstruction: the anchor itself is not touched, and an edited member ends nearer to the anchor than without it."""
    from nas.training.dataset import load_dataset
    from nas.training.supernet.batches import Batches
    from nas.training.supernet.fitting import anchor_path, fit
    from nas.training.supernet.reconstruction import Members
    from nas.training.supernet.statistics import recalibrate

    monkeypatch.setattr("nas.spaces.surgery.factorising.DIVISOR", 2)  # the networks are small
    space = chain(networks, "small", "large", pairs="near", changes=1)
    dataset = load_dataset("digits", images=400)
    supernet = Supernet(space, 10, (32, 32))
    train = Batches(dataset, "train", (32, 32), torch.device("cpu"))
    fit(supernet, lambda _size: train)
    x = next(train.plain(256))[0]
    anchor, members, before = anchor_path(supernet, space.member("small"), train)[0](x), Members(supernet, dataset), supernet.flat.clone()
    whole = space.member("small")
    for name, own in zip(supernet.path(whole).weights, members.path(whole).weights, strict=True):
        assert all(torch.equal(name[key], own[key]) for key in name)
    blocks = [i for i, choice in enumerate(space.choices) if choice.name.startswith("small.")]
    seen = set()
    for i in blocks:
        for form in {"0.5", "merged", "out", "rank-0.5"} & set(space.choices[i].values):
            member = space.architecture([*whole.genes[:i], form, *whole.genes[i + 1 :]])
            errors = []
            for path in (supernet.path(member), members.path(member)):
                recalibrate(path, [x])
                errors.append(float((path(x) - anchor).square().mean()))
            assert errors[1] < errors[0], (space.choices[i].name, form)
            seen.add(form)
    assert seen == {"0.5", "merged", "out", "rank-0.5"}
    assert torch.equal(before, supernet.flat)
    module = members.module(member, (32, 32)).eval()
    assert module(x).shape == (len(x), 10)
    stitched = next(genes for genes in space.routes() if genes[2] != "none")  # type: ignore[attr-defined]
    stitched = space.architecture(stitched)
    shared, own = supernet.path(stitched), members.path(stitched)
    at = next(i for i, part in enumerate(space.parts(stitched, (32, 32), 10)) if isinstance(part, Stitch))
    changed = [any(not torch.equal(a[key], b[key]) for key in a) for a, b in zip(shared.weights, own.weights, strict=True)]
    assert not any(changed[:at]), "what runs before the change of anchor stays"
    assert any(changed[at:]), "what runs after it is brought nearer to the anchor that goes on"


def test_where_a_segment_closes(networks: Path) -> None:
    from nas.spaces.surgery.closing import Closing, closing_layer

    space = chain(networks, "small", "middle", edits=("merge",))
    inverted, layer = space.anchors[0].blocks()[1].build(), space.anchors[1].blocks()[1].build()
    first = closing_layer(inverted)
    assert first is not None
    assert first.layer.endswith("project.0")
    assert first.norm is not None
    second = closing_layer(layer)
    assert second is not None
    assert second.norm is None
    merged = next(p for parts in space.slots((32, 32), 10).values() for p in parts if getattr(p, "merged", False))
    assert closing_layer(merged.build()) == Closing("run0.convs.2", "run0.norms.2")
    assert closing_layer(space.anchors[0].blocks()[0].build()) is None  # a rectifier follows


def test_a_size_is_judged_at_its_own_share(networks: Path) -> None:
    """Proxies of sizes between multiples of 32 are sizes of their own, where anchors run and stitches fit there."""
    space = get_space("chain", anchors=[f"{networks}:small"], num_classes=10)
    assert isinstance(space, ChainSpace)
    sizes = [str(value) for value in space.choices[0].values]
    proxies = [space.proxy(space.member("small", size), (64, 64))[0] for size in sizes]
    assert len(sizes) == 7
    assert proxies == sorted(proxies, reverse=True)
    assert len(set(proxies)) >= 4
    two = get_space("chain", anchors=[f"{networks}:small", f"{networks}:large"], num_classes=10)
    assert isinstance(two, ChainSpace)
    assert len(two.choices[0].values) == 4
    for size in two.choices[0].values:
        member = two.architecture(
            [size, "small", next(v for v in two.choices[2].values if v != "none"), *[c.values[0] for c in two.choices[3:]]]
        )
        side = two.proxy(member, (64, 64))
        module = two.build(member, resolution=side).eval()
        assert module(torch.randn(1, 3, *side)).shape == (1, 10)
